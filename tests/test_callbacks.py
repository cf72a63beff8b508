"""Callbacks: what they hear, that they are alone with their failures, and that a call never waits for them."""

import asyncio
import logging
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

import accounting.callbacks
from accounting import environment
from accounting.callbacks import (
    AuditLogCallbackHandler,
    CallbackMetrics,
    CallbackRunner,
    CompositeCallbackHandler,
    CustomAsyncCallbackHandler,
    DetailedRedisTokenCallbackHandler,
    MetricsCallbackHandler,
    PerformanceCallbackHandler,
    RedisTokenCallbackHandler,
    create_composite_callback,
    create_detailed_token_callback,
    create_token_callback,
    load_callbacks,
)
from accounting.callbacks.counting import count_answer, count_messages, counts_of
from accounting.callbacks.entry import Policy
from accounting.callbacks.registry import CallbackNotFoundError
from accounting.repository import TokenUsageRepository
from proxy.callbacks import CallbackFeed
from tests.sidecars import HELLO_TOKENS, MODEL, counted, house, samples, total

HELLO = [{"role": "user", "content": "Say hello to the treasurer."}]
ANSWER = {
    "content": "Hello.",
    "tokens_used": 7,
    "prompt_tokens": 5,
    "completion_tokens": 2,
    "provider": "p",
    "model": "gpt-4o",
    "response_time": 0.2,
    "cost_estimate": 0.001,
}


class Ear(CustomAsyncCallbackHandler):
    """Keeps what it hears."""

    def __init__(self, value=None):
        self.heard, self.value = [], value

    async def on_llm_start(self, messages, **kwargs):
        self.heard.append(("start", messages, kwargs))
        return self.value

    async def on_llm_end(self, response, **kwargs):
        self.heard.append(("end", response, kwargs))
        return self.value

    async def on_llm_error(self, error, **kwargs):
        self.heard.append(("error", error, kwargs))
        return self.value

    @property
    def kinds(self):
        return [kind for kind, _, _ in self.heard]


class Raises(Ear):
    async def on_llm_end(self, response, **kwargs):
        raise RuntimeError("the prompt was: " + response["content"])


class Hangs(Ear):
    async def on_llm_end(self, response, **kwargs):
        await asyncio.Event().wait()


class Blocks(Ear):
    """Holds up its thread until it is let go, as a handler does that does not await."""

    def __init__(self):
        super().__init__()
        self.begun, self.let_go = threading.Event(), threading.Event()

    async def on_llm_end(self, response, **kwargs):
        self.begun.set()
        self.let_go.wait(20)


class Flaky(Ear):
    def __init__(self, failures):
        super().__init__()
        self.failures = failures

    async def on_llm_end(self, response, **kwargs):
        self.failures -= 1
        if self.failures >= 0:
            raise OSError
        await super().on_llm_end(response, **kwargs)


@pytest.fixture
async def make():
    made = []

    def build(*handlers, **options):
        made.append(CallbackRunner(handlers, **options))
        return made[-1]

    yield build
    for runner in made:
        await runner.close(0.1)


@pytest.fixture
async def repository(store):
    repository = TokenUsageRepository(store.url)
    yield repository
    await repository.close()


@pytest.fixture
def user(request):
    return request.node.name


async def settled(repository, user):
    stats = await repository.get_usage_stats(user)
    return stats["prompt_tokens"], stats["completion_tokens"], stats["total_tokens"]


# --- the interface


@pytest.mark.parametrize("name", accounting.callbacks.__all__)
def test_every_name_exists_and_is_documented(name):
    assert getattr(accounting.callbacks, name).__doc__


def test_a_handler_without_its_three_methods_cannot_be_made():
    with pytest.raises(TypeError):
        CustomAsyncCallbackHandler()


async def test_every_handler_answers_a_health_check_and_never_raises(make, repository):
    runner = make(Ear(), RedisTokenCallbackHandler("a", repository=repository))
    assert (await runner.health_check())["status"] == "healthy"
    gone = TokenUsageRepository("redis://127.0.0.1:9")
    handler = create_composite_callback(Ear(), create_token_callback("a", repository=gone))
    health = await handler.health_check()
    assert (health["status"], "timestamp" in health, "error" in health) == ("unhealthy", True, True)
    runner.add(handler)
    assert (await runner.health_check())["status"] == "unhealthy"
    await gone.close()


# --- the runner


async def test_a_handler_that_raises_hangs_or_blocks_changes_nothing_for_anybody_else(make):
    good, blocks = Ear(), Blocks()
    runner = make(Raises(), Hangs(), blocks, good, policy=Policy(limit_s=0.05))
    for n in range(50):
        runner.start(HELLO, request_id=str(n))
        runner.end(ANSWER, request_id=str(n))
    assert not await runner.drain(0.3)  # the one that blocks holds up itself
    assert good.kinds.count("end") == 50
    assert runner.counts["Raises", "error"] == 50
    blocks.let_go.set()
    assert await runner.drain(10)
    assert runner.counts["Hangs", "timeout"] == 50


async def test_the_loop_of_the_call_goes_on_while_a_handler_blocks(make):
    blocks = Blocks()
    runner = make(blocks)
    runner.end(ANSWER)
    began = time.monotonic()
    await asyncio.sleep(0)
    assert time.monotonic() - began < 0.05
    blocks.let_go.set()


async def test_telling_costs_the_call_less_than_a_tenth_of_a_millisecond_with_ten_handlers_and_a_thousand_calls_in_flight(
    make,
):
    handlers = [Ear() for _ in range(10)]
    runner = make(*handlers)
    runner.start(HELLO, request_id="warm")
    assert await runner.drain(10)
    spent = 0.0
    everybody = asyncio.Barrier(1000)

    async def call(number):
        nonlocal spent
        began = time.thread_time()
        runner.start(HELLO, request_id=str(number), provider="p", model="m")
        spent += time.thread_time() - began
        await everybody.wait()
        began = time.thread_time()
        runner.end(ANSWER, request_id=str(number), provider="p", model="m")
        spent += time.thread_time() - began

    await asyncio.gather(*(call(n) for n in range(1000)))
    assert await runner.drain(30)
    assert spent / 1000 < 0.0001
    assert all(len(handler.heard) == 2001 for handler in handlers)


async def test_the_events_of_one_call_come_in_their_order(make):
    class Slow(Ear):
        async def on_llm_start(self, messages, **kwargs):
            await asyncio.sleep(0.002)
            await super().on_llm_start(messages, **kwargs)

    slow = Slow()
    runner = make(slow)
    for n in range(30):
        runner.start(HELLO, request_id=str(n))
        runner.end(ANSWER, request_id=str(n))
    assert await runner.drain(10)
    for n in range(30):
        assert [kind for kind, _, kwargs in slow.heard if kwargs["request_id"] == str(n)] == ["start", "end"]


async def test_no_more_than_a_hundred_run_at_once_and_the_queue_says_what_it_drops(make, caplog):
    release, most, now = threading.Event(), [0], [0]

    class Counts(Ear):
        async def on_llm_end(self, response, **kwargs):
            now[0] += 1
            most[0] = max(most[0], now[0])
            while not release.is_set():
                await asyncio.sleep(0.001)
            now[0] -= 1

    runner = make(Counts(), queue_max=50)
    for n in range(151):
        runner.end(ANSWER)
        while n < 100 and now[0] <= n:
            await asyncio.sleep(0.001)
    runner.end(ANSWER)
    while runner.dropped < 2:
        await asyncio.sleep(0.001)
    release.set()
    assert await runner.drain(10)
    assert most[0] == 100
    assert runner.counts["Counts", "ok"] == 150
    assert runner.dropped == 2
    assert caplog.text.count("Counts is too slow") == 1


async def test_a_queue_is_bounded_by_size_too(make):
    blocks = Blocks()
    runner = make(blocks)
    runner.end(ANSWER)
    assert await asyncio.to_thread(blocks.begun.wait, 10)
    for _ in range(10):
        runner.tell("end", ANSWER, {}, size_bytes=30 * 1024 * 1024)
    assert not await runner.drain(0.1)
    blocks.let_go.set()
    assert await runner.drain(10)
    assert (runner.counts["Blocks", "ok"], runner.dropped) == (3, 8)


async def test_a_failure_is_logged_once_with_the_handlers_name_and_without_its_text_and_counted(make, caplog):
    runner = make(Raises())
    for _ in range(5):
        runner.end({"content": "my secret prompt"})
    assert await runner.drain(10)
    assert [record.getMessage() for record in caplog.records if "Raises" in record.getMessage()] == [
        "callback Raises failed at the call's end: RuntimeError (further ones are only counted)"
    ]
    assert "secret" not in caplog.text
    assert runner.counts["Raises", "error"] == 5


@pytest.mark.parametrize(("failures", "attempts", "status"), [(2, 3, "ok"), (3, 3, "error"), (1, 1, "error")])
async def test_a_handler_is_tried_again_as_often_as_it_is_wanted(make, failures, attempts, status):
    flaky = Flaky(failures)
    runner = make(flaky, policy=Policy(attempts=attempts, delay_s=0.001))
    runner.end(ANSWER)
    assert await runner.drain(10)
    assert runner.counts["Flaky", status] == 1
    assert flaky.kinds == (["end"] if status == "ok" else [])


async def test_handlers_are_added_and_removed_while_running(make):
    first, second = Ear(), Ear()
    runner = make(first)
    runner.start(HELLO)
    name = runner.add(second)
    assert runner.names == ("Ear", "Ear-2")
    runner.start(HELLO)
    assert runner.remove(first)
    assert not runner.remove(first)
    runner.start(HELLO)
    assert runner.remove(name)
    runner.start(HELLO)
    assert await runner.drain(10)
    assert (len(first.heard), len(second.heard)) == (2, 2)


async def test_a_handler_closes_on_its_own_loop(make):
    loops = []

    class Closes(Ear):
        async def on_llm_start(self, messages, **kwargs):
            loops.append(asyncio.get_running_loop())

        async def close(self):
            loops.append(asyncio.get_running_loop())

    runner = make(Closes())
    runner.start(HELLO)
    assert await runner.close()
    assert loops[0] is loops[1] is not asyncio.get_running_loop()
    runner.start(HELLO)
    assert len(loops) == 2


async def test_a_thousand_handlers_of_single_calls_share_one_thread(make):
    runner, before = make(), threading.active_count()
    ears = [Ear() for _ in range(1000)]
    for ear in ears:
        runner.start(HELLO, handlers=[ear])
    assert await runner.drain(10)
    assert threading.active_count() - before <= 3  # its own, the one that sorts, and the one that waits here
    assert all(ear.kinds == ["start"] for ear in ears)


# --- tokens


@pytest.mark.parametrize(
    ("response", "expected", "corrected"),
    [
        ({"prompt_tokens": 12, "completion_tokens": 30, "tokens_used": 42}, (12, 30), False),
        ({"prompt_tokens": 12, "completion_tokens": 0, "tokens_used": 12}, (12, 0), False),
        ({"prompt_tokens": 12, "completion_tokens": 0}, (12, 0), False),
        ({"prompt_tokens": 0, "completion_tokens": 0, "tokens_used": 0}, (0, 0), False),
        ({"tokens_used": 42}, (10, 32), False),
        ({"tokens_used": 4}, (4, 0), False),
        ({"tokens_used": 42, "completion_tokens": 30}, (12, 30), False),
        ({"tokens_used": 42, "prompt_tokens": 12}, (12, 30), False),
        ({"prompt_tokens": 12}, (12, 20), False),
        ({}, (10, 20), False),
        ({"prompt_tokens": -5, "completion_tokens": 30}, (10, 30), True),
        ({"prompt_tokens": 12, "completion_tokens": -1, "tokens_used": 42}, (12, 30), True),
        ({"prompt_tokens": 12, "completion_tokens": 30, "tokens_used": 50}, (12, 38), True),
        ({"prompt_tokens": 12, "completion_tokens": 30, "tokens_used": 20}, (12, 30), True),
        ({"prompt_tokens": "12", "completion_tokens": True}, (10, 20), True),
        ({"tokens_used": 5, "completion_tokens": 9}, (0, 5), True),
        ({"tokens_used": float("nan")}, (10, 20), True),
    ],
)
def test_reported_numbers_win_then_the_total_is_split_then_it_is_counted(response, expected, corrected):
    counts = counts_of(response, lambda: 10, lambda: 20)
    assert (counts.prompt, counts.completion) == expected
    assert counts.corrected is corrected


_numbers = st.one_of(st.none(), st.integers(), st.floats(), st.booleans(), st.text(max_size=3))


@given(_numbers, _numbers, _numbers)
def test_whatever_is_reported_nothing_recorded_is_negative(prompt, completion, used):
    counts = counts_of(
        {"prompt_tokens": prompt, "completion_tokens": completion, "tokens_used": used}, lambda: 1, lambda: 1
    )
    assert counts.prompt >= 0
    assert counts.completion >= 0


async def test_defect_prompt_12_and_completion_0_was_recorded_as_completion_12(repository, user):
    handler = create_detailed_token_callback(user, repository=repository)
    await handler.on_llm_end(
        {"content": "", "prompt_tokens": 12, "completion_tokens": 0, "tokens_used": 12, "model": "m"}
    )
    assert await settled(repository, user) == (12, 0, 12)


async def test_defect_list_content_was_counted_as_zero(repository, user):
    handler = DetailedRedisTokenCallbackHandler(user, repository=repository)
    parts = [{"type": "text", "text": "Say hello to the treasurer."}]
    await handler.on_llm_start([{"role": "user", "content": parts}], request_id="r")
    await handler.on_llm_end({"content": parts, "model": "gpt-4o"}, request_id="r")
    prompt, completion, all_of_it = await settled(repository, user)
    assert prompt == HELLO_TOKENS - 1 or prompt == HELLO_TOKENS
    assert completion == counted("Say hello to the treasurer.")
    assert all_of_it == prompt + completion


async def test_a_total_without_parts_is_split_by_the_counted_prompt(repository, user):
    handler = DetailedRedisTokenCallbackHandler(user, repository=repository)
    await handler.on_llm_start(HELLO, request_id="r")
    await handler.on_llm_end({"content": "x", "tokens_used": 100, "model": "gpt-4o"}, request_id="r")
    counted_prompt = count_messages(HELLO, "gpt-4o", 4)
    assert await settled(repository, user) == (counted_prompt, 100 - counted_prompt, 100)


async def test_the_plain_handler_adds_what_was_used_to_the_total(repository, user):
    handler = create_token_callback(user, "2026-11-05", repository=repository)
    await handler.on_llm_end({"content": "x", "tokens_used": 7, "model": "gpt-4o"})
    assert (await repository.get_usage_stats(user, "2026-11-05"))["total_tokens"] == 7
    assert (await repository.get_usage_stats(user))["total_tokens"] == 0


async def test_negative_numbers_are_corrected_and_logged_never_recorded(repository, user, caplog):
    handler = DetailedRedisTokenCallbackHandler(user, repository=repository)
    await handler.on_llm_end(
        {"content": "hello world", "prompt_tokens": -100, "completion_tokens": -5, "model": "gpt-4o"}
    )
    assert await settled(repository, user) == (0, 2, 2)
    assert "corrected" in caplog.text


async def test_a_failed_call_is_recorded_if_it_says_what_it_used(repository, user):
    handler = DetailedRedisTokenCallbackHandler(user, repository=repository)
    await handler.on_llm_error(OSError(), request_id="r")
    await handler.on_llm_error(OSError(), tokens_used=9, prompt_tokens=4, completion_tokens=5, model="m")
    assert await settled(repository, user) == (4, 5, 9)


@pytest.mark.parametrize("kind", [RedisTokenCallbackHandler, DetailedRedisTokenCallbackHandler])
@pytest.mark.parametrize(("user_id", "date"), [("", None), ("  ", None), ("a", "2026-13-01"), ("a", "yesterday")])
def test_an_empty_user_and_a_date_that_is_none_are_value_errors(kind, user_id, date, repository_of_nobody):
    with pytest.raises(ValueError):
        kind(user_id, date, repository=repository_of_nobody)


@pytest.fixture
def repository_of_nobody():
    return TokenUsageRepository("redis://127.0.0.1:9")


def test_without_a_tokenizer_characters_are_counted_by_the_ratio(monkeypatch):
    def broken(*_):
        raise OSError

    monkeypatch.setattr("accounting.callbacks.counting.count_text", broken)
    monkeypatch.setattr("accounting.callbacks.counting.count_chat", broken)
    assert count_answer("12345678", "gpt-4o", 4) == 2
    assert count_answer("12345678", "gpt-4o", 3) == 3
    assert count_messages([{"role": "user", "content": "1234"}, {"role": "user", "content": ["1234"]}], "m", 4) == 2


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "redis://127.0.0.1:6379/0"),
        ({"REDIS_URL": "rediss://h"}, "rediss://h"),
        ({"REDIS_HOST": "h", "REDIS_PORT": "1", "REDIS_PASSWORD": "p/w", "REDIS_DB": "2"}, "redis://:p%2Fw@h:1/2"),
        ({"REDIS_HOST": "::1", "REDIS_PORT": "tcp://10.0.0.1:7"}, "redis://[::1]:7/0"),
    ],
)
def test_a_handler_without_a_repository_takes_the_store_that_the_environment_names(environ, url):
    assert environment.store_url(environ) == url


def test_handlers_without_a_repository_share_one(monkeypatch, store):
    monkeypatch.setenv("REDIS_URL", store.url)
    environment.default_repository.cache_clear()
    try:
        assert RedisTokenCallbackHandler("a").repository is RedisTokenCallbackHandler("b").repository
    finally:
        environment.default_repository.cache_clear()


# --- composite


async def test_members_run_together_and_their_results_are_collected():
    both = asyncio.Barrier(2)

    class Meets(Ear):
        async def on_llm_end(self, response, **kwargs):
            async with asyncio.timeout(2):
                await both.wait()
            return self.value

    composite = CompositeCallbackHandler([Meets(1), Meets(2), Raises()])
    results = await composite.on_llm_end(ANSWER)
    assert [result.value for result in results] == [1, 2, None]
    assert [type(result.error) for result in results] == [type(None), type(None), RuntimeError]


async def test_a_lower_priority_has_ended_before_a_higher_one_begins():
    order = []

    class Notes(Ear):
        async def on_llm_start(self, messages, **kwargs):
            await asyncio.sleep(0)
            order.append(self.value)

    composite = create_composite_callback(Notes("middle"))
    composite.add_handler(Notes("last"), priority=9)
    composite.add_handler(Notes("first"), priority=-1)
    await composite.on_llm_start(HELLO)
    assert order == ["first", "middle", "last"]


async def test_in_a_chain_each_gets_what_the_one_before_returned_and_a_failure_ends_it():
    one, two, end = Ear("one"), Ear("two"), Ear()
    composite = CompositeCallbackHandler()
    composite.add_chain([one, two, Raises(), end])
    results = await composite.on_llm_end(ANSWER, request_id="r")
    assert one.heard[0][2] == {"request_id": "r"}
    assert two.heard[0][2] == {"request_id": "r", "previous": "one"}
    assert [result.skipped for result in results] == [False, False, False, True]
    assert not end.heard


async def test_a_member_that_hangs_holds_up_the_others_no_longer_than_the_limit():
    good = Ear("good")
    results = await CompositeCallbackHandler([Hangs(), good], limit_s=0.05).on_llm_end(ANSWER)
    assert isinstance(results[0].error, TimeoutError)
    assert results[1].value == "good"


async def test_members_are_added_and_removed_and_none_holds_itself():
    ear, composite = Ear(), CompositeCallbackHandler()
    composite.add_handler(ear)
    assert composite.remove_handler(ear)
    assert not composite.remove_handler(ear)
    assert await composite.on_llm_start(HELLO) == []
    outer = CompositeCallbackHandler([composite])
    with pytest.raises(ValueError):
        composite.add_handler(composite)
    with pytest.raises(ValueError):
        composite.add_handler(outer)
    with pytest.raises(TypeError):
        composite.add_handler(print)


# --- performance, audit, metrics


@pytest.mark.parametrize(("threshold", "told"), [(None, False), (199, True), (200, False)])
async def test_a_call_above_the_threshold_is_told_with_its_model(threshold, told, caplog):
    handler = PerformanceCallbackHandler(threshold)
    assert await handler.on_llm_end(ANSWER, request_id="r-1") == pytest.approx(200)
    assert ("slow call: 200 ms" in caplog.text) is told
    assert handler.stats["slow"] == told


def test_the_threshold_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("PERFORMANCE_LOG_THRESHOLD", "250")
    assert PerformanceCallbackHandler().threshold_ms == 250
    monkeypatch.setenv("PERFORMANCE_LOG_THRESHOLD", "fast")
    with pytest.raises(ValueError, match="PERFORMANCE_LOG_THRESHOLD"):
        PerformanceCallbackHandler()


async def test_the_audit_log_says_who_and_how_much_and_never_a_prompt_an_answer_or_an_errors_text(caplog):
    caplog.set_level(logging.INFO, "bursar.audit")
    audit = AuditLogCallbackHandler()
    await audit.on_llm_start([{"role": "user", "content": "my prompt"}], user="alice", request_id="r", model="m")
    await audit.on_llm_end({**ANSWER, "content": "my answer"}, user="alice", request_id="r")
    await audit.on_llm_error(ValueError("my prompt"), user="alice", request_id="r")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 3
    assert all('"user":"alice"' in line for line in lines)
    assert '"tokens_used":7' in lines[1]
    assert "my prompt" not in caplog.text
    assert "my answer" not in caplog.text


@pytest.mark.parametrize(("aliases", "prefixes"), [(False, ["bursar_"]), (True, ["bursar_", ""])])
async def test_metrics_have_the_names_of_the_design_and_the_bare_ones_as_aliases(make, aliases, prefixes):
    registry = CollectorRegistry()
    metrics = CallbackMetrics(registry, aliases=aliases)
    runner = make(MetricsCallbackHandler(metrics), Raises(), on_run=metrics.ran)
    metrics.watch(lambda: runner.active)
    runner.end(ANSWER)
    assert await runner.drain(10)
    found = samples(generate_latest(registry).decode())
    for prefix in ("bursar_", ""):
        there = prefix in prefixes
        assert total(found, f"{prefix}token_usage_total", type="total") == 7 * there
        assert total(found, f"{prefix}callback_executions_total", callback_type="Raises", status="error") == there
        assert (
            total(found, f"{prefix}callback_errors_total", callback_type="Raises", error_type="RuntimeError") == there
        )
        assert total(found, f"{prefix}callback_duration_seconds_count", callback_type="Raises") == there
        assert any(name == f"{prefix}active_callbacks" for name, _ in found) is there


def test_kinds_of_errors_are_bounded_labels():
    registry = CollectorRegistry()
    metrics = CallbackMetrics(registry)
    for n in range(200):
        metrics.ran("x", "error", 0.1, f"Error{n}")
    kinds = {
        dict(labels)["error_type"]
        for name, labels in samples(generate_latest(registry).decode())
        if name == "bursar_callback_errors_total"
    }
    assert len(kinds) == 65
    assert "other" in kinds


# --- by name, and in the proxy


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no-such-entry-point", "no entry point"),
        ("no.such.module:Handler", "ModuleNotFoundError"),
        ("accounting.callbacks:NoSuch", "AttributeError"),
        ("accounting.callbacks.counting:estimate", "TypeError"),
        ("builtins:dict", "no CustomAsyncCallbackHandler"),
    ],
)
def test_a_name_that_leads_to_no_handler_is_told(name, why):
    with pytest.raises(CallbackNotFoundError, match=why):
        load_callbacks([name])


def test_a_name_leads_to_a_class_a_function_or_a_handler():
    found = load_callbacks(
        ["accounting.callbacks:PerformanceCallbackHandler", "accounting.callbacks:create_composite_callback"]
    )
    assert [type(handler).__name__ for _, handler in found] == [
        "PerformanceCallbackHandler",
        "CompositeCallbackHandler",
    ]


def test_a_changed_configuration_adds_and_removes_by_name_and_a_bad_one_changes_nothing():
    feed = CallbackFeed(CollectorRegistry())
    audit, performance = (
        "accounting.callbacks:AuditLogCallbackHandler",
        "accounting.callbacks:PerformanceCallbackHandler",
    )
    feed.retune([audit])
    feed.retune([audit, performance])
    assert feed.runner.names == (audit, performance)
    with pytest.raises(CallbackNotFoundError):
        feed.retune([performance, "nothing"])
    assert feed.runner.names == (audit, performance)
    feed.retune([performance])
    assert feed.runner.names == (performance,)


async def test_the_proxy_tells_callbacks_of_every_call_that_it_relays(store, tmp_path):
    async with house(store, tmp_path) as running:
        ear, feed = Ear(), running.sidecar.feed
        feed.runner.add(ear)
        whole = await running.chat(MODEL, max_tokens=6)
        stream = await running.chat(MODEL, max_tokens=6, stream=True)
        refused = await running.chat(f"{MODEL}?status=400")
        await running.until_receipts(3)
        assert await feed.runner.drain(10)
        assert (whole.status, stream.status, refused.status) == (200, 200, 400)
        assert sorted(ear.kinds) == ["end", "end", "error", "start", "start", "start"]
        ends = [(what, kwargs) for kind, what, kwargs in ear.heard if kind == "end"]
        billed = [entry for entry in running.fake.invoice if entry.status == 200]
        for (response, kwargs), entry in zip(ends, billed, strict=True):
            assert response["content"]
            assert (response["prompt_tokens"], response["completion_tokens"]) == (
                entry.prompt_tokens,
                entry.completion_tokens,
            )
            assert response["cost_estimate"] == pytest.approx((entry.prompt_tokens + 2 * entry.completion_tokens) / 1e6)
            assert kwargs["user"] == "alice"
            assert kwargs["provider"] == "fake"
        start = next(what for kind, what, _ in ear.heard if kind == "start")
        assert start == [{"role": "user", "content": "Say hello to the treasurer."}]
        assert whole.json["choices"][0]["message"]["content"] == ends[0][0]["content"]


async def test_the_proxy_tells_of_what_a_client_that_hung_up_had_seen(store, tmp_path):
    async with house(store, tmp_path) as running:
        ear, feed = Ear(), running.sidecar.feed
        feed.runner.add(ear)
        async with running.sdk() as sdk:
            answer = await sdk.chat.completions.create(
                model=f"{MODEL}?stall=8", messages=HELLO, stream=True, max_tokens=50
            )
            async for _ in answer:
                break
            await answer.close()
        await running.until_receipts(1)
        assert await feed.runner.drain(10)
        ((response, kwargs),) = [(what, kwargs) for kind, what, kwargs in ear.heard if kind == "end"]
        assert kwargs["cancelled"] is True
        assert response["tokens_used"] > HELLO_TOKENS


async def test_callbacks_that_raise_hang_or_block_change_nothing_for_a_client_of_the_proxy(store, tmp_path):
    async with house(store, tmp_path) as running:
        good, blocks, feed = Ear(), Blocks(), running.sidecar.feed
        for handler in (Raises(), Hangs(), blocks, good):
            feed.runner.add(handler, policy=Policy(limit_s=0.2))
        replies = await asyncio.gather(*(running.chat(MODEL, max_tokens=2) for _ in range(20)))
        assert {reply.status for reply in replies} == {200}
        await running.until_receipts(20)
        async with asyncio.timeout(5):
            while good.kinds.count("end") < 20:
                await asyncio.sleep(0.005)
        found = await running.metrics()
        assert total(found, "bursar_callback_executions_total", callback_type="Ear", status="ok") >= 20
        assert total(found, "bursar_active_callbacks") > 0
        assert feed.runner.counts["Raises", "error"] == 20
        blocks.let_go.set()


async def test_without_callbacks_no_thread_runs_and_no_call_is_noted(store, tmp_path):
    before = {thread.name for thread in threading.enumerate()}
    async with house(store, tmp_path) as running:
        await running.chat(MODEL, max_tokens=2)
        await running.until_receipts(1)
        assert not running.sidecar.feed._open
        assert not [t.name for t in threading.enumerate() if t.name.startswith("callbacks") and t.name not in before]
