"""Which targets and API keys are fit to be tried: decisions only, the clock is passed in (seconds, monotonic).

A target that keeps failing comes last for a while: it is asked only where all others failed, then by one call to see. One that
lets its callers wait is then asked by one call at a time. But never are fewer than half of the targets left, nor the last left
out: a wrong guess here must not be worse than the failures it avoids. A provider's 429 and 401 speak
of an API key, not of the target, so it is the key that rests.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal, TypeAlias

State: TypeAlias = Literal["closed", "open", "probing"]
Place: TypeAlias = tuple[str, str, str]  # provider, model, address

CONSECUTIVE = 5  # failures in a row that open
WINDOW_S, WINDOW_CALLS, WINDOW_SHARE = 10.0, 20, 0.5  # or this share of at least so many calls in so long
OPEN_S, OPEN_S_MAX = 30.0, 480.0  # for how long, doubled each time a probe fails
PROBE_S = 60.0  # a probe that has told nothing by then makes room for another
TARGETS_MAX = 1000
REFUSED_S, REFUSED_S_MAX = 60.0, 900.0  # a key that is not accepted, doubled each time
LIMITED_S, LIMITED_S_MAX = 5.0, 120.0  # a key at its rate limit, where the provider says nothing better
SPENT_S = 300.0  # a key whose account has no money left


@dataclass(slots=True)
class Breaker:
    """One target's record. `answered` when it began to answer, then `succeeded` or `failed` when that is over."""

    open_until_s: float = 0.0
    opened: int = 0  # times in a row
    failures: int = 0  # in a row
    probe_until_s: float = 0.0
    slow: bool = False  # its last failure was a limit on time: whoever asks it may wait in vain
    _ends: deque[tuple[float, bool]] = field(default_factory=lambda: deque(maxlen=200))

    def state(self, now_s: float) -> State:
        """Return `open` while no call is let through, `probing` from then until one has succeeded."""
        if not self.opened:
            return "closed"
        return "open" if now_s < self.open_until_s else "probing"

    def lets_through(self, now_s: float) -> bool:
        """Tell whether the target may be tried; while probing, by one call at a time."""
        return not self.opened or (now_s >= self.open_until_s and now_s >= self.probe_until_s)

    def began(self, now_s: float) -> None:
        """Note that a call goes to the target; while probing it is the probe."""
        if self.opened:
            self.probe_until_s = now_s + PROBE_S

    def answered(self) -> None:
        """Note that an answer began: a probe that gets so far has succeeded."""
        if self.opened:
            self.opened = self.failures = 0
            self.open_until_s = self.probe_until_s = 0.0
            self._ends.clear()

    def succeeded(self, now_s: float) -> None:
        """Note an answer that came whole."""
        self.answered()
        self.failures = 0
        self._ends.append((now_s, True))

    def inconclusive(self) -> None:
        """Note a call that says nothing of the target: refused for its own faults, or cancelled."""
        self.probe_until_s = 0.0

    def failed(self, now_s: float, *, slow: bool = False) -> None:
        """Note a failure."""
        self.failures += 1
        self.slow = slow
        self.probe_until_s = 0.0
        self._ends.append((now_s, False))
        if self.opened and now_s < self.open_until_s:
            return  # a straggler from before it opened
        if self.opened or self.failures >= CONSECUTIVE or self._too_many(now_s):
            self.opened += 1
            self.open_until_s = now_s + min(OPEN_S * 2 ** (self.opened - 1), OPEN_S_MAX)

    @property
    def clean(self) -> bool:
        """Whether nothing is held against the target."""
        return not self.opened and not self.failures and all(good for _, good in self._ends)

    def _too_many(self, now_s: float) -> bool:
        while self._ends and self._ends[0][0] < now_s - WINDOW_S:
            self._ends.popleft()
        bad = sum(not good for _, good in self._ends)
        return len(self._ends) >= WINDOW_CALLS and bad >= len(self._ends) * WINDOW_SHARE


class Health:
    """The breakers of all targets that were tried, by place. Survives a reload."""

    def __init__(self) -> None:
        self._breakers: dict[Place, Breaker] = {}

    def order(self, targets: Sequence[Place], now_s: float) -> list[int]:
        """Return the numbers of those to try: the fit as they come, then as a last resort the unfit."""
        fit, unfit = [], []
        for number, target in enumerate(targets):
            breaker = self._breakers.get(target)
            if breaker is None or breaker.lets_through(now_s):
                fit.append(number)
            else:
                busy = breaker.slow and now_s < breaker.probe_until_s
                unfit.append((busy, breaker.slow, breaker.open_until_s, number))
        unfit.sort()
        kept = max(0, len(unfit) - len(targets) // 2)  # that must not be left out
        return fit + [number for place, (busy, *_, number) in enumerate(unfit) if place < kept or not busy]

    def fit(self, target: Place, now_s: float) -> bool:
        """Tell whether a target may be tried without need."""
        breaker = self._breakers.get(target)
        return breaker is None or breaker.lets_through(now_s)

    def of(self, target: Place) -> Breaker:
        """Return the target's breaker."""
        breaker = self._breakers.get(target)
        if breaker is None:
            if len(self._breakers) >= TARGETS_MAX:
                self._tidy()
            breaker = self._breakers[target] = Breaker()
        return breaker

    def states(self, now_s: float) -> dict[Place, State]:
        """Return the state of every target that ever was tried."""
        return {target: breaker.state(now_s) for target, breaker in self._breakers.items()}

    def _tidy(self) -> None:
        """Names can come from the wire: forget those with nothing against them, then the oldest."""
        self._breakers = {target: b for target, b in self._breakers.items() if not b.clean}
        while len(self._breakers) >= TARGETS_MAX:
            del self._breakers[next(iter(self._breakers))]


@dataclass(slots=True)
class _Rest:
    until_s: float = 0.0
    times: int = 0  # refused in a row


class KeyRotation:
    """The API keys of one provider, used in turn; one that is refused rests, the one that is ready soonest never does."""

    def __init__(self, count: int) -> None:
        self._rests = [_Rest() for _ in range(count)]
        self._turn = -1

    def __len__(self) -> int:
        return len(self._rests)

    def choose(self, now_s: float, *, stick_to: str | None = None, without: Iterable[int] = ()) -> int:
        """Return the number of the key to use: in turn, or for one `stick_to` always the same while it is fit."""
        tried = set(without)
        left = [n for n in range(len(self._rests)) if n not in tried] or list(range(len(self._rests)))
        fit = [n for n in left if self._rests[n].until_s <= now_s]
        if not fit:
            return min(left, key=lambda n: self._rests[n].until_s)
        if stick_to is not None:
            return max(fit, key=lambda n: sha256(f"{n}|{stick_to}".encode()).digest())
        self._turn = next((n for n in fit if n > self._turn), fit[0])
        return self._turn

    def ready(self, now_s: float) -> int:
        """Return how many keys do not rest."""
        return sum(rest.until_s <= now_s for rest in self._rests)

    def ready_without(self, used: Iterable[int], now_s: float) -> bool:
        """Tell whether a key other than `used` is fit."""
        tried = set(used)
        return any(n not in tried and rest.until_s <= now_s for n, rest in enumerate(self._rests))

    def accepted(self, number: int) -> None:
        """Note that the provider took the key."""
        self._rests[number].times = 0

    def refused(self, number: int, now_s: float) -> None:
        """Let a key rest that the provider does not accept."""
        rest = self._rests[number]
        rest.until_s = now_s + min(REFUSED_S * 2**rest.times, REFUSED_S_MAX)
        rest.times += 1

    def limited(self, number: int, now_s: float, told_s: float | None, *, spent: bool = False) -> None:
        """Let a key rest that is at its limit, for as long as the provider says."""
        wait_s = SPENT_S if spent else LIMITED_S if told_s is None else min(told_s, LIMITED_S_MAX)
        self._rests[number].until_s = max(self._rests[number].until_s, now_s + wait_s)
