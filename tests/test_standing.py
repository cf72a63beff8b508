"""What is worked out once for a caller and a model says what each draw and rate of the call says; and whose it is."""

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounting.budgets import Budget, BudgetBook, Caller
from accounting.periods import Period
from accounting.prices.table import PriceBook
from adapters.base import Endpoint
from adapters.registry import make_adapter
from adapters.transport.base import Timeouts
from proxy.admission import Admitter
from proxy.asked import read_request
from proxy.config.environment import CallDefaults
from proxy.config.model import Spread, Target
from proxy.config.policy import Admission, Limit
from proxy.errors import ClientError
from proxy.limits import LimitBook, lowered
from proxy.principal import Principal
from proxy.routing import Router
from proxy.rules import WAYS_MAX, Rules
from proxy.slices import SLICE_TOKENS
from proxy.standing import FAR
from proxy.upstreams import Upstream

ALICE = Principal(caller=Caller(key="k", user="alice"))
BOB = Principal(caller=Caller(key="k", user="bob"))
TOTAL = Period(kind="total")
MODELS = {
    "*": "a/*",
    "chain": ("a/x", "b/y"),
    "spread": Spread(balance="weighted", targets=(Target(to="a/x"), Target(to="b/y"))),
}


def upstream(name):
    endpoint = Endpoint(name=name, kind="openai", base_url=f"http://{name}.example/v1")
    return Upstream(endpoint=endpoint, adapter=make_adapter(endpoint), transport=None, timeouts=Timeouts())


UPSTREAMS = {"a": upstream("a"), "b": upstream("b")}
PRICES = {"a/*": {"input": 2, "output": 8}, "b/*": {"input": 0, "output": 0, "per_request": 1}}
FREE = {"a/*": {"input": 0, "output": 0}, "b/*": {"input": 0, "output": 0}}


def rules_of(budgets=(), limits=(), prices=PRICES):
    admitter = Admitter(BudgetBook(budgets), LimitBook(limits), PriceBook(prices), Admission(), {})
    router = Router(MODELS, UPSTREAMS, random.Random(3))
    return Rules(gate=None, router=router, admitter=admitter, paths=None, version="0")


def asked(model="m", text="hello", operation="chat", **more):
    body = {"model": model, **more}
    body |= {"messages": [{"role": "user", "content": text}]} if operation == "chat" else {"input": text}
    return read_request(operation, json.dumps(body).encode(), CallDefaults())


BUDGETS = st.lists(
    st.builds(
        Budget,
        subject=st.sampled_from(("user:alice", "key:k", "model:x", "user:bob")),
        unit=st.sampled_from(("usd", "tokens", "input_tokens", "output_tokens", "requests")),
        limit=st.integers(0, 10**9) | st.integers(0, 10**4),
        period=st.just(TOTAL),
        mode=st.sampled_from(("hard", "soft", "shadow")),
        hold=st.sampled_from(("clamp", "full", "slice")),
    ),
    max_size=5,
)
LIMITS = st.lists(
    st.builds(
        Limit,
        subject=st.sampled_from(("user:alice", "key:*", "model:m")),
        rpm=st.none() | st.integers(1, 10**6),
        tpm=st.none() | st.integers(1, 10**6),
        concurrency=st.none() | st.integers(1, 9),
    ),
    max_size=2,
)
BODIES = st.fixed_dictionaries(
    {"model": st.sampled_from(("m", "chain")), "text": st.integers(0, 3000).map("x".__mul__)},
    optional={"max_tokens": st.integers(1, 5000), "n": st.integers(1, 3), "stream": st.booleans()},
)


@given(budgets=BUDGETS, limits=LIMITS, body=BODIES, prices=st.sampled_from((PRICES, FREE)))
def test_what_follows_from_budgets_and_limits_is_what_follows_from_the_draws(budgets, limits, body, prices):
    rules, call = rules_of(budgets, limits, prices), asked(**body)
    way = rules.way(call, ALICE)
    terms, far = rules.admitter.bound(call, way)
    ask = terms.ask
    held = [draw for draw in ask.draws if draw.per_output and draw.budget.binds]
    assert terms.clamps == (bool(held) or lowered(ask))
    counts = [draw for draw in ask.draws if draw.budget.binds and draw.budget.unit in ("usd", "tokens", "input_tokens")]
    metered = any(rate.what == "tokens" for rate in ask.rates)
    assert far == (not metered and all(draw.fixed * FAR <= draw.budget.limit for draw in counts))
    assert len(ask.rates) == sum(
        (each.rpm is not None) + (each.tpm is not None)
        for each in {each.subject: each for each in limits}.values()
        if each.subject != "model:m" or body["model"] == "m"
    )
    sliced = call.stream and held and not metered and all(draw.budget.hold == "slice" for draw in held)
    assert ask.wanted == (max(ask.least, min(terms.wanted, SLICE_TOKENS)) if sliced else terms.wanted)


def budget_of(unit, limit=10**9, **more):
    return Budget(subject="user:alice", unit=unit, limit=limit, period=TOTAL, **more)


@pytest.mark.parametrize(
    ("unit", "mode", "prices", "clamps"),
    [
        ("tokens", "hard", PRICES, True), ("output_tokens", "hard", PRICES, True), ("usd", "hard", PRICES, True),
        ("usd", "hard", FREE, False), ("usd", "soft", PRICES, False), ("tokens", "soft", PRICES, False),
        ("input_tokens", "hard", PRICES, False), ("requests", "hard", PRICES, False),
    ],
)  # fmt: skip
def test_a_limit_is_sent_where_a_budget_is_kept_by_it(unit, mode, prices, clamps):
    rules = rules_of([budget_of(unit, mode=mode)], prices=prices)
    assert rules.admitter.bound(asked(), rules.way(asked(), ALICE))[0].clamps == clamps


@pytest.mark.parametrize("unit", ["usd", "tokens", "input_tokens"])
def test_input_is_far_from_a_limit_up_to_its_fiftieth_part(unit):
    def far(limit):
        rules = rules_of([budget_of(unit, limit)])
        return rules.admitter.bound(asked(), rules.way(asked(), ALICE))[1]

    (draw,) = (
        rules_of([budget_of(unit)])
        .admitter.bound(asked(), rules_of([budget_of(unit)]).way(asked(), ALICE))[0]
        .ask.draws
    )
    assert far(FAR * draw.fixed)
    assert not far(FAR * draw.fixed - 1)


@pytest.mark.parametrize(
    ("hold", "stream", "wanted"), [("slice", True, SLICE_TOKENS), ("slice", False, 5000), ("clamp", True, 5000)]
)
def test_a_stream_asks_for_a_slice_where_its_budget_wants_that(hold, stream, wanted):
    rules, call = rules_of([budget_of("tokens", hold=hold)]), asked(stream=stream, max_tokens=5000)
    terms, _ = rules.admitter.bound(call, rules.way(call, ALICE))
    assert (terms.ask.wanted, terms.wanted) == (wanted, 5000)


@pytest.mark.parametrize("model", ["m", "chain", "spread"])
def test_each_caller_and_operation_has_a_way_of_its_own_and_keeps_it(model):
    rules = rules_of([Budget(subject="user:alice", unit="requests", limit=1, period=TOTAL)])
    for operation in ("chat", "embeddings"):
        call = asked(model, operation=operation)
        for _ in range(2):
            assert [budget.subject for budget in rules.way(call, ALICE).standing.budgets] == ["user:alice"]
            assert rules.way(call, BOB).standing.budgets == ()
    assert (rules.way(call, ALICE) is rules.way(call, ALICE)) == (model != "spread")


def test_targets_that_are_drawn_by_lot_are_drawn_for_each_call_with_what_belongs_to_them_in_their_order():
    rules, seen = rules_of(prices={"a/*": {"input": 1, "output": 1}, "b/*": {"input": 2, "output": 2}}), set()
    for _ in range(50):
        targets, standing = rules.way(asked("spread"), ALICE)
        seen.add(tuple(target.names for target in targets))
        assert standing.prices == tuple(rules.admitter.price(target) for target in targets)
    assert len(seen) == 2


def test_a_key_that_may_not_use_a_model_gets_no_way_that_is_known():
    rules = rules_of()
    assert rules.way(asked("m"), ALICE) is rules.way(asked("m"), replace(ALICE, models=("m*",)))
    with pytest.raises(ClientError) as refused:
        rules.way(asked("m"), replace(ALICE, models=("other",)))
    assert (refused.value.status, refused.value.code) == (404, "model_not_found")


def test_a_model_without_a_price_is_told_of_at_every_call():
    rules = rules_of([Budget(subject="user:alice", unit="usd", limit=10**12, period=TOTAL)], prices={})
    for _ in range(2):
        with pytest.raises(ClientError) as refused:
            rules.admitter.bound(asked("m"), rules.way(asked("m"), ALICE))
        assert (refused.value.status, refused.value.code) == (400, "unknown_price")
    assert rules.admitter.bound(asked("m"), rules.way(asked("m"), BOB))[0].prices == (None,)


def test_no_more_ways_are_kept_than_have_a_bound():
    rules, call = rules_of(), asked("m")
    first = rules.way(call, ALICE)
    for number in range(WAYS_MAX):
        rules.way(call, replace(ALICE, caller=Caller(user=f"u{number}")))
    assert rules.way(call, ALICE) is not first
