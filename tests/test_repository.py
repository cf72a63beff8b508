"""TokenUsageRepository: nothing is lost, nothing is counted twice, no limit is passed, whatever runs at once. On a real server."""

import asyncio
import itertools
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import accounting
from accounting.repository import TokenUsageRepository, _named, cycle_of, days_of
from accounting.store.anywhere import StoreAnywhere
from accounting.store.errors import StoreError
from accounting.store.store import Store
from accounting.store.url import read_url
from proxy.fake import FakeProvider
from tests.sidecars import MODEL, counted, house

ROOT = Path(__file__).parent.parent
_users = itertools.count()


@pytest.fixture
async def repository(store):
    made = TokenUsageRepository(store.url)
    yield made
    await made.close()


@pytest.fixture
def user():
    return f"user-{next(_users)}"


def test_the_repository_is_a_name_of_accounting():
    assert accounting.TokenUsageRepository is TokenUsageRepository


async def test_defect_two_hundred_concurrent_increments_recorded_twenty(repository, user):
    await asyncio.gather(*(repository.increment_detailed_usage(user, 3, 2) for _ in range(200)))
    stats = await repository.get_usage_stats(user)
    assert (stats["prompt_tokens"], stats["completion_tokens"], stats["total_tokens"]) == (600, 400, 1000)


async def test_defect_fifteen_concurrent_calls_of_900_tokens_against_a_limit_of_1000_were_all_admitted(
    repository, user
):
    await repository.set_usage_limit(user, 1000)
    found = await asyncio.gather(*(repository.reserve_within_limit(user, 900) for _ in range(15)))
    assert sum(each["allowed"] for each in found) == 1
    assert await repository.check_usage_limit(user) == {
        "exceeded": False, "current_usage": 900, "limit": 1000, "remaining": 100,
    }  # fmt: skip


async def test_defect_prompt_only_and_completion_only_increments_never_moved_the_total(repository, user):
    assert await repository.increment_prompt_tokens(user, 30) == 30
    assert await repository.increment_completion_tokens(user, 12) == 42
    assert await repository.increment_total_usage(user, 8) == 50
    stats = await repository.get_usage_stats(user)
    assert (stats["prompt_tokens"], stats["completion_tokens"], stats["total_tokens"]) == (30, 12, 50)


async def test_defect_a_new_period_lost_its_limit(repository, user):
    await repository.set_usage_limit(user, 100)
    await repository.increment_total_usage(user, 100, "2026-10-01")
    assert (await repository.check_usage_limit(user, "2026-10-01"))["exceeded"]
    assert await repository.check_usage_limit(user, "2026-11-01") == {
        "exceeded": False, "current_usage": 0, "limit": 100, "remaining": 100,
    }  # fmt: skip
    await repository.reset_usage(user, "2026-10-01")
    assert (await repository.check_usage_limit(user, "2026-10-01"))["limit"] == 100


async def test_defect_an_uninitialised_store_counted_as_not_exceeded():
    gone = TokenUsageRepository("redis://127.0.0.1:9/0")
    with pytest.raises(StoreError):
        await gone.check_usage_limit("alice")
    with pytest.raises(StoreError):
        await gone.reserve_within_limit("alice", 1)
    health = await gone.health_check()
    assert health["status"] == "unhealthy"
    assert health["error"]
    await gone.close()


@pytest.mark.parametrize("act", ["limit", "increment", "reserve", "settle"])
async def test_defect_keys_had_no_ttl(repository, user, store, act):
    if act == "limit":
        await repository.set_usage_limit(user, 10)
    elif act == "increment":
        await repository.increment_detailed_usage(user, 1, 1)
    elif act == "reserve":
        await repository.reserve_within_limit(user, 1, operation_id="a")
    else:
        await repository.settle_reservation(user, 1, 1, 1, operation_id="a")
    keys = await store.command("KEYS", f"*{user}*")
    assert keys
    for key in keys:
        assert await store.command("TTL", key) > 0, key


async def test_defect_a_colon_in_a_user_collided_with_another_users_key(repository, user, store):
    await repository.increment_total_usage(f"{user}:2026-11-01", 5, "2026-10-01")
    await repository.increment_total_usage(user, 7, "2026-10-01")
    assert (await repository.get_usage_stats(user, "2026-11-01"))["total_tokens"] == 0
    assert (await repository.get_usage_stats(user, "2026-10-01"))["total_tokens"] == 7
    assert (await repository.get_usage_stats(f"{user}:2026-11-01", "2026-10-01"))["total_tokens"] == 5


@settings(max_examples=200)
@given(st.text(min_size=1).filter(str.strip), st.text(min_size=1).filter(str.strip))
def test_two_users_never_share_a_key_and_no_key_holds_a_mark_of_ours(one, other):
    try:
        names = _named(one), _named(other)
    except UnicodeEncodeError:
        return
    assert (names[0] == names[1]) == (one == other)
    assert not set(names[0]) & set(":{} \n*")


async def test_the_hash_has_the_documented_name_and_fields(repository, user, store):
    await repository.increment_detailed_usage(user, 2, 3, "2026-11-05")
    found = await store.command("HGETALL", f"token_usage:{user}:2026-11-05")
    assert dict(zip(found[::2], found[1::2], strict=True)) == {
        b"prompt_tokens": b"2", b"completion_tokens": b"3", b"total_tokens": b"5",
    }  # fmt: skip


async def test_a_limit_is_exceeded_when_nothing_remains_and_no_limit_is_none(repository, user):
    assert await repository.check_usage_limit(user) == {
        "exceeded": False, "current_usage": 0, "limit": None, "remaining": None,
    }  # fmt: skip
    await repository.set_usage_limit(user, 10)
    await repository.increment_total_usage(user, 9)
    assert not (await repository.check_usage_limit(user))["exceeded"]
    await repository.increment_total_usage(user, 3)
    assert await repository.check_usage_limit(user) == {
        "exceeded": True, "current_usage": 12, "limit": 10, "remaining": 0,
    }  # fmt: skip
    await repository.set_usage_limit(user, None)
    assert (await repository.reserve_within_limit(user, 1_000))["allowed"]


async def test_a_reservation_is_replaced_by_what_was_really_used(repository, user):
    await repository.set_usage_limit(user, 1000)
    assert (await repository.reserve_within_limit(user, 900))["allowed"]
    assert await repository.settle_reservation(user, 900, 40, 60) == 100
    stats = await repository.get_usage_stats(user)
    assert (stats["prompt_tokens"], stats["completion_tokens"], stats["total_tokens"]) == (40, 60, 100)
    assert (await repository.reserve_within_limit(user, 900))["allowed"]


async def test_an_operation_that_is_sent_twice_counts_once(repository, user):
    for _ in range(3):
        assert (await repository.reserve_within_limit(user, 50, operation_id="job-1"))["current_usage"] == 50
        assert await repository.settle_reservation(user, 0, 0, 0, operation_id="job-2") == 50


@pytest.mark.parametrize("bad", ["", "  ", None, 7])
async def test_an_empty_user_is_a_value_error(repository, bad):
    with pytest.raises(ValueError, match="user_id"):
        await repository.increment_total_usage(bad, 1)


@pytest.mark.parametrize("bad", [-1, 1.5, True, 2**60, "5"])
async def test_an_amount_that_is_no_count_is_never_recorded(repository, user, bad):
    with pytest.raises(ValueError, match="tokens"):
        await repository.increment_detailed_usage(user, bad, 0)
    assert (await repository.get_usage_stats(user))["total_tokens"] == 0


@pytest.mark.parametrize("bad", ["2026-11", "05.11.2026", "2026-02-30", "", "20261105"])
def test_a_cycle_that_is_no_date_is_a_value_error(bad):
    with pytest.raises(ValueError, match="YYYY-MM-DD"):
        cycle_of(bad)


def test_a_cycle_is_a_month_from_its_first_day():
    assert cycle_of(None).endswith("-01")
    assert days_of("2026-11-05")[0] == "20261105"
    assert days_of("2026-11-05")[-1] == "20261204"
    assert len(days_of("2026-02-01")) == 28


async def test_a_broken_connection_loses_and_doubles_nothing(own_store, user):
    repository = TokenUsageRepository(own_store.url)
    total = 0
    for _ in range(5):
        await asyncio.gather(*(repository.increment_total_usage(user, 1) for _ in range(20)))
        total += 20
        await own_store.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    await repository.increment_total_usage(user, 1)
    assert (await repository.get_usage_stats(user))["total_tokens"] == total + 1
    await repository.close()


async def test_one_repository_serves_several_event_loops(store, user):
    repository = TokenUsageRepository(store.url)
    own = Store(read_url(store.url))
    shared = TokenUsageRepository(own)

    def elsewhere(which):
        asyncio.run(which.increment_total_usage(user, 1))

    await repository.increment_total_usage(user, 1)
    await asyncio.gather(*(asyncio.to_thread(elsewhere, which) for which in (repository, shared) for _ in range(5)))
    assert (await shared.get_usage_stats(user))["total_tokens"] == 11
    await repository.close()
    await own.close()


async def test_a_store_that_is_given_is_used_on_its_own_loop_only(store):
    own = Store(read_url(store.url))
    anywhere = StoreAnywhere(store=own)
    home = asyncio.get_running_loop()

    async def where(given):
        assert given is own
        return asyncio.get_running_loop()

    assert await asyncio.to_thread(lambda: asyncio.run(anywhere.use(where))) is home
    await own.close()


_WORKER = """
import asyncio, sys
from accounting import TokenUsageRepository
from accounting.callbacks import create_detailed_token_callback
from adapters.clients import LLMMessage, OpenAIClient

async def main(redis, provider, user, calls):
    repository = TokenUsageRepository(redis)
    counting = create_detailed_token_callback(user, "2026-11-01", repository=repository)
    async with OpenAIClient("k", base_url=provider, model="gpt-4o?length=4", concurrency=calls, callbacks=[counting]) as client:
        messages = [LLMMessage("user", "Say hello to the treasurer.")]
        answers = await asyncio.gather(*(client.generate_text(messages) for _ in range(calls)))
        assert await client.runner.drain(30)
        assert not client.runner.dropped
    print(sum(answer.tokens_used for answer in answers))

asyncio.run(main(*sys.argv[1:4], int(sys.argv[4])))
"""


@pytest.mark.slow
async def test_a_thousand_concurrent_calls_through_eight_processes_lose_no_count(store, repository, user):
    async with FakeProvider(count=counted) as fake:
        words = (sys.executable, "-c", _WORKER, store.url, fake.url, user, "125")
        workers = [
            await asyncio.create_subprocess_exec(*words, cwd=ROOT, stdout=asyncio.subprocess.PIPE) for _ in range(8)
        ]
        told = [int((await worker.communicate())[0]) for worker in workers]
        billed = fake.invoice
    assert len(billed) == 1000
    stats = await repository.get_usage_stats(user, "2026-11-01")
    assert (stats["prompt_tokens"], stats["completion_tokens"]) == (billed.prompt_tokens, billed.completion_tokens)
    assert stats["total_tokens"] == sum(told) == billed.prompt_tokens + billed.completion_tokens


async def test_what_the_proxy_settled_is_readable_through_the_repository(store, tmp_path):
    async with house(store, tmp_path) as running:
        repository = TokenUsageRepository(running.sidecar.store)
        await repository.reset_usage("alice")
        await running.chat(MODEL, max_tokens=5)
        await running.chat(MODEL, max_tokens=5)
        await running.until_receipts(2)
        usage = await repository.get_settled_usage("alice")
        billed = running.fake.invoice
        assert usage["prompt_tokens"] == billed.prompt_tokens
        assert usage["completion_tokens"] == billed.completion_tokens
        assert usage["total_tokens"] == billed.prompt_tokens + billed.completion_tokens
        assert (await repository.get_settled_usage("bob"))["total_tokens"] == 0
        assert (await repository.get_usage_stats("alice"))["total_tokens"] == 0  # no second truth
        json.dumps(usage)
