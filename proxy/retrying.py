"""Whether a failed attempt may be followed by another, when, and on how much of the hold. Pure but for the jitter.

Trying again is safe where the provider cannot have begun (nothing was delivered, or it refused), and where the hold still covers
a second bill. Retries of all calls together are bounded, so that an outage is not answered with more load.
"""

import random
import re
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

BACKOFF_S = 0.25
BACKOFF_S_MAX = 4.0
RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_FORBIDDEN, _TOO_MANY = 403, 429
_OF_THE_PROMPT = re.compile(r"content|moderation|policy|safety|flagged")  # a 403 that every key would get
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


def is_safe(error: UpstreamError) -> bool:
    """Tell whether the same call may be sent again after this, if the hold covers what this may have cost."""
    if isinstance(error, UpstreamUnavailableError):
        return not error.delivered
    if isinstance(error, UpstreamTimeoutError):
        return error.phase in ("connect", "tls")
    if concerns_key(error):
        return True  # this key or provider will not, another may
    if error.headers.get("x-should-retry") == "false":
        return False
    return isinstance(error, UpstreamProtocolError) or error.status in RETRIED


def concerns_key(error: UpstreamError) -> bool:
    """Tell whether another API key of the same provider may fare better."""
    if error.status == _FORBIDDEN:
        return not _OF_THE_PROMPT.search(error.code or "")
    return error.code in ("upstream_auth_error", "insufficient_quota") or error.status == _TOO_MANY


def blames_target(error: UpstreamError) -> bool:
    """Tell whether the failure speaks against the target, not against the request or the key."""
    if concerns_key(error):
        return False
    broken = UpstreamUnavailableError | UpstreamTimeoutError | UpstreamProtocolError
    return isinstance(error, broken) or error.status >= _BROKEN


def is_far_away(error: UpstreamError) -> bool:
    """Tell whether trying the same target again would mean to wait too long, or to be refused the same way."""
    told_s = retry_after_s(error)
    hopeless = error.status == _FORBIDDEN or error.code in ("insufficient_quota", "upstream_auth_error")
    return hopeless or (told_s is not None and told_s > BACKOFF_S_MAX)


def retry_after_s(error: AdapterError | None) -> float | None:
    """Return how long the provider wants to be left alone; None where it does not say, or says it as a date."""
    headers = error.headers if isinstance(error, UpstreamError) else {}
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            told_s = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if 0 <= told_s < float("inf"):
            return told_s
    return None


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
