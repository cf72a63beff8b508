"""`bursar explain`: what it says is what would happen, and saying it holds nothing."""

import json
import random

import pytest

from accounting.adjusting import adjust
from accounting.ask import Ask, Draw, Rate
from accounting.budgets import Budget
from accounting.hold import BudgetRefusedError, RateRefusedError
from accounting.ledger import Ledger
from accounting.periods import Period
from accounting.reading import Reader
from accounting.settlement import Spent
from accounting.store.store import Store
from accounting.store.url import read_url
from accounting.supervisor import Supervisor
from accounting.verdict import decide
from tests.cli_runs import Shell, shell_of, written
from tests.sidecars import HELLO, MODEL, house

FILE = 'budgets: [{subject: "user:alice", usd: 0.01, period: day}, {subject: "key:alice-laptop", requests: 3, period: day}]\n'
CASES = 400


def random_ask(chance, number):
    """An ask on its own counters: few, small numbers, so that every edge is met."""
    draws = [
        Draw(
            Budget(
                subject=f"user:c{number}d{index}",
                unit="tokens",
                limit=chance.choice([0, 1, 40, 100, 1000]),
                period=Period(kind="total"),
                mode=chance.choice(["hard", "hard", "hard", "soft", "shadow"]),
                hold=chance.choice(["clamp", "clamp", "full"]),
            ),
            chance.choice([0, 1, 10, 60]),
            chance.choice([0, 0, 1, 2, 7]),
        )
        for index in range(chance.randint(0, 3))
    ]
    rates = [
        Rate(
            subject=f"key:c{number}r{index}",
            what="tokens",
            limit=chance.choice([1, 30, 100, 300]),
            fixed=chance.choice([0, 1, 20]),
            per_output=chance.choice([0, 1, 1, 3]),
            window_ms=3_600_000,
        )
        for index in range(chance.randint(0, 2))
    ]
    least = chance.choice([0, 1, 5, 20])
    return Ask(
        draws=tuple(draws),
        rates=tuple(rates),
        least=least,
        wanted=least + chance.choice([0, 1, 10, 100]),
        share_permille=chance.choice([0, 0, 250, 1000]),
    )


async def real(ledger, ask):
    """What the script itself says, in the verdict's words; the hold if it gave one."""
    try:
        hold = await ledger.reserve(ask, request_id="r")
    except BudgetRefusedError as error:
        return ("held" if error.held_only else "spent", 0, error.row.budget.subject), None
    except RateRefusedError as error:
        return ("rate", 0, error.row.subject), None
    return ("clamp" if hold.granted < ask.wanted else "admit", hold.granted, None), hold


async def test_the_verdict_is_always_that_of_the_real_script(store, tmp_path):
    found = Store(read_url(store.url), prefix=f"verdict{tmp_path.name}", deadline_s=5)
    supervisor = Supervisor()
    ledger = Ledger(found, supervisor=supervisor)
    await ledger.start()
    chance, seen = random.Random(20261120), set()
    for number in range(CASES):
        ask = random_ask(chance, number)
        for _ in range(4):  # the first call meets empty counters, the next what it held or used
            rows = [
                balance.row
                for balance in await Reader(found).balances([draw.budget for draw in ask.draws], ledger.now_ms())
            ]
            tats = [float(await found.call("GET", found.key("q", rate.subject, rate.what)) or 0) for rate in ask.rates]
            said = decide(ask, rows, tats, ledger.now_ms())
            whose = None
            if said.draw is not None:
                whose = ask.draws[said.draw].budget.subject
            elif said.rate is not None:
                whose = ask.rates[said.rate].subject
            happened, hold = await real(ledger, ask)
            assert (said.kind, said.granted, whose) == happened, (ask, rows)
            seen.add(said.kind)
            if hold is not None and chance.random() < 0.3:
                ledger.settle(hold, Spent(input_tokens=chance.randint(0, 30), output_tokens=0, record=b"{}"))
                await supervisor.drain(5)
    assert seen == {"admit", "clamp", "held", "spent", "rate"}
    await found.close()


async def test_a_call_that_waits_for_holds_is_too_fast_only_by_what_it_would_then_get(store, tmp_path):
    found = Store(read_url(store.url), prefix=f"idle{tmp_path.name}", deadline_s=5)
    ledger = Ledger(found, supervisor=Supervisor())
    await ledger.start()
    budget = Budget(subject="user:a", unit="tokens", limit=100, period=Period(kind="total"))
    await adjust(found, budget, 80, {}, 1)
    rate = {"subject": "key:a", "what": "tokens", "limit": 50, "window_ms": 3_600_000}
    await ledger.reserve(
        Ask(draws=(Draw(budget, 15, 0),), rates=(Rate(**rate, fixed=20, per_output=0),)), request_id="r"
    )
    for least, kind in ((10, "held"), (20, "held"), (21, "spent")):  # 20 fit without the holds, 30 by the rate
        ask = Ask(draws=(Draw(budget, 0, 1),), rates=(Rate(**rate, fixed=0, per_output=1),), wanted=100, least=least)
        row = (await Reader(found).balances([budget], 1))[0].row
        tat = float(await found.call("GET", found.key("q", "key:a", "tokens")))
        assert decide(ask, [row], [tat], ledger.now_ms()).kind == kind
        assert (await real(ledger, ask))[0][0] == kind
    await found.close()


@pytest.fixture
async def h(store, tmp_path):
    async with house(store, tmp_path, more=FILE) as found:
        yield found


@pytest.mark.parametrize("limit", [None, 10, 4000, 100_000])
async def test_it_grants_what_the_call_is_granted_and_holds_nothing(h, capsys, tmp_path, limit):
    shell = shell_of(capsys, tmp_path, h)
    body = {"model": MODEL, "messages": HELLO} | ({"max_tokens": limit} if limit else {})
    (tmp_path / "r.json").write_text(json.dumps(body))
    said = (await shell.beside("explain", "--key", "alice-laptop", "--file", str(tmp_path / "r.json"), "--json")).json
    assert await h.balances() == {("user:alice", "usd"): (0, 0), ("key:alice-laptop", "requests"): (0, 0)}
    assert not h.fake.requests
    reply = await h.post(**body)
    assert reply.status == 200
    clamped = reply.headers.get("x-budget-clamped")
    assert said["verdict"] == (f"clamp to {clamped}" if clamped else "admit")
    assert said["input_tokens"]["counted"] == reply.json["usage"]["prompt_tokens"]


async def test_the_arithmetic_of_each_budget_adds_up(h, capsys, tmp_path):
    shell = shell_of(capsys, tmp_path, h)
    said = (
        await shell.beside("explain", "--key", "alice-laptop", "--model", MODEL, "--max-tokens", "500", "--json")
    ).json
    money, calls = (
        {row["unit"]: row for row in said["budgets"]}["usd"],
        {row["unit"]: row for row in said["budgets"]}["requests"],
    )
    assert money["would_hold"] == pytest.approx(money["fixed"] + 500 * money["per_output_token"])
    assert money["per_output_token"] == 0.000002
    assert money["free"] == money["limit"] - money["used"] - money["held"]
    assert (calls["would_hold"], calls["need"], calls["per_output_token"]) == (1, 1, 0)
    text = (await shell.beside("explain", "--key", "alice-laptop", "--model", MODEL, "--max-tokens", "500")).out
    assert "$0.01 - $0 used - $0 held = $0.01" in text
    assert text.endswith("verdict   admit\n")


async def test_a_spent_budget_is_explained_as_the_client_is_told(h, capsys, tmp_path):
    shell = shell_of(capsys, tmp_path, h)
    await shell.beside("budget", "adjust", "alice", "--usd", "0.01", "--reason", "test")
    ran = await shell.beside("explain", "--user", "alice", "--model", MODEL, "--json")
    assert (ran.code, ran.json["verdict"]) == (1, "insufficient_quota")
    assert (await h.chat()).error["code"] == "insufficient_quota"


REFUSED = [
    ({"web_search_options": {"x": 1}}, "unbounded_cost"),
    ({"model": "gpt-nobody-prices"}, "unknown_price"),
    ({"model": "secret-model"}, "model_not_found"),
    ({"max_tokens": 0}, "invalid_request"),
    ({"messages": []}, "invalid_request"),
]


@pytest.mark.parametrize(
    ("change", "verdict"), REFUSED, ids=[verdict + str(i) for i, (_, verdict) in enumerate(REFUSED)]
)
def test_a_call_that_is_never_asked_of_the_ledger_is_explained_too(capsys, tmp_path, store, change, verdict):
    models = 'models: {"gpt-*": fake/*}'
    path = written(
        tmp_path,
        store,
        budgets='budgets: [{subject: "user:a", usd: 1, period: day}]',
        models=models,
        more='prices: {"fake/gpt-4o": {input: 1, output: 2}}',
    )
    (tmp_path / "r.json").write_text(json.dumps({"model": MODEL, "messages": HELLO} | change))
    ran = Shell(capsys, path)("explain", "--user", "a", "--file", str(tmp_path / "r.json"), "--json")
    assert (ran.code, ran.json["verdict"]) == (1, verdict)


@pytest.mark.parametrize("operation", ["chat", "completions", "embeddings", "responses"])
def test_every_operation_can_be_explained(capsys, tmp_path, store, operation):
    shell = Shell(capsys, written(tmp_path, store))
    ran = shell("explain", "--user", "a", "--model", "fake-1", "--operation", operation)
    assert ran.code == 0, ran.err
    assert "nothing limits this call" in ran.out


async def test_rate_limits_are_explained(store, tmp_path, capsys):
    async with house(store, tmp_path, more='limits: [{subject: "key:*", rpm: 1, concurrency: 3}]\n') as found:
        shell = shell_of(capsys, tmp_path, found)
        before = await shell.beside("explain", "--key", "alice-laptop", "--model", MODEL)
        assert (before.code, before.out.count("calls at once")) == (0, 1)
        await found.chat()
        await found.settled()
        ran = await shell.beside("explain", "--key", "alice-laptop", "--model", MODEL, "--json")
        assert (ran.code, ran.json["code"]) == (1, "rate_limit_exceeded")
        assert 0 < ran.json["wait_ms"] <= 60_000


MISUSE = [
    (("--user", "a"), "name a model"),
    (("--model", "fake-1"), "--user alice or --key ID"),
    (("--key", "nobody", "--model", "fake-1"), "there is no key nobody"),
    (("--key", "k", "--user", "b", "--model", "fake-1"), "speaks for a, not for b"),
    (("--user", "a", "--file", "r.json", "--prompt", "x"), "not allowed with"),
    (("--user", "a", "--file", "{dir}/bad.json"), "is not JSON"),
    (("--user", "a", "--file", "{dir}/list.json"), "is not a JSON object"),
    (("--user", "a", "--model", "fake-1", "--max-tokens", "many"), "invalid int"),
]


@pytest.mark.parametrize(("words", "says"), MISUSE, ids=[" ".join(words) for words, _ in MISUSE])
def test_misuse_ends_with_2(capsys, tmp_path, store, words, says):
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    path = written(tmp_path, store, keys='keys: [{id: k, user: a, secret: "f00dbabef00dbabef00dbabef00dbabe"}]')
    ran = Shell(capsys, path)("explain", *(word.format(dir=tmp_path) for word in words))
    assert (ran.code, ran.out) == (2, "")
    assert says in ran.err
