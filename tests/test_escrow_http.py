"""`outage: escrow`: while the store is away a sidecar serves what it held ahead of time, no more, and is made whole by itself."""

import asyncio
import signal

import pytest

from accounting.journal.aftermath import crashed
from accounting.journal.format import Progress
from accounting.settlement import open_note
from accounting.store.errors import StoreUnavailableError
from tests.sidecars import MODEL, house, total

SMALL = "admission: {min_completion: 16, unbounded_share: 1}\n"
LIMIT, ESCROW = 10_000, 200
BUDGETS = f'budgets: [{{subject: "user:alice", output_tokens: {LIMIT}, period: day, outage: escrow}}]\n{SMALL}'
CALL = 20


@pytest.fixture
async def h(own_store, tmp_path):
    async with house(own_store, tmp_path, more=BUDGETS) as made:
        made.store = own_store
        assert (await made.chat(MODEL + "?length=20", max_tokens=20)).status == 200
        await kept(made)
        yield made
        if own_store.process is None:
            own_store.start()
        own_store.process.send_signal(signal.SIGCONT)
        await made.settled()


async def kept(h):
    async with asyncio.timeout(5):
        while not h.sidecar.ledger.escrows.holds():
            await asyncio.sleep(0.005)
    await h.settled()


def gone(h, how):
    h.store.stop() if how == "killed" else h.store.process.send_signal(signal.SIGSTOP)


def back(h, how):
    h.store.start() if how == "killed" else h.store.process.send_signal(signal.SIGCONT)


async def test_it_is_held_as_soon_as_the_budget_is_used(h):
    assert (await h.balances())["user:alice", "output_tokens"] == (CALL, ESCROW)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_without_the_store_exactly_the_escrow_is_served_and_charged_when_it_is_back(h, how):
    gone(h, how)
    served = []
    for _ in range(12):
        reply = await h.chat(MODEL + "?length=500", max_tokens=30)
        if reply.status == 200:
            assert reply.headers["x-bursar-unreserved"] == "escrow"
            served.append(reply.json["usage"]["completion_tokens"])
            assert int(reply.headers["x-budget-remaining-tokens"]) == ESCROW - sum(served)
            assert reply.headers.get("x-budget-clamped") == (None if served[-1] == 30 else "20")
        else:
            assert (reply.status, reply.error["code"]) == (503, "budget_store_unavailable")
    assert served == [30] * 6 + [20], "the last is clamped to what is left"
    assert total(await h.metrics(), "bursar_escrow_admissions_total") == 7
    assert total(await h.metrics(), "bursar_unreserved_total") == 0
    used = h.fake.invoice.completion_tokens
    assert used == CALL + ESCROW
    back(h, how)
    await h.settled()
    assert (await h.balances())["user:alice", "output_tokens"] == (used, 0), "out of the escrow, so all of it is gone"
    if how == "frozen":  # one that was restarted learns first
        async with asyncio.timeout(15):
            while (await h.chat(MODEL + "?length=5", max_tokens=20)).status != 200:
                await asyncio.sleep(0.05)
    assert total(await h.metrics(), "bursar_overspend_usd_total") == 0


async def test_the_rest_of_the_budget_is_others_and_nothing_is_over_after_recovery(h, own_store, tmp_path):
    """A second sidecar spends all that it can get while the first is cut off and lives on its escrow."""
    async with house(
        own_store, tmp_path / "b", more=BUDGETS, fake=h.fake, prefix=h.sidecar.config.store.prefix
    ) as other:
        run = h.sidecar.store.run_packed

        async def away(*args, **more):
            raise StoreUnavailableError("cut off")

        h.sidecar.store.run_packed = away
        replies = []
        while not replies or replies[-1].status == 200:
            replies.append(await other.chat(MODEL + "?length=2000", max_tokens=2000))
            await other.settled()
        assert replies[-1].error["code"] in ("budget_held", "insufficient_quota")
        mine = [await h.chat(MODEL + "?length=500", max_tokens=100) for _ in range(4)]
        assert [reply.status for reply in mine] == [200, 200, 503, 503]
        h.sidecar.store.run_packed = run
        await h.settled()
        used, held = (await other.balances())["user:alice", "output_tokens"]
        assert used + held <= LIMIT
        assert used == h.fake.invoice.completion_tokens
        assert used == LIMIT - ESCROW, (
            "less what the other kept for itself; when that was what was missing, it gave it up"
        )
        assert (await other.chat(MODEL + "?length=2000", max_tokens=2000)).status == 200
        await other.settled()
        assert (await other.balances())["user:alice", "output_tokens"] == (LIMIT, 0)
        assert h.fake.invoice.completion_tokens == LIMIT


async def test_once_its_lease_is_over_calls_are_refused(h):
    gone(h, "killed")
    assert (await h.chat(max_tokens=20)).status == 200
    (hold,) = h.sidecar.ledger.escrows.holds()
    assert hold.until_s - asyncio.get_running_loop().time() < 29.66
    hold.until_s = asyncio.get_running_loop().time()
    reply = await h.chat(max_tokens=20)
    assert (reply.status, reply.error["code"]) == (503, "budget_store_unavailable")
    back(h, "killed")


async def test_a_stream_lives_on_it_as_well_and_is_clamped(h):
    gone(h, "killed")
    reply = await h.chat(MODEL + "?length=5000", stream=True, max_tokens=5000)
    assert reply.headers["x-budget-clamped"] == str(ESCROW)
    assert reply.body.endswith(b"data: [DONE]\n\n")
    back(h, "killed")
    await h.until_receipts(2)
    assert (await h.balances())["user:alice", "output_tokens"] == (CALL + ESCROW, 0)


async def test_what_a_crash_leaves_of_a_call_on_escrow_is_taken_off_the_escrow(h):
    """The journal's note names the escrow, so that whoever finds it settles out of it."""
    gone(h, "killed")
    call = asyncio.create_task(h.chat(MODEL + "?length=20&delay_ms=300", max_tokens=20))
    await h.fake.until(lambda: h.fake.in_flight == 1)
    (hold,) = h.sidecar.ledger.open.values()
    cover = h.sidecar.ledger.escrows.holds()[0].seq
    item = crashed(
        open_note(hold), Progress(seq=hold.seq, input_tokens=14, output_tokens=3, cost_nanousd=0), "20260101"
    )
    assert item.rows[0][3] == f"{CALL}@{cover}"
    assert item.rows[0][4] == CALL
    assert (await call).status == 200
    back(h, "killed")


async def test_readiness_tells_of_the_store_as_ever(h):
    gone(h, "killed")
    assert (await h.chat(max_tokens=20)).status == 200
    assert (await h.ops("/readyz")).status == 503
    back(h, "killed")
