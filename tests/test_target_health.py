"""Targets and API keys that fail are left alone for a while, through a running sidecar: a broken provider gets less load, not more."""

import pytest

from proxy.fake import Script
from tests.fleet import fleet
from tests.sidecars import KEY


@pytest.mark.slow
@pytest.mark.parametrize("status", [503, 429])
async def test_an_outage_is_not_answered_with_more_load(store, tmp_path, status):
    async with fleet(store, tmp_path, 1) as f:
        f.fakes["a"].script = Script(status=status)
        for _ in range(60):
            assert (await f.home.chat("m")).status == status
        assert f.calls("a") <= 60 * 1.1 + 3  # C16


async def test_a_target_that_keeps_failing_is_left_alone_and_taken_back_when_it_answers(store, tmp_path):
    async with fleet(store, tmp_path, 2) as f:
        f.fakes["a"].script = Script(status=500)
        for _ in range(30):
            reply = await f.home.chat("m")
            assert (reply.status, reply.headers["x-bursar-provider"]) == (200, "b")
        assert f.calls("a") == 5
        place = ("a", "fake-1", f.fakes["a"].url)
        assert (await f.home.metrics())["bursar_upstream_up", (("provider", "a"),)] == 0
        assert (await f.home.ops("/readyz")).json["upstreams"]["a"] == {"targets_left_out": 1}
        assert (await f.home.ops("/readyz")).status == 200  # providers are told of, and never a reason not to be ready
        f.fakes["a"].script = Script()
        f.trier.health.of(place).open_until_s = 0  # its rest is over
        assert (await f.home.chat("m")).headers["x-bursar-provider"] == "a"
        assert f.trier.health.of(place).clean or f.trier.health.of(place).state(0) == "closed"
        assert (await f.home.metrics())["bursar_upstream_up", (("provider", "a"),)] == 1


async def test_streams_that_break_off_count_against_their_target(store, tmp_path):
    async with fleet(store, tmp_path, 2) as f:
        f.fakes["a"].script = Script(cut=3)
        seen = [(await f.home.chat("m", stream=True)).headers["x-bursar-provider"] for _ in range(12)]
        assert seen[:5] == ["a"] * 5
        assert set(seen[5:]) == {"b"}


async def test_the_last_target_is_tried_however_often_it_failed(store, tmp_path):
    async with fleet(store, tmp_path, 1, more="retries: {attempts: 1}\n") as f:
        f.fakes["a"].script = Script(status=500)
        for _ in range(8):
            assert (await f.home.chat("m")).status == 500
        f.fakes["a"].script = Script()
        assert (await f.home.chat("m")).status == 200


KEYS = ("sk-good-0123456789abcdef01234567", "sk-bad-00123456789abcdef01234567", "sk-also-0123456789abcdef01234567")


async def test_a_key_that_is_refused_rests_while_another_serves(store, tmp_path):
    async with fleet(store, tmp_path, 1, keys=KEYS, accept=(KEYS[0], KEYS[2])) as f:
        for _ in range(9):
            assert (await f.home.chat("m")).status == 200
        used = [seen.headers["authorization"].removeprefix("Bearer ") for seen in f.fakes["a"].requests]
        assert used.count(KEYS[1]) == 1
        assert {used.count(KEYS[0]), used.count(KEYS[2])} <= {4, 5}
        assert (await f.home.ops("/readyz")).json["upstreams"]["a"] == {"keys_resting": 1}


async def test_when_all_keys_are_refused_they_are_still_tried_and_the_client_learns_no_key(store, tmp_path):
    async with fleet(store, tmp_path, 1, keys=KEYS, accept=("none-of-them",)) as f:
        for _ in range(3):
            reply = await f.home.chat("m")
            assert (reply.status, reply.error["code"]) == (502, "upstream_auth_error")
            assert not any(key.encode() in reply.body for key in (*KEYS, KEY))
        assert f.calls("a") >= 5


async def test_a_target_whose_only_key_rests_comes_last(store, tmp_path):
    async with fleet(store, tmp_path, 2) as f:
        f.fakes["a"].script = Script(status=429, retry_after="60", times=1)
        assert (await f.home.chat("m")).headers["x-bursar-provider"] == "b"
        assert (await f.home.chat("m")).headers["x-bursar-provider"] == "b"
        assert f.calls("a") == 1
