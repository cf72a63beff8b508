"""`bursar budget`: exact amounts, reasons that are kept, and a running proxy that follows on its next call."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounting.adjusting import adjust, audit_entries
from accounting.budgets import Budget
from accounting.periods import Period
from accounting.reading import Reader
from accounting.store.scripts import script
from accounting.store.store import Store
from accounting.store.url import read_url
from proxy import spelled
from proxy.amounts import usd_text
from tests.cli_runs import Shell, shell_of, written
from tests.sidecars import NANO, house

FILE = 'budgets: [{subject: "user:alice", usd: 5, period: day, soft: [0.8]}, {subject: "user:*", requests: 10, period: hour}]\n'


@pytest.fixture
def bursar(capsys, tmp_path, store):
    return Shell(capsys, written(tmp_path, store))


@pytest.fixture
async def h(store, tmp_path):
    async with house(store, tmp_path, more=FILE) as found:
        yield found


async def opened(store, prefix):
    found = Store(read_url(store.url), prefix=prefix)
    await found.start()
    return found


def rows(ran):
    return {(row["subject"], row["unit"], row["period"]): row for row in ran.json}


def test_several_units_and_periods_are_set_at_once(bursar):
    ran = bursar(
        "budget",
        "set",
        "alice",
        "--usd",
        "5/day",
        "--tokens",
        "2M/month",
        "--requests",
        "1000",
        "--period",
        "hour",
        "--json",
    )
    assert ran.code == 2  # --period says hour, --usd says day
    assert "--usd says per day, --period says hour" in ran.err
    ran = bursar(
        "budget", "set", "alice", "--usd", "5/day", "--tokens", "2M/month", "--requests", "1_000/hour", "--json"
    )
    found = {key: (row["limit"], row["source"]) for key, row in rows(ran).items()}
    assert found == {
        ("user:alice", "usd", "day"): (5.0, "stored"),
        ("user:alice", "tokens", "month"): (2_000_000, "stored"),
        ("user:alice", "requests", "hour"): (1000, "stored"),
    }


def test_what_is_not_given_stays_as_it_is(bursar):
    bursar(
        "budget",
        "set",
        "alice",
        "--usd",
        "5/day",
        "--mode",
        "soft",
        "--soft",
        "0.5,0.8",
        "--tz",
        "Europe/Berlin",
        "--outage",
        "allow",
    )
    row = bursar("budget", "set", "alice", "--usd", "7.25/day", "--json").json[0]
    assert (row["limit"], row["mode"], row["soft"], row["tz"], row["outage"]) == (
        7.25,
        "soft",
        [0.5, 0.8],
        "Europe/Berlin",
        "allow",
    )
    assert len(bursar("budget", "list", "--json").json) == 1


async def test_a_running_proxy_follows_a_changed_budget_on_the_very_next_call(h, capsys, tmp_path):
    shell = shell_of(capsys, tmp_path, h)
    assert (await h.chat()).status == 200
    assert (await shell.beside("budget", "set", "alice", "--usd", "0/day")).code == 0
    refused = await h.chat()
    assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")
    assert (await shell.beside("budget", "remove", "alice")).code == 0
    assert (await h.chat()).status == 200  # the file's counts again


async def test_it_shows_where_each_budget_comes_from(h, capsys, tmp_path):
    shell = shell_of(capsys, tmp_path, h)
    await shell.beside("budget", "set", "team:lab", "--tokens", "1k/day")
    found = {key: row["source"] for key, row in rows(await shell.beside("budget", "list", "--json")).items()}
    assert found == {
        ("user:alice", "usd", "day"): "file",
        ("user:*", "requests", "hour"): "file",
        ("team:lab", "tokens", "day"): "stored",
    }
    bob = (await shell.beside("budget", "get", "bob", "--json")).json
    assert [(row["subject"], row["unit"], row["source"]) for row in bob] == [("user:bob", "requests", "file (user:*)")]


async def test_an_adjustment_counts_at_once_and_its_reason_is_kept(h, capsys, tmp_path):
    shell = shell_of(capsys, tmp_path, h)
    ran = await shell.beside("budget", "adjust", "alice", "--usd", "4.999999999", "--reason", "spent elsewhere")
    assert (ran.code, ran.out) == (0, "user:alice: used was $0, is $4.999999999\n")
    assert (await h.chat()).error["code"] == "insufficient_quota"
    await shell.beside("budget", "adjust", "alice", "--usd", "-4", "--reason", "a mistake")
    assert (await h.chat()).status == 200
    entries = [entry async for entry in audit_entries(h.sidecar.store)]
    assert [(e["what"], e["change"], e["applied"], e["reason"]) for e in entries] == [
        ("budget.adjust", 4_999_999_999, 4_999_999_999, "spent elsewhere"),
        ("budget.adjust", -4 * NANO, -4 * NANO, "a mistake"),
    ]
    assert all("@" in entry["by"] for entry in entries)


@pytest.mark.parametrize("period", ["day", "total", "rolling:30d", "minute"])
async def test_an_adjustment_never_falls_below_0_and_sums_exactly(store, tmp_path, period):
    found = await opened(store, f"adj{period.replace(':', '')}{tmp_path.name}")
    budget = Budget(subject="user:a", unit="usd", limit=NANO, period=Period(kind=period))
    now_ms = int((await found.call("TIME"))[0]) * 1000
    used = 0
    for change in (700, -200, -10_000, 3, 5):
        before, after = await adjust(found, budget, change, {"what": "budget.adjust"}, now_ms)
        assert (before, after) == (used, max(0, used + change))
        used = after
    assert (await Reader(found).balances([budget], now_ms))[0].row.used == 8
    await found.close()


async def test_an_adjustment_that_is_sent_again_counts_once(store, tmp_path):
    found = await opened(store, f"again{tmp_path.name}")
    keys = [found.key(name) for name in ("counters", "audit", "marker", "g")]
    replies = [await found.run(script("adjust"), keys, [0, "500", "{}", 0]) for _ in range(3)]
    assert [list(map(int, reply)) for reply in replies] == [[0, 500]] * 3
    assert int(await found.call("XLEN", found.key("audit"))) == 1
    await found.close()


async def test_adjustments_at_the_same_time_are_all_counted(store, tmp_path):
    found = await opened(store, f"many{tmp_path.name}")
    budget = Budget(subject="user:a", unit="tokens", limit=1, period=Period(kind="total"))
    await asyncio.gather(*(adjust(found, budget, 1, {}, 1) for _ in range(50)))
    assert (await Reader(found).balances([budget], 1))[0].row.used == 50
    await found.close()


def test_removing_one_unit_leaves_the_others(bursar):
    bursar("budget", "set", "alice", "--usd", "5/day", "--tokens", "10k/day")
    ran = bursar("budget", "remove", "alice", "--unit", "tokens")
    assert ran.out.startswith("removed tokens per day\n")
    assert [row["unit"] for row in bursar("budget", "get", "alice", "--json").json] == ["usd"]
    assert bursar("budget", "remove", "alice", "--unit", "tokens").code == 1
    assert bursar("budget", "remove", "alice").code == 0
    assert bursar("budget", "get", "alice").code == 1


async def test_a_file_budget_is_not_removed_here(h, capsys, tmp_path):
    ran = await shell_of(capsys, tmp_path, h).beside("budget", "remove", "alice")
    assert ran.code == 1
    assert "it is in the file, change it there" in ran.err


MISUSE = [
    (("set", "alice"), "name an amount"),
    (("set", "alice", "--usd", "5"), "say per what"),
    (("set", "alice", "--usd", "-5/day"), "--usd"),
    (("set", "alice", "--usd", "$5/day"), "--usd"),
    (("set", "alice", "--usd", "0.0000000001/day"), "finer than one nano-USD"),
    (("set", "alice", "--usd", "nan/day"), "--usd"),
    (("set", "alice", "--usd", "10000000/day"), "too large"),
    (("set", "alice", "--tokens", "1.0001k/day"), "not a whole number"),
    (("set", "alice", "--tokens", "1e3/day"), "is not a count"),
    (("set", "alice", "--usd", "5/fortnight"), "wants minute, hour, day"),
    (("set", "alice", "--usd", "5/cycle"), "needs starts"),
    (("set", "alice", "--usd", "5/day", "--starts", "2026-01-01"), "period: cycle only"),
    (("set", "alice", "--usd", "5/day", "--tz", "Berlin"), "is not a time zone"),
    (("set", "alice", "--usd", "5/day", "--soft", "80"), "from 0 to 1"),
    (("set", "alice", "--usd", "5/day", "--soft", "x"), "--soft"),
    (("set", "alice", "--usd", "5/day", "--mode", "firm"), "invalid choice"),
    (("set", "tenant:other", "--usd", "5/day"), "never occurs here"),
    (("set", "user:a*", "--usd", "5/day"), "subject"),
    (("set", "provider:nope", "--usd", "5/day"), "is not configured"),
    (("adjust", "alice", "--usd", "-0.5"), "--reason"),
    (("adjust", "alice", "--usd", "-0.5", "--reason", "  "), "--reason"),
    (("adjust", "alice", "--usd", "0", "--reason", "x"), "changes nothing"),
    (("adjust", "alice", "--reason", "x"), "name one change"),
    (("adjust", "alice", "--usd", "1", "--tokens", "1", "--reason", "x"), "name one change"),
    (("adjust", "alice", "--usd", "one", "--reason", "x"), "--usd"),
    (("remove", "alice", "--unit", "euro"), "invalid choice"),
    (("get",), "SUBJECT"),
]


@pytest.mark.parametrize(("words", "says"), MISUSE, ids=[" ".join(words) for words, _ in MISUSE])
def test_misuse_ends_with_2_and_changes_nothing(bursar, words, says):
    bursar("budget", "set", "alice", "--usd", "5/day")
    before = bursar("budget", "list", "--json").out
    ran = bursar("budget", *words)
    assert ran.code == 2
    assert says in ran.err
    assert "Traceback" not in ran.err
    assert bursar("budget", "list", "--json").out == before


def test_an_adjustment_of_a_budget_that_is_not_there_is_said_no(bursar):
    ran = bursar("budget", "adjust", "zoe", "--usd", "1", "--reason", "x")
    assert (ran.code, ran.err) == (1, "bursar budget adjust: user:zoe has no usd budget\n")


def test_of_several_periods_one_must_be_named(bursar):
    bursar("budget", "set", "alice", "--usd", "5/day")
    bursar("budget", "set", "alice", "--usd", "50/month")
    assert "name one period" in bursar("budget", "adjust", "alice", "--usd", "1", "--reason", "x").err
    assert bursar("budget", "adjust", "alice", "--usd", "1", "--period", "month", "--reason", "x").code == 0
    used = {row["period"]: row["used_nanousd"] for row in bursar("budget", "get", "alice", "--json").json}
    assert used == {"day": 0, "month": NANO}


@given(st.integers(1, 2**53 - 1))
def test_money_is_read_back_as_it_is_written(nanousd):
    assert spelled.amount("usd", usd_text(nanousd)) == nanousd
    assert spelled.change("usd", usd_text(-nanousd)) == -nanousd


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("1000", 1000),
        ("200k", 200_000),
        ("200K", 200_000),
        ("2M", 2_000_000),
        ("1.5M", 1_500_000),
        ("1G", 10**9),
        ("1_000", 1000),
    ],
)
def test_counts_may_be_written_in_thousands(text, count):
    assert spelled.count(text) == count


@given(st.text(max_size=40))
@settings(deadline=None)
def test_any_other_text_is_refused_with_a_sentence(text):
    for read in (
        spelled.count,
        spelled.span_ms,
        spelled.day_ms,
        lambda t: spelled.amount("usd", t),
        lambda t: spelled.expiry_ms(t, 0),
    ):
        found = outcome(read, text)
        assert found is None or found == "refused" or found >= 0


def outcome(read, text):
    try:
        return read(text)
    except ValueError as error:
        return "refused" if str(error) else "refused without a word"
