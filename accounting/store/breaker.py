"""Spares the callers the wait for a store that is down: after a few failures in a row the answer is no at once."""

FAILURES_MAX = 3
FAILURES_S = 1.0
PROBE_S = 0.5


class Breaker:
    """Closed, or open with one probe let through each PROBE_S. Times are of a monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._failures: list[float] = []
        self._probe_at_s = 0.0
        self.open = False
        self.calm = True  # nothing speaks against the store

    def allows(self, now_s: float) -> bool:
        """Tell whether to try; when open, True once per PROBE_S."""
        if not self.open:
            return True
        if now_s < self._probe_at_s:
            return False
        self._probe_at_s = now_s + PROBE_S
        return True

    def success(self) -> None:
        """The store answered."""
        self._failures.clear()
        self.open, self.calm = False, True

    def failure(self, now_s: float) -> None:
        """The store did not answer."""
        self._failures = [t for t in self._failures if t > now_s - FAILURES_S]
        self._failures.append(now_s)
        self.calm = False
        if len(self._failures) >= FAILURES_MAX and not self.open:
            self.open = True
            self._probe_at_s = now_s + PROBE_S
