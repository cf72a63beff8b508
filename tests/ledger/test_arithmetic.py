"""Money and tokens are whole numbers from the wire to the store: exact, never negative, rounded up once (A8)."""

import ast
from fractions import Fraction
from importlib import resources
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from accounting.ask import Worst, draws_for
from accounting.budgets import AMOUNT_MAX, Budget, amounts
from accounting.hold import HeldRow, Hold
from accounting.periods import Period
from accounting.prices.price import Price, Rates, Service
from accounting.settlement import Settlement, Spent, overspent, settlement
from accounting.store.packing import piece
from accounting.usage import Usage, usage_from_openai
from tests.ledger.test_packing import unpacked

UNITS = ("usd", "tokens", "input_tokens", "output_tokens", "requests", "concurrency")
rate = st.integers(0, 10**12)
count = st.integers(0, 2**40)
anything = st.one_of(
    st.integers(), st.floats(), st.none(), st.booleans(), st.text(max_size=3), st.lists(st.integers(), max_size=2)
)


def budget(unit, limit=AMOUNT_MAX, mode="hard"):
    return Budget(subject="user:a", unit=unit, limit=limit, period=Period(kind="total"), mode=mode)


@given(
    paid=rate, cached=rate, output=rate, tokens=count, part=st.fractions(0, 1), out=count, fee=st.integers(0, 10**15)
)
def test_a_cost_is_never_less_than_exact_and_less_than_one_nanousd_more(paid, cached, output, tokens, part, out, fee):
    read = int(tokens * part)
    price = Price(plain=Service(rates=Rates(input=paid, cached=cached, output=output)), per_request_pico=fee)
    cost = price.cost_nanousd(Usage(input=tokens, cached=read, output=out))
    exact = Fraction(fee + (tokens - read) * paid + read * cached + out * output, 1000)
    assert 0 <= cost - exact < 1
    assert cost == ceil(exact)


@given(usage=st.dictionaries(
    st.sampled_from(["prompt_tokens", "input_tokens", "completion_tokens", "output_tokens", "total_tokens"]), anything
), details=st.dictionaries(st.sampled_from(["cached_tokens", "cache_write_tokens", "audio_tokens", "reasoning_tokens"]), anything),
    rates=st.tuples(rate, rate, rate))  # fmt: skip
def test_no_usage_however_inconsistent_costs_less_than_nothing(usage, details, rates):
    usage = {**usage, "prompt_tokens_details": details, "completion_tokens_details": details}
    read = usage_from_openai(usage)
    counts = (
        read.input,
        read.cached,
        read.cache_write,
        read.audio_input,
        read.output,
        read.reasoning,
        read.audio_output,
    )
    assert all(type(n) is int and n >= 0 for n in counts)
    price = Price(plain=Service(rates=Rates(input=rates[0], cached=rates[1], output=rates[2])))
    cost = price.cost_nanousd(read)
    assert type(cost) is int
    assert cost >= 0


DETAILED = [
    ({"prompt_tokens_details": {"cached_tokens": 3}}, (3, 0, 20)),
    ({"input_tokens_details": {"cached_tokens": 3}}, (3, 0, 20)),
    ({"prompt_tokens_details": {}, "input_tokens_details": {"cached_tokens": 3}}, (3, 0, 20)),
    ({"prompt_tokens_details": [3], "input_tokens_details": {"cached_tokens": 3}}, (3, 0, 20)),
    ({"completion_tokens_details": {"reasoning_tokens": 25}}, (0, 25, 25)),
    ({"output_tokens_details": {"reasoning_tokens": 5}}, (0, 5, 20)),
    ({"prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0}}, (0, 0, 20)),
    ({"prompt_tokens_details": None, "completion_tokens_details": "none"}, (0, 0, 20)),
]


@pytest.mark.parametrize(("details", "expected"), DETAILED)
def test_the_details_of_a_usage_are_read_by_either_name(details, expected):
    usage = usage_from_openai({"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30, **details})
    assert (usage.cached, usage.reasoning, usage.output) == expected


@given(
    tokens=st.integers(0, 10**6),
    granted=st.integers(0, 10**5),
    choices=st.integers(1, 8),
    rates=st.tuples(rate, rate),
    part=st.fractions(0, 1),
)
def test_whatever_a_clamped_call_uses_fits_into_its_hold(tokens, granted, choices, rates, part):
    price = Price(plain=Service(rates=Rates(input=rates[0], output=rates[1])))
    worst = Worst(
        input_tokens=tokens, input_nanousd=price.worst_input_nanousd(tokens),
        output_nanousd=price.worst_output_nanousd_per_token(tokens), choices=choices,
    )  # fmt: skip
    out = int(granted * choices * part)
    cost = price.cost_nanousd(Usage(input=tokens, output=out))
    for draw in draws_for([budget(unit) for unit in UNITS], worst):
        held = draw.fixed + draw.per_output * granted
        used = amounts(draw.budget.unit, requests=1, input_tokens=tokens, output_tokens=out, cost_nanousd=cost)
        assert type(held) is int
        assert used <= held, draw.budget.unit


@pytest.mark.parametrize(
    ("unit", "fixed", "per_output", "used"),
    [
        ("usd", 7, 6, 99),
        ("tokens", 10, 3, 15),
        ("input_tokens", 10, 0, 10),
        ("output_tokens", 0, 3, 5),
        ("requests", 1, 0, 1),
        ("concurrency", 1, 0, 0),
    ],
)
def test_each_unit_draws_what_it_counts(unit, fixed, per_output, used):
    (draw,) = draws_for([budget(unit)], Worst(input_tokens=10, input_nanousd=7, output_nanousd=2, choices=3))
    assert (draw.fixed, draw.per_output) == (fixed, per_output)
    assert amounts(unit, requests=1, input_tokens=10, output_tokens=5, cost_nanousd=99) == used


def hold_on(*units, amount=10, reserved=True):
    rows = tuple(
        HeldRow(
            budget=budget(u),
            counters_key=f"b{u}",
            holds_key=f"x{u}",
            field="used",
            amount=amount,
            expiry_ms=0,
            resets_ms=None,
            limit=10,
            used=0,
            held=10,
        )
        for u in units
    )
    return Hold(seq=1, request_id="r", granted=1, rows=rows, reserved=reserved)


def test_an_absurd_usage_is_settled_as_the_most_that_can_be_counted(scene):
    """A provider that reports 10**18 tokens must not make the store reject the settlement: then nothing would be charged."""
    item = settlement(
        hold_on("usd", "tokens"),
        Spent(input_tokens=10**18, output_tokens=3, cost_nanousd=10**21, record=b"{}", day="20260101"),
    )
    item = replace(item, rows=tuple((f"b:{{t}}:{b}", f"b:{{t}}:{x}", *rest) for b, x, *rest in item.rows))
    own = piece("b:{t}:s:s", "b:{t}:u", "b:{t}:day:20260101", "b:{t}:g")
    reply = scene.lua.redis.run("settle", *unpacked(item.packed(own, "s", 0, "run1")))
    assert reply == [b"OK", AMOUNT_MAX, 0, AMOUNT_MAX, 0]


def test_a_release_charges_nothing_on_any_unit():
    item = settlement(hold_on(*UNITS), Spent(input_tokens=5, output_tokens=5, cost_nanousd=5))
    assert [row[4] for row in item.rows] == [0] * len(UNITS)


def test_what_was_used_beyond_a_hold_is_told_by_unit_and_only_for_what_was_held():
    spent = Spent(input_tokens=8, output_tokens=8, cost_nanousd=3, record=b"{}")
    assert overspent(settlement(hold_on("usd", "tokens"), spent), hold_on("usd", "tokens")) == {"tokens": 6}
    free = hold_on("tokens", amount=0, reserved=False)
    assert overspent(settlement(free, spent), free) == {}


@given(numbers=st.tuples(count, count, count), record=st.text(max_size=20), row=st.text(max_size=8))
def test_a_settlement_survives_the_journal_unchanged(numbers, record, row):
    spent = Spent(
        input_tokens=numbers[0],
        output_tokens=numbers[1],
        cost_nanousd=numbers[2],
        record=record.encode(),
        totals_row=row,
        day="20260101",
    )
    item = settlement(hold_on(*UNITS), spent)
    assert Settlement.load(item.dump()) == item
    assert Settlement.load(item.dump()).packed(b"", "s", 0) == item.packed(b"", "s", 0)


@pytest.mark.parametrize("module", ["ask", "budgets", "hold", "reserving", "settlement", "usage", "prices/price"])
def test_no_float_and_no_division_touches_an_amount(module):
    tree = ast.parse((resources.files("accounting") / f"{module}.py").read_text())
    for node in ast.walk(tree):
        assert not (isinstance(node, ast.Constant) and type(node.value) is float and node.value), ast.unparse(node)
        assert not isinstance(node, ast.Div), "true division"
        assert not (isinstance(node, ast.Call) and ast.unparse(node.func) in ("float", "round")), ast.unparse(node)
