"""From a model's name to the targets in their order."""

import random
from collections import Counter

import pytest

from accounting.budgets import Caller
from adapters.base import Endpoint
from adapters.registry import make_adapter
from adapters.transport.base import Timeouts
from proxy.asked import read_request
from proxy.attempts import limits
from proxy.config.environment import CallDefaults
from proxy.config.model import Spread, Target
from proxy.config.providers import ProviderTimeouts
from proxy.latency import Latencies
from proxy.routing import Router
from proxy.upstreams import PATIENT_S, Upstream


def upstream(name, **more):
    endpoint = Endpoint(name=name, kind="openai", base_url=f"http://{name}.example/v1")
    return Upstream(endpoint=endpoint, adapter=make_adapter(endpoint), transport=None, timeouts=Timeouts(), **more)


UPSTREAMS = {name: upstream(name) for name in ("a", "b", "c")}


def router(models, **more):
    return Router(models, UPSTREAMS, random.Random(7), **more)


def names(targets):
    return ["/".join(target.names) for target in targets]


MODELS = {
    "alias": "a/real-name",
    "chain": ("a/x", "b/y", "c/z"),
    "gpt-*": "a/gpt-*",
    "gpt-4*": "b/four",
    "deep/*": "c/*",
    "gpt-4o": "c/exact",
    "with/slash": "a/org/model/v1",
}


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("alias", ["a/real-name"]),
        ("chain", ["a/x", "b/y", "c/z"]),
        ("gpt-4o", ["c/exact"]),
        ("gpt-4-turbo", ["b/four"]),
        ("gpt-5", ["a/gpt-5"]),
        ("deep/org/model", ["c/org/model"]),
        ("with/slash", ["a/org/model/v1"]),
        ("Alias", []),
        ("unknown", []),
        ("gpt-", ["a/gpt-"]),
        ("gpt-\n4", ["a/gpt-\n4"]),
    ],
)
def test_a_name_leads_where_the_exact_entry_says_else_the_longest_pattern(model, expected):
    assert names(router(MODELS).targets(model)) == expected


def test_a_pattern_does_not_read_its_own_punctuation_as_a_rule():
    assert names(router({"a.c*": "a/*"}).targets("abc")) == []


def test_weights_share_out_the_first_places_and_every_target_is_tried_once():
    spread = Spread(
        balance="weighted", targets=(Target(to="a/m", weight=3), Target(to="b/m"), Target(to="c/m", weight=6))
    )
    made = router({"m": spread})
    orders = [names(made.targets("m")) for _ in range(4000)]
    firsts = Counter(order[0] for order in orders)
    assert all(sorted(order) == ["a/m", "b/m", "c/m"] for order in orders)
    assert firsts["a/m"] == pytest.approx(1200, rel=0.1)
    assert firsts["c/m"] == pytest.approx(2400, rel=0.1)


STICKY = Spread(
    balance="weighted", sticky="user", targets=(Target(to="a/m"), Target(to="b/m", weight=2), Target(to="c/m"))
)


def test_a_user_who_sticks_always_gets_the_same_order_and_users_are_shared_out_by_weight():
    made, other = router({"m": STICKY}), Router({"m": STICKY}, UPSTREAMS, random.Random(99))
    firsts = Counter()
    for number in range(2000):
        caller = Caller(key="k", user=f"u{number}")
        order = names(made.targets("m", caller))
        assert order == names(other.targets("m", caller))  # another sidecar, another process: the same
        firsts[order[0]] += 1
    assert firsts["b/m"] == pytest.approx(1000, rel=0.12)
    assert firsts["a/m"] == pytest.approx(500, rel=0.2)


def test_when_a_target_goes_only_its_own_users_move():
    less = Spread(balance="weighted", sticky="user", targets=tuple(t for t in STICKY.targets if t.to != "c/m"))
    before, after = router({"m": STICKY}), router({"m": less})
    for number in range(500):
        caller = Caller(key="k", user=f"u{number}")
        order = [name for name in names(before.targets("m", caller)) if name != "c/m"]
        assert names(after.targets("m", caller)) == order


def test_without_a_user_it_is_the_key_that_sticks_and_nobody_sticks_unless_told():
    made = router({"m": STICKY, "free": Spread(balance="weighted", targets=STICKY.targets)})
    assert len({tuple(names(made.targets("m", Caller(key="k")))) for _ in range(50)}) == 1
    assert len({tuple(names(made.targets("free", Caller(key="k", user="u")))) for _ in range(50)}) > 1
    assert made.targets("m", Caller(key="k"))[0].stick_to == "key:k"
    assert made.targets("free", Caller(key="k"))[0].stick_to is None


async def test_least_latency_puts_the_fastest_first_apart_for_streams():
    known = Latencies(random.Random(1))
    spread = Spread(balance="least_latency", targets=(Target(to="a/m"), Target(to="b/m"), Target(to="c/m")))
    made = router({"m": spread}, latencies=known)
    import asyncio

    now_s = asyncio.get_running_loop().time()
    places = {target.upstream.name: target.place for target in made.targets("m")}
    for name, took_s in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
        known.observed((places[name], False), took_s, now_s)
        known.observed((places[name], True), 4.0 - took_s, now_s)
    assert names(made.targets("m"))[:2] == ["b/m", "c/m"]
    assert names(made.targets("m", stream=True))[:2] == ["a/m", "c/m"]


def asked(**body):
    import json

    raw = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}], **body}).encode()
    return read_request("chat", raw, CallDefaults())


def one(upstreams, spread):
    return Router({"m": spread}, upstreams).targets("m")[0]


@pytest.mark.parametrize(
    ("model", "body", "patient", "expected_s"),
    [
        ("gpt-4o", {"stream": True}, True, 120),
        ("gpt-4o", {}, True, PATIENT_S),
        ("o3-mini", {"stream": True}, True, PATIENT_S),
        ("gpt-5", {"stream": True}, True, PATIENT_S),
        ("gpt-4o", {"stream": True, "reasoning_effort": "high"}, True, PATIENT_S),
        ("o3-mini", {}, False, 120),
        ("gpt-4o", {}, False, 120),
    ],
)
def test_the_first_byte_may_take_longer_where_it_must_unless_somebody_set_the_limit(model, body, patient, expected_s):
    target = one({"a": upstream("a", patient=patient)}, Spread(targets=(Target(to=f"a/{model}"),)))
    assert limits(target, asked(**body), 5000).first_token == expected_s


def test_a_models_own_time_limits_win_over_its_providers():
    spread = Spread(targets=(Target(to="a/m"),), timeouts=ProviderTimeouts(first_token_s=7, total_s=9))
    target = one({"a": upstream("a", patient=True)}, spread)
    made = limits(target, asked(), 5000)
    assert (made.first_token, made.total, made.idle) == (7, 9, 60)


def test_an_attempt_never_gets_more_time_than_the_call_has_left():
    target = one(UPSTREAMS, Spread(targets=(Target(to="a/m"),)))
    assert limits(target, asked(), 3.5).total == 3.5
