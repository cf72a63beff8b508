"""How long each target takes to begin its answer, as a moving average; pure, the clock is passed in.

What is known fades: a target that was slow once is looked at again. Within a fifth of the best all count as equal, so that not
everyone runs to the same one.
"""

import math
import random
from collections.abc import Hashable, Sequence

WEIGHT = 0.2  # of the newest observation
FADES_S = 60.0
ALIKE = 1.2
TARGETS_MAX = 1000


class Latencies:
    """Averages by target; streams and whole answers take so differently long that the caller names them apart."""

    def __init__(self, chance: random.Random | None = None) -> None:
        self._known: dict[Hashable, tuple[float, float]] = {}  # average, when
        self._chance = chance or random.Random()  # noqa: S311 - spreads load, guards nothing

    def observed(self, target: Hashable, took_s: float, now_s: float) -> None:
        """Take one observation."""
        average_s, _ = self._known.pop(target, (took_s, now_s))
        if len(self._known) >= TARGETS_MAX:
            del self._known[next(iter(self._known))]
        self._known[target] = (average_s + WEIGHT * (took_s - average_s), now_s)

    def expected_s(self, target: Hashable, now_s: float) -> float:
        """Return what may be expected: 0 where nothing is known, so that everyone gets a try."""
        known = self._known.get(target)
        return 0.0 if known is None else known[0] * math.exp(-max(0.0, now_s - known[1]) / FADES_S)

    def order(self, targets: Sequence[Hashable], now_s: float) -> list[int]:
        """Return the numbers of the targets, the fastest first."""
        numbers = list(range(len(targets)))
        self._chance.shuffle(numbers)
        expected_s = [self.expected_s(target, now_s) for target in targets]
        best_s = min(expected_s, default=0.0) * ALIKE
        return sorted(numbers, key=lambda n: max(expected_s[n], best_s))
