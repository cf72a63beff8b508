"""Whether a call that failed may be sent again, and after how long. Nothing here sends.

Again: what was never delivered, 408, 409, 429 and 5xx. Not: other refusals, and time-outs after delivery, since the provider
may have done the work and will bill it.
"""

import random
import re
from dataclasses import dataclass

from adapters.errors import (
    AdapterError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)

RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_FORBIDDEN, _TOO_MANY = 403, 429
_OF_THE_PROMPT = re.compile(r"content|moderation|policy|safety|flagged")  # a 403 that every key would get


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """`attempts` per model, the first included. Waits double from `base_s` up to `max_s`, with full jitter.

    A provider's own `retry-after` is honoured up to `patience_s`; one that asks for more is not asked again.
    """

    attempts: int = 3
    base_s: float = 0.25
    max_s: float = 8.0
    patience_s: float = 30.0

    def wait_s(self, error: AdapterError | None, attempt: int) -> float:
        """Return how long to wait before that attempt (1 is the second)."""
        told_s = retry_after_s(error)
        if told_s is not None:
            return min(told_s, self.patience_s)
        return random.uniform(0, min(self.max_s, self.base_s * 2**attempt))  # noqa: S311 - jitter, not a secret

    def hopeless(self, error: UpstreamError) -> bool:
        """Tell whether the same model would refuse again, or wants us to wait too long."""
        told_s = retry_after_s(error)
        refused = error.status == _FORBIDDEN or error.code in ("insufficient_quota", "upstream_auth_error")
        return refused or (told_s is not None and told_s > self.patience_s)


def is_safe(error: UpstreamError) -> bool:
    """Tell whether sending the call again, to the same provider or another, is safe and may help."""
    if isinstance(error, UpstreamUnavailableError):
        return not error.delivered
    if isinstance(error, UpstreamTimeoutError):
        return error.phase in ("connect", "tls")
    if concerns_key(error):
        return True  # this key or model will not, another may
    if error.headers.get("x-should-retry") == "false":
        return False
    return isinstance(error, UpstreamProtocolError) or error.status in RETRIED


def concerns_key(error: UpstreamError) -> bool:
    """Tell whether another API key of the same provider may fare better."""
    if error.status == _FORBIDDEN:
        return not _OF_THE_PROMPT.search(error.code or "")
    return error.code in ("upstream_auth_error", "insufficient_quota") or error.status == _TOO_MANY


def retry_after_s(error: AdapterError | None) -> float | None:
    """Return how many seconds the provider asks to wait, None where it says nothing, or says it as a date."""
    headers = error.headers if isinstance(error, UpstreamError) else {}
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            told_s = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if 0 <= told_s < float("inf"):
            return told_s
    return None
