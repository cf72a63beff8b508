"""`python -m tests.bench.cluster_simulation`: the two assumptions of docs/scale.md that arithmetic alone cannot carry.

One: heartbeats of thousands of sidecars do not pile up before the reserves of calls, not even when all sidecars began at once. Two: a
budget that all share costs no more per call when it is nearly spent. The store is one server that takes commands in order; what each
costs it comes from `tests.bench.units`. Nothing here is random but by a seed.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from pathlib import Path
from random import Random

DEADLINE_MS = 250
HEARTBEAT_S = 5.0
POLL_S = 2.0
HOLDS_PER_BATCH = 50
_SDK_RETRIES = 2
_RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """Microseconds of the store's one core for each command; three budgets a call."""

    reserve_us: float = 62.0
    settle_us: float = 65.0
    extend_us: float = 42.0
    extend_hold_us: float = 15.0
    poll_us: float = 20.0

    @classmethod
    def read(cls, file: str) -> "Units":
        """Take them from what `tests.bench.units --json` wrote."""
        operations = json.loads(Path(file).read_text())["operations"]
        three, none = operations["3 budgets"], operations["none open"]
        return cls(
            reserve_us=three["reserve"]["cpu_us"], settle_us=three["settle"]["cpu_us"], poll_us=none["version poll"]["cpu_us"],
            extend_us=none["extend, per heartbeat"]["cpu_us"], extend_hold_us=three["extend, per hold"]["cpu_us"],
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Sidecars of one tenant, which share one slot and so one core of Redis."""

    sidecars: int = 10_000
    calls_per_s: float = 2000.0  # of all
    call_s: float = 8.0  # mean; a hold is open for so long
    seconds: float = 60.0
    began_within_s: float = HEARTBEAT_S  # all sidecars; 5 s or more: phases are spread evenly
    jitter: float = 0.0  # of a heartbeat's interval, to either side
    churn_per_s: float = 0.0  # share of the sidecars that end and are replaced in a second
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Waits:
    """How long reserves waited in line, in ms; how much of the core was used, on the whole and in the worst 100 ms."""

    p50_ms: float
    p99_ms: float
    most_ms: float
    late: float  # share of reserves past their deadline
    used: float
    commands_per_s: float


def heartbeats(cluster: Cluster, units: Units) -> Waits:
    """Simulate reserves in line with heartbeats and polls."""
    arrivals = sorted((*_calls(cluster, units), *_beats(cluster, units)))
    return _line(arrivals, cluster.seconds)


def _line(arrivals: list[tuple[float, float, bool]], seconds: float) -> Waits:
    """Serve (at_s, cost_us, is a reserve) in order, one at a time."""
    free_s, work_s = 0.0, 0.0
    waits: list[float] = []
    for at_s, cost_us, reserve in arrivals:
        begins_s = max(at_s, free_s)
        free_s = begins_s + cost_us / 1e6
        work_s += cost_us / 1e6
        if reserve:
            waits.append((free_s - at_s) * 1000)
    waits.sort()
    late = sum(wait > DEADLINE_MS for wait in waits) / max(1, len(waits))
    return Waits(
        p50_ms=_quantile(waits, 0.5), p99_ms=_quantile(waits, 0.99), most_ms=waits[-1] if waits else 0.0, late=late,
        used=work_s / seconds, commands_per_s=len(arrivals) / seconds,
    )  # fmt: skip


def _calls(cluster: Cluster, units: Units) -> Iterator[tuple[float, float, bool]]:
    chance, at_s = Random(cluster.seed), 0.0
    while (at_s := at_s + chance.expovariate(cluster.calls_per_s)) < cluster.seconds:
        yield at_s, units.reserve_us, True
        if (ends_s := at_s + chance.expovariate(1 / cluster.call_s)) < cluster.seconds:
            yield ends_s, units.settle_us, False


def _beats(cluster: Cluster, units: Units) -> Iterator[tuple[float, float, bool]]:
    chance = Random(cluster.seed + 1)
    open_mean = cluster.calls_per_s * cluster.call_s / cluster.sidecars
    for _ in range(cluster.sidecars):
        at_s = chance.uniform(0, cluster.began_within_s) % HEARTBEAT_S
        polls_s = at_s % POLL_S
        while at_s < cluster.seconds:
            left = holds = _poisson(chance, open_mean)
            for _ in range(max(1, math.ceil(holds / HOLDS_PER_BATCH))):
                batch = min(left, HOLDS_PER_BATCH)
                left -= batch
                yield at_s, units.extend_us + batch * units.extend_hold_us, False
            if (
                chance.random() < cluster.churn_per_s * HEARTBEAT_S
            ):  # a new one in its place: meets the store, begins a beat of its own
                yield at_s, units.extend_us * 3, False
                at_s += chance.uniform(0, HEARTBEAT_S)
            at_s += HEARTBEAT_S * chance.uniform(1 - cluster.jitter, 1 + cluster.jitter)
        while polls_s < cluster.seconds:
            yield polls_s, units.poll_us, False
            polls_s += POLL_S


@dataclass(frozen=True, slots=True, kw_only=True)
class HotBudget:
    """One budget that all calls draw on, and that ends while they go on. Money in any unit."""

    calls_per_s: float = 2000.0
    call_s: float = 8.0
    hold: int = 10  # a call's worst case
    share_used: float = 0.3  # of it, on average
    lasts_s: float = 40.0  # the budget, at this rate
    seconds: float = 80.0
    seed: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a shared budget came to its end."""

    limit: int
    used: int
    most_used_and_held: int
    unusable: float  # share of the limit that was still held when the first call was refused
    calls: int
    reserves: int
    reserves_per_s_most: float  # in the worst second
    wait_p99_ms: float


def hot_budget(hot: HotBudget, units: Units) -> Ending:
    """Simulate calls and the retries of their SDKs against one counter, exactly as reserve and settle count."""
    chance = Random(hot.seed)
    limit = int(hot.calls_per_s * hot.lasts_s * hot.hold * hot.share_used)
    used = held = most = reserves = calls = number = 0
    stranded: float | None = None
    per_s = [0] * (int(hot.seconds) + 10)
    arrivals: list[tuple[float, float, bool]] = []
    line: list[tuple[float, int, int, int]] = []  # at, order, tries left (-1: it ends), spent in the end
    at_s = 0.0
    while (at_s := at_s + chance.expovariate(hot.calls_per_s)) < hot.seconds:
        calls += 1
        heappush(
            line, (at_s, calls, _SDK_RETRIES, min(hot.hold, round(chance.expovariate(1 / (hot.hold * hot.share_used)))))
        )
    number = calls
    while line:
        at_s, _, left, spends = heappop(line)
        number += 1
        if left < 0:
            held, used = held - hot.hold, used + spends
            arrivals.append((at_s, units.settle_us, False))
            continue
        reserves += 1
        per_s[min(int(at_s), len(per_s) - 1)] += 1
        arrivals.append((at_s, units.reserve_us, True))
        if used + held + hot.hold <= limit:
            held += hot.hold
            most = max(most, used + held)
            heappush(line, (at_s + chance.expovariate(1 / hot.call_s), number, -1, spends))
            continue
        stranded = held / limit if stranded is None else stranded
        if used + hot.hold <= limit and left:  # budget_held: the SDK asks again; insufficient_quota: it does not
            heappush(line, (at_s + _RETRY_AFTER_S * chance.uniform(1, 1.25), number, left - 1, spends))
    return Ending(
        limit=limit, used=used, most_used_and_held=most, unusable=stranded or 0.0, calls=calls, reserves=reserves,
        reserves_per_s_most=max(per_s), wait_p99_ms=_line(sorted(arrivals), hot.seconds).p99_ms,
    )  # fmt: skip


def _poisson(chance: Random, mean: float) -> int:
    """Knuth's method; means here are small."""
    if mean > 30:  # noqa: PLR2004 - above it, the normal one is as good
        return max(0, round(chance.gauss(mean, math.sqrt(mean))))
    count, product, least = 0, chance.random(), math.exp(-mean)
    while product > least:
        count += 1
        product *= chance.random()
    return count


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def main() -> int:
    """Print both simulations; return 0."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.cluster_simulation", description=__doc__)
    parser.add_argument("--sidecars", type=int, default=10_000)
    parser.add_argument("--calls-per-s", type=float, default=2000.0, help="of the whole tenant (default 2000)")
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--units", metavar="FILE", help="what `python -m tests.bench.units --json FILE` wrote")
    args = parser.parse_args()
    units = Units.read(args.units) if args.units else Units()
    spread = Cluster(sidecars=args.sidecars, calls_per_s=args.calls_per_s, seconds=args.seconds)
    cases = {
        "spread evenly": spread,
        "spread, 1 % replaced a second": replace(spread, churn_per_s=0.01),
        "all began within 0.1 s": replace(spread, began_within_s=0.1),
        "the same, 20 % jitter": replace(spread, began_within_s=0.1, jitter=0.2),
    }
    print(
        f"{units}\n\n| heartbeats of {args.sidecars:,} sidecars | core used | commands/s | p50 ms | p99 ms | most ms | late |\n|---|---|---|---|---|---|---|"
    )
    for name, cluster in cases.items():
        w = heartbeats(cluster, units)
        print(
            f"| {name} | {w.used:.0%} | {w.commands_per_s:,.0f} | {w.p50_ms:.2f} | {w.p99_ms:.1f} | {w.most_ms:.0f} | {w.late:.2%} |"
        )
    print(
        "\n| one budget for all, calls | used of limit | held at first refusal | reserves per call | worst second | p99 ms |\n|---|---|---|---|---|---|"
    )
    for call_s in (2.0, 8.0, 30.0):
        e = hot_budget(HotBudget(calls_per_s=args.calls_per_s, call_s=call_s), units)
        print(
            f"| of {call_s:g} s | {e.used / e.limit:.1%} | {e.unusable:.0%} | {e.reserves / e.calls:.2f} | {e.reserves_per_s_most:,.0f} | {e.wait_p99_ms:.1f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
