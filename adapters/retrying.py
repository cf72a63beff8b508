"""Whether a call that failed may be sent again, whose fault it was, and what was asked of us about waiting. Pure.

Again: what was never delivered, 408, 409, 429 and 5xx. Not: other refusals, and time-outs after delivery, since the provider
may have done the work and will bill it.
Source: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from adapters.errors import (
    AdapterError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)

RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504, 520, 522, 524, 529})
RETRY_HEADERS = ("retry-after", "retry-after-ms", "x-should-retry")  # what a provider says of trying again
FORBIDDEN = 403
_TOO_MANY = 429
_OF_THE_PROMPT = re.compile(r"content|moderation|policy|safety|flagged")  # a 403 that every key would get


def may_have_begun(error: UpstreamUnavailableError | UpstreamTimeoutError) -> bool:
    """Tell whether the provider may have begun on a request that never got an answer, and so may bill it."""
    if isinstance(error, UpstreamUnavailableError):
        return error.delivered
    return error.phase not in ("connect", "tls")


def is_safe(error: UpstreamError) -> bool:
    """Tell whether sending the call again, to the same provider or another, is safe and may help.

    Where this one may be billed, it is safe only while a second bill is covered.
    """
    if isinstance(error, UpstreamUnavailableError | UpstreamTimeoutError):
        return not may_have_begun(error)
    if concerns_key(error):
        return True  # this key or provider will not, another may
    if error.headers.get("x-should-retry") == "false":
        return False
    return isinstance(error, UpstreamProtocolError) or error.status in RETRIED


def concerns_key(error: UpstreamError) -> bool:
    """Tell whether another API key of the same provider may fare better."""
    if error.status == FORBIDDEN:
        return not _OF_THE_PROMPT.search(error.code or "")
    return error.code in ("upstream_auth_error", "insufficient_quota") or error.status == _TOO_MANY


def is_hopeless(error: UpstreamError, patience_s: float) -> bool:
    """Tell whether the same model and key would refuse again, or want us to wait longer than `patience_s`."""
    told_s = retry_after_s(error)
    refused = error.status == FORBIDDEN or error.code in ("insufficient_quota", "upstream_auth_error")
    return refused or (told_s is not None and told_s > patience_s)


def retry_after_s(error: AdapterError | None) -> float | None:
    """Return how many seconds the provider asks to wait, None where it says nothing. A date is to be `dated` first."""
    headers = error.headers if isinstance(error, UpstreamError) else {}
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            told_s = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if 0 <= told_s < float("inf"):
            return told_s
    return None


def dated(error: UpstreamError, answer: Mapping[str, str], now: datetime) -> UpstreamError:
    """Return the error with a `retry-after` that is a date told in seconds; one that has passed is left out.

    It is reckoned from the `date` that the answer itself has, since the provider's clock is not ours; without one, from `now`.
    """
    until = _date(error.headers.get("retry-after", ""))
    if until is None:
        return error
    left_s = math.ceil((until - (_date(answer.get("date", "")) or now)).total_seconds())
    if left_s > 0:
        error.headers["retry-after"] = str(left_s)
    else:
        del error.headers["retry-after"]
    return error


def _date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
