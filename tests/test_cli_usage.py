"""`bursar usage`: sums that are exact, records that leave nothing out, and CSV in which no text becomes a formula."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounting.spending import GROUPS, RECORD_FIELDS, of_records, of_totals, total
from proxy.cli.tables import csv_line, table
from tests.cli_runs import shell_of
from tests.sidecars import KEY, house

SHOP = "sk-shop-0123456789abcdef0123456789"
KEYS = (
    f'keys: [{{id: alice-laptop, user: alice, team: lab, secret: "{KEY}"}}, '
    f'{{id: shop, team: shop, secret: "{SHOP}", user_from: "header:x-bursar-user"}}]\n'
)
PRICES = 'prices: {"fake/gpt-4o": {input: 0.15, output: 0.6}, "fake/fake-1": {input: 1, output: 2}}\n'


@pytest.fixture
async def h(store, tmp_path):
    async with house(store, tmp_path, keys=KEYS, prices=PRICES) as found:
        for number in range(3):
            assert (await found.chat(max_tokens=5 + number)).status == 200
        assert (await found.chat(model="fake-1", key=SHOP, headers={"x-bursar-user": "=1+1"})).status == 200
        assert (await found.chat(model="unpriced", key=SHOP, headers={"x-bursar-user": "zoe"})).status == 200
        await found.until_receipts(5)
        yield found


@pytest.mark.parametrize("by", GROUPS)
async def test_totals_and_records_agree_with_the_receipts(h, capsys, tmp_path, by):
    shell = shell_of(capsys, tmp_path, h)
    want = sum(receipt.cost_nanousd or 0 for receipt in h.receipts)
    for since, source in (("today", "totals"), ("1h", "records")):
        found = (await shell.beside("usage", "--since", since, "--by", by, "--json")).json
        assert found["source"] == source
        assert found["missing"] is None
        assert found["total"]["cost_nanousd"] == want == sum(row["cost_nanousd"] for row in found["data"])
        assert found["total"]["calls"] == 5
        assert found["total"]["input_tokens"] == sum(receipt.usage.input for receipt in h.receipts)


async def test_groups_are_named_and_the_dearest_comes_first(h, capsys, tmp_path):
    shell = shell_of(capsys, tmp_path, h)
    users = (await shell.beside("usage", "--by", "user", "--json")).json["data"]
    assert {row["user"]: row["calls"] for row in users} == {"alice": 3, "=1+1": 1, "zoe": 1}
    assert [row["cost_nanousd"] for row in users] == sorted((row["cost_nanousd"] for row in users), reverse=True)
    assert [
        row["calls"] for row in (await shell.beside("usage", "--by", "key", "--user", "zoe", "--json")).json["data"]
    ] == [1]


async def test_a_call_without_a_price_is_told(h, capsys, tmp_path):
    shell = shell_of(capsys, tmp_path, h)
    assert "1 calls have no known price" in (await shell.beside("usage", "--since", "1h")).out
    assert (await shell.beside("usage", "--since", "1h", "--json")).json["total"]["unpriced_calls"] == 1


async def test_money_is_shown_to_the_last_nano(h, capsys, tmp_path):
    found = (await shell_of(capsys, tmp_path, h).beside("usage", "--user", "alice", "--json")).json["total"]
    assert found["cost_usd"] == f"{found['cost_nanousd'] / 10**9:.9f}".rstrip("0")


async def test_records_are_one_json_line_each(h, capsys, tmp_path):
    ran = await shell_of(capsys, tmp_path, h).beside("usage", "--records")
    records = [json.loads(line) for line in ran.out.splitlines()]
    assert [record["id"] for record in records] == [receipt.request_id for receipt in h.receipts]
    assert [record["cost_nanousd"] for record in records] == [receipt.cost_nanousd for receipt in h.receipts]


async def test_in_csv_a_user_cannot_name_themselves_a_formula(h, capsys, tmp_path):
    ran = await shell_of(capsys, tmp_path, h).beside("usage", "--records", "--csv")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert tuple(rows[0]) == RECORD_FIELDS
    assert [row["user"] for row in rows] == ["alice", "alice", "alice", "'=1+1", "zoe"]
    grouped = await shell_of(capsys, tmp_path, h).beside("usage", "--by", "user", "--csv")
    assert "'=1+1,1," in grouped.out


MISUSE = [
    ("--since", "yesterday"),
    ("--since", "2026-13-01"),
    ("--by", "mood"),
    ("--csv", "--json"),
    ("--records", "--by", "user"),
]


@pytest.mark.parametrize("words", MISUSE, ids=" ".join)
async def test_misuse_ends_with_2(capsys, tmp_path, store, words):
    async with house(store, tmp_path) as found:
        ran = await shell_of(capsys, tmp_path, found).beside("usage", *words)
    assert (ran.code, ran.out) == (2, "")
    assert "Traceback" not in ran.err


names = st.one_of(st.none(), st.sampled_from(["a", "b", "a|b"]))
records = st.fixed_dictionaries(
    {
        "at_ms": st.integers(0, 10**13),
        "key": names,
        "user": names,
        "team": names,
        "provider": names,
        "upstream_model": names,
        "input": st.integers(0, 10**9),
        "output": st.integers(0, 10**9),
        "cost_nanousd": st.one_of(st.none(), st.integers(0, 2**53)),
    }
)


@given(st.lists(records, max_size=30), st.sampled_from(GROUPS))
def test_however_records_are_grouped_nothing_is_lost(found, by):
    whole = total(of_records(found, by).values())
    assert whole.calls == len(found)
    assert whole.cost_nanousd == sum(record["cost_nanousd"] or 0 for record in found)
    assert whole.input_tokens == sum(record["input"] for record in found)
    assert (whole.unpriced or 0) == sum(record["cost_nanousd"] is None for record in found)


def test_totals_are_filtered_by_every_name():
    rows = {
        ("k", "u", "t", "p/m/x"): {"n": 1, "input": 2, "output": 3, "cost": 4},
        ("k", "v", "t", "p/m"): {"n": 5, "input": 6, "output": 7, "cost": 8},
    }
    days = {"20261101": rows, "20261102": rows}
    assert {day: each.calls for day, each in of_totals(days, "day", {"user": "u"}).items()} == {
        "2026-11-01": 1,
        "2026-11-02": 1,
    }
    assert {model: each.cost_nanousd for model, each in of_totals(days, "model", {}).items()} == {"m": 16, "m/x": 8}
    assert of_totals(days, "model", {"provider": "q"}) == {}


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_csv_is_read_back_cell_by_cell_and_no_cell_starts_a_formula(cells):
    back = next(csv.reader(io.StringIO(csv_line(cells), newline="")), [""])
    assert len(back) == len(cells)
    for cell, was in zip(back, cells, strict=True):
        assert cell in (was, "'" + was)
        assert cell.lstrip()[:1] not in ("=", "+", "-", "@")
        assert cell[:1] not in ("\t", "\r")


@given(st.lists(st.tuples(st.text(), st.integers()), max_size=4))
def test_a_table_has_one_line_per_row_whatever_is_in_it(rows):
    text = table(("a", "b"), rows, right=("b",))
    assert len(text.split("\n")) == len(rows) + 1
    assert text.replace("\n", "").isprintable()
