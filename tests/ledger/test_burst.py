"""A thousand calls at once from four processes: not one token over, and nearly all of the budget is used (A3, A4)."""

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from tests.ledger.houses import till, tokens

PROCESSES = 4
ROOT = Path(__file__).parents[2]


def burst(socket: str, way: str, *, calls: int, limits: list[int], worst: int, seed: int) -> tuple[int, int]:
    """Start the processes, let them go together, return what all of them used and how many calls were refused."""
    command = [
        sys.executable,
        "-m",
        "tests.ledger.burst",
        socket,
        way,
        str(calls // PROCESSES),
        ",".join(map(str, limits)),
        str(worst),
    ]
    running = [
        subprocess.Popen(
            [*command, str(seed * 10 + i)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for i in range(PROCESSES)
    ]
    for process in running:
        assert process.stdout.readline() == "ready\n"
    for process in running:
        process.stdin.write("go\n")
        process.stdin.flush()
    replies = [orjson.loads(process.communicate(timeout=50)[0]) for process in running]
    return sum(r["used"] for r in replies), sum(r["refused"] for r in replies)


async def one_burst(server, raw, seed: int, limits: list[int]) -> None:
    worst = 100
    used, refused = burst(server.address.path, "ledger", calls=1_000, limits=limits, worst=worst, seed=seed)
    least = min(limits)
    print(f"seed {seed}: limit {least}, used {used} ({used / least:.1%}), {1_000 - refused} of 1000 calls admitted")
    assert used <= least
    assert used >= 0.95 * least
    async with till(server.address) as one:
        for i, limit in enumerate(limits):
            counters = await one.counters(tokens(limit, f"user:{i}"))
            assert counters["used"] == used, "all of the budgets saw all of the calls"
            assert counters["held"] == 0
            assert await one.holds(tokens(limit, f"user:{i}")) == 0
            assert not counters.get("over")
            assert not counters.get("late")


async def test_a_thousand_calls_at_once_use_a_budget_and_not_a_token_more(server, raw):
    await one_burst(server, raw, seed=1, limits=[30_000])


async def test_five_budgets_hold_together_or_not_at_all(server, raw):
    await one_burst(server, raw, seed=2, limits=[90_000, 40_000, 30_000, 60_000, 35_000])


def test_to_check_and_then_to_add_spends_a_budget_many_times(server, raw):
    used, _ = burst(server.address.path, "control", calls=1_000, limits=[10_000], worst=100, seed=1)
    print(f"check-then-add: {used / 10_000:.1f} times the limit")
    assert used >= 5 * 10_000, "or this test could not see an overspend"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 7))
async def test_it_was_not_luck(server, raw, seed):
    await one_burst(server, raw, seed=seed, limits=[30_000] if seed % 2 else [90_000, 25_000, 30_000, 60_000, 35_000])


@pytest.mark.long
@pytest.mark.parametrize("seed", range(7, 21))
async def test_it_was_not_luck_at_length(server, raw, seed):
    await one_burst(server, raw, seed=seed, limits=[20_000 + 1_000 * seed] * (1 + seed % 5))
