"""Alerts: each soft threshold of a budget once per period, over all sidecars, signed, retried and bounded; and in the log."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from accounting.budgets import Budget
from accounting.callbacks import CostAlertCallbackHandler, Marks, Webhook
from accounting.callbacks.alerts import BudgetAlerts, Teller, reached, thresholds_of
from accounting.callbacks.marks import AGAIN, FIRST, NO
from accounting.callbacks.webhook import WAITING_MAX, signature, verified
from accounting.hold import HeldRow, Hold
from accounting.periods import Period
from accounting.store.anywhere import StoreAnywhere
from accounting.store.store import Store
from accounting.store.url import read_url
from accounting.supervisor import Supervisor
from adapters.transport.plain import PlainTransport
from proxy.callbacks import posting
from tests.sidecars import MODEL, house

DAY_MS = 86_400_000
NOW_MS = 20_000 * DAY_MS + 5


class Receiver:
    """A webhook's other end; `statuses` are answered in turn, then 200."""

    def __init__(self, *statuses):
        self.statuses, self.got = list(statuses), []
        self._changed = asyncio.Event()

    async def __aenter__(self):
        self._runner = web.ServerRunner(web.Server(self._handle))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook"
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    async def _handle(self, request):
        body = await request.read()
        self.got.append((dict(request.headers), body))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)

    async def until(self, count):
        async with asyncio.timeout(10):
            while len(self.got) < count:
                await self._changed.wait()

    @property
    def notices(self):
        return [json.loads(body) for _, body in self.got]


@pytest.fixture
async def post():
    transport = PlainTransport()
    yield posting(lambda: transport)
    await transport.close()


@pytest.fixture
async def own(store, request):
    """A store with a prefix of the test's own."""
    made = Store(read_url(store.url), prefix=f"a-{abs(hash(request.node.name))}")
    yield made
    await made.close()


def budget(limit=1000, period="day", **more):
    return Budget(subject="user:alice", unit="tokens", limit=limit, period=Period(kind=period), **more)


def hold(of, used=0, amount=10, field="used"):
    window = of.period.window(NOW_MS)
    row = HeldRow(
        budget=of, counters_key="b", holds_key="h", field=field, amount=amount, expiry_ms=0, resets_ms=window.end_ms,
        limit=of.limit, used=used, held=amount,
    )  # fmt: skip
    return Hold(seq=1, request_id="r", granted=1, rows=(row,))


@asynccontextmanager
async def sidecar(store, webhook=None, now_ms=NOW_MS, used_now=None):
    """What one sidecar has of it: alerts, and a way to wait for what they began."""
    supervisor = Supervisor()
    hook = webhook
    alerts = BudgetAlerts(
        Teller(Marks(store), lambda: hook), spawn=lambda work, name: supervisor.spawn(work, name=name),
        now_ms=lambda: now_ms, used_now=used_now,
    )  # fmt: skip
    alerts.idle = lambda: supervisor.drain(10)
    yield alerts
    assert await supervisor.drain(10) == 0


# --- what is a threshold


@pytest.mark.parametrize(
    ("used", "limit", "threshold", "answer"),
    [
        (799, 1000, 0.8, False),
        (800, 1000, 0.8, True),
        (2**52, 2**53 - 1, 0.5, True),
        (949, 1000, 0.95, False),
        (950, 1000, 0.95, True),
        (0, 1, 0.5, False),
    ],
)
def test_a_threshold_is_reached_exactly(used, limit, threshold, answer):
    assert reached(used, limit, threshold) is answer


@pytest.mark.parametrize(
    ("mode", "soft", "found"),
    [
        ("hard", (), ()),
        ("hard", (0.95, 0.5), (0.5, 0.95)),
        ("soft", (), (1.0,)),
        ("soft", (0.5,), (0.5, 1.0)),
        ("hard", (0.0, 0.5), (0.5,)),
    ],
)
def test_a_soft_budget_tells_at_its_limit_too(mode, soft, found):
    assert thresholds_of(budget(mode=mode, soft=soft)) == found


# --- once


async def test_each_threshold_fires_once_per_period_over_all_sidecars(own, post, caplog):
    soft = budget(soft=(0.5, 0.8, 0.95))
    async with Receiver() as receiver:
        webhook = Webhook(receiver.url, post)
        async with sidecar(own, webhook) as one, sidecar(own, webhook) as two:
            for used in (100, 499, 500, 501, 700, 810, 820, 960, 1000):
                for each in (one, two):
                    each.settled(hold(soft), [used, 0])
            await one.idle()
            await two.idle()
        async with sidecar(own, webhook) as late:  # one that has seen nothing yet
            late.settled(hold(soft), [1000, 0])
            await late.idle()
        assert sorted(notice["threshold"] for notice in receiver.notices) == [0.5, 0.8, 0.95]
    assert caplog.text.count("budget user:alice (tokens per day) has reached") == 3


async def test_a_jump_over_several_thresholds_tells_each(own, post):
    async with Receiver() as receiver:
        async with sidecar(own, Webhook(receiver.url, post)) as alerts:
            soft = budget(soft=(0.5, 0.8, 0.95))
            alerts.settled(hold(soft), [990, 0])
            await alerts.idle()
        name = f"{soft.id}:{soft.period.window(NOW_MS).end_ms // 1000}:800000"
        assert await own.call("GET", own.key("alert", name)) == b"done"
        assert sorted(notice["threshold"] for notice in receiver.notices) == [0.5, 0.8, 0.95]


async def test_the_next_period_tells_anew(own, post):
    async with Receiver() as receiver:
        webhook, soft = Webhook(receiver.url, post), budget(soft=(0.5,))
        for now_ms in (NOW_MS, NOW_MS + DAY_MS):
            window = soft.period.window(now_ms)
            held = hold(soft)
            row = held.rows[0]
            held.rows = (
                type(row)(**{name: getattr(row, name) for name in row.__slots__} | {"resets_ms": window.end_ms}),
            )
            async with sidecar(own, webhook, now_ms) as alerts:
                alerts.settled(held, [600, 0])
                await alerts.idle()
        assert len(receiver.got) == 2
        assert len({notice["resets_at"] for notice in receiver.notices}) == 2


async def test_a_rolling_budget_is_read_before_it_tells(own, post):
    used = [300]

    async def used_now(_):
        return used[0]

    rolling = budget(period="rolling:1d", soft=(0.5,))
    async with Receiver() as receiver:
        async with sidecar(own, Webhook(receiver.url, post), used_now=used_now) as alerts:
            alerts.settled(hold(rolling, used=600, field="u1"), [9, 0])
            await alerts.idle()
            assert not receiver.got
            used[0] = 700
            for _ in range(3):
                alerts.settled(hold(rolling, used=700, field="u1"), [9, 0])
                await alerts.idle()
        assert [notice["used"] for notice in receiver.notices] == [700]


async def test_a_store_that_is_away_makes_the_next_settlement_try_again(own, post):
    gone = Store(read_url("redis://127.0.0.1:9"))
    async with Receiver() as receiver:
        webhook, soft = Webhook(receiver.url, post), budget(soft=(0.5,))
        async with sidecar(gone, webhook) as alerts:
            alerts.settled(hold(soft), [600, 0])
            await alerts.idle()
            assert not receiver.got
            alerts._teller = Teller(Marks(own), lambda: webhook)
            alerts.settled(hold(soft), [601, 0])
            await alerts.idle()
        assert len(receiver.got) == 1


async def test_a_mark_is_claimed_once_and_taken_over_only_when_its_lease_is_over(own):
    one, two = Marks(own), Marks(own)
    assert await one.claim("m", lease_s=60, ttl_ms=100_000) == FIRST
    assert await two.claim("m", lease_s=60, ttl_ms=100_000) == NO
    assert await one.claim("m", lease_s=0, ttl_ms=100_000) == AGAIN
    assert await two.claim("m", lease_s=60, ttl_ms=100_000) == AGAIN
    await two.confirm("m", ttl_ms=100_000)
    assert await one.claim("m", lease_s=60, ttl_ms=100_000) == NO
    assert 0 < await own.call("PTTL", own.key("alert", "m")) <= 100_000


# --- the webhook


async def test_a_notice_is_signed_so_that_a_forged_an_altered_and_an_old_one_are_known(own, post):
    async with Receiver() as receiver:
        assert await Webhook(receiver.url, post, secret="s3cret").send({"x": 1})
        headers, body = receiver.got[0]
    sent = headers["x-bursar-signature"]
    at = int(sent.partition("t=")[2].partition(",")[0])
    assert verified(b"s3cret", body, sent, now_s=at + 10)
    assert not verified(b"other", body, sent, now_s=at + 10)
    assert not verified(b"s3cret", body + b" ", sent, now_s=at + 10)
    assert not verified(b"s3cret", body, sent, now_s=at + 301)
    for broken in ("", "t=,v1=", "v1=abc", "t=1e9,v1=x", sent.replace("v1=", "v2=")):
        assert not verified(b"s3cret", body, broken, now_s=at)
    assert signature(b"k", b"{}", 1) == "t=1,v1=" + __import__("hmac").new(b"k", b"1.{}", "sha256").hexdigest()


async def test_a_notice_is_tried_again_with_the_same_id_until_it_is_taken(post):
    async with Receiver(500, 429, 503) as receiver:
        webhook = Webhook(receiver.url, post, backoff_s=0.001)
        assert await webhook.send({"x": 1})
        assert len({headers["x-bursar-event-id"] for headers, _ in receiver.got}) == 1
        assert len(receiver.got) == 4
    assert (webhook.delivered_total, webhook.failed_total) == (1, 0)


@pytest.mark.parametrize(("statuses", "posts"), [((404,), 1), ((301,), 1), ((500,) * 9, 5)])
async def test_a_notice_that_is_refused_or_never_taken_is_given_up(post, statuses, posts):
    async with Receiver(*statuses) as receiver:
        webhook = Webhook(receiver.url, post, backoff_s=0.001)
        assert not await webhook.send({"x": 1})
        assert len(receiver.got) == posts
    assert webhook.failed_total == 1


async def test_no_more_notices_wait_than_the_bound_and_few_are_sent_at_once():
    release, most, now = asyncio.Event(), 0, 0

    async def post(url, headers, body):
        nonlocal most, now
        now += 1
        most = max(most, now)
        await release.wait()
        now -= 1
        return 200

    webhook = Webhook("http://x", post)
    sending = [asyncio.create_task(webhook.send({"n": n})) for n in range(WAITING_MAX + 5)]
    for _ in range(5):
        await asyncio.sleep(0)
    release.set()
    found = await asyncio.gather(*sending)
    assert found.count(False) == webhook.dropped_total == 5
    assert most == 4


async def test_a_webhook_that_is_away_leaves_the_alert_to_be_claimed_again(own, caplog):
    async def away(url, headers, body):
        raise OSError

    soft = budget(soft=(0.5,))
    async with sidecar(own, Webhook("http://x", away, attempts=1)) as alerts:
        alerts.settled(hold(soft), [600, 0])
        await alerts.idle()
        assert not alerts._seen
    mark = Marks(own)
    name = f"{soft.id}:{soft.period.window(NOW_MS).end_ms // 1000}:500000"
    assert await mark.claim(name, lease_s=1, ttl_ms=10_000) == NO  # the lease is not over yet
    assert caplog.text.count("has reached 50 %") == 1


# --- without the proxy, and in it


async def test_a_services_own_cost_alert_fires_once_per_threshold_over_all_processes(own, post, caplog):
    async with Receiver() as receiver:
        make = lambda: CostAlertCallbackHandler(
            "alice", "0.01", store=StoreAnywhere(store=own), webhook=lambda: Webhook(receiver.url, post), thresholds=(0.5, 1.0)
        )  # fmt: skip
        one, two = make(), make()
        for _ in range(3):
            await one.on_llm_end({"cost_estimate": 0.002})
            await two.on_llm_end({"cost_estimate": 0.002})
        await one.on_llm_end({"cost_estimate": None})
        assert [notice["threshold"] for notice in receiver.notices] == [0.5, 1.0]
        assert receiver.notices[0]["used"] == pytest.approx(0.006)
        assert receiver.notices[0]["limit"] == pytest.approx(0.01)


@pytest.mark.parametrize("bad", [0, -1, "0"])
def test_a_cost_alert_wants_a_budget_above_zero(bad):
    with pytest.raises(ValueError):
        CostAlertCallbackHandler("alice", bad, store=None)


async def test_the_proxys_soft_thresholds_reach_the_webhook_once_from_two_sidecars(store, tmp_path):
    async with Receiver() as receiver:
        more = (
            'budgets: [{subject: "user:alice", tokens: 100, period: day, soft: [0.5, 0.8]}]\n'
            f'alerts: {{webhook: "{receiver.url}", secret: "s3cret"}}\n'
        )
        prefix = f"alerts{id(receiver)}"
        async with (
            house(store, tmp_path / "1", prefix=prefix, more=more) as one,
            house(store, tmp_path / "2", prefix=prefix, more=more) as two,
        ):
            for _ in range(2):
                for each in (one, two):
                    await each.chat(f"{MODEL}?length=10", max_tokens=10)
                    await each.until_receipts(1)
            await receiver.until(2)
            for each in (one, two):
                await each.sidecar.supervisor.drain(0.05)
        assert sorted(notice["threshold"] for notice in receiver.notices) == [0.5, 0.8]
        headers, body = receiver.got[0]
        at = int(headers["x-bursar-signature"].partition("t=")[2].partition(",")[0])
        assert verified(b"s3cret", body, headers["x-bursar-signature"], now_s=at)
        assert receiver.notices[0]["subject"] == "user:alice"
        assert receiver.notices[0]["unit"] == "tokens"
