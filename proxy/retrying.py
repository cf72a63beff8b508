"""When a failed attempt may be followed by another, and on how much of the hold. Pure but for the jitter.

Whether one may follow at all is in `adapters.retrying`; beyond that, the hold must still cover a second bill. Retries of all calls together are bounded, so that an outage is not answered with more load.
"""

import random
from collections.abc import Sequence

from accounting.ask import Ask
from accounting.budgets import amounts
from accounting.charge import Attempt
from accounting.hold import Hold
from adapters.errors import (
    AdapterError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)
from adapters.retrying import concerns_key, is_hopeless, retry_after_s

BACKOFF_S = 0.25
BACKOFF_S_MAX = 4.0
_BROKEN = 500
_PER_CALL = ("requests", "concurrency")  # a call counts once, however often it is tried


class RetryBudget:
    """Lets at most a share of all calls be tried again, with a little to start from."""

    def __init__(self, share: float, floor: float = 3.0) -> None:
        self.share, self._floor, self._left = share, floor, floor

    def earned(self) -> None:
        """Count a call."""
        self._left = min(self._left + self.share, self._floor + 100 * self.share)

    def take(self) -> bool:
        """Take a retry if there is one left."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


def blames_target(error: UpstreamError) -> bool:
    """Tell whether the failure speaks against the target, not against the request or the key."""
    if concerns_key(error):
        return False
    broken = UpstreamUnavailableError | UpstreamTimeoutError | UpstreamProtocolError
    return isinstance(error, broken) or error.status >= _BROKEN


def is_far_away(error: UpstreamError) -> bool:
    """Tell whether trying the same target again would mean to wait too long, or to be refused the same way."""
    return is_hopeless(error, BACKOFF_S_MAX)


def wait_s(error: AdapterError | None, turn: int) -> float:
    """Return how long to wait before the second turn (1), the third (2), …: what was told, else a full jitter."""
    told_s = retry_after_s(error)
    jitter_s = random.uniform(0, min(BACKOFF_S_MAX, BACKOFF_S * 2**turn))  # noqa: S311 - jitter, not a secret
    return jitter_s if told_s is None else told_s + jitter_s / 10


def grant_left(hold: Hold, ask: Ask, attempts: Sequence[Attempt]) -> int | None:
    """Return the output tokens that the hold still covers for one more attempt; None if it covers none.

    What an attempt cost that may be billed is known only where the provider said so; of any other the worst is assumed.
    """
    granted = hold.granted
    billed = [attempt for attempt in attempts if attempt.billable]
    if not billed:
        return granted
    for row, draw in zip(hold.rows, ask.draws, strict=True):
        unit = row.budget.unit
        if not row.budget.binds or unit in _PER_CALL:
            continue
        spent = 0
        for attempt in billed:
            usage = attempt.meter.reported
            if usage is None:
                return None
            cost = attempt.price.cost_nanousd(usage) if attempt.price is not None else 0
            spent += amounts(
                unit, requests=1, input_tokens=usage.input, output_tokens=usage.output, cost_nanousd=cost
            )  # fmt: skip
        left = row.amount - spent - draw.fixed
        if left < 0:
            return None
        if draw.per_output:
            granted = min(granted, left // draw.per_output)
    return granted if granted >= ask.least else None
