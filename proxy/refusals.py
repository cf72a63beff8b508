"""Explains the ledger's refusals to the client, so that no one has to guess which budget said no, or whether to try again."""

import math

from accounting.hold import BudgetRefusedError, LearningError, RateRefusedError, RefusedError
from proxy.amounts import budget_row, rfc3339, said, shown
from proxy.errors import ClientError, unavailable

_PER = {"total": "in total", "cycle": "per billing cycle"}


def refusal(error: RefusedError) -> ClientError:
    """Return the client's answer to any refusal of the ledger."""
    if isinstance(error, BudgetRefusedError):
        return _held(error) if error.held_only else _spent(error)
    if isinstance(error, RateRefusedError):
        return _too_fast(error)
    if isinstance(error, LearningError):
        seconds = max(1, math.ceil(error.wait_ms / 1000))
        return unavailable(
            "The budget store was restarted and is being told what was held.",
            code="budget_store_unavailable",
            retry_after_s=seconds,
        )
    return unavailable("The configuration is changing.", code="budget_store_unavailable")


def _spent(error: BudgetRefusedError) -> ClientError:
    row = error.row
    unit, kind = row.budget.unit, row.budget.period.kind
    headers = {"x-should-retry": "false"}
    reset = "it does not reset"
    if row.resets_ms is not None:
        seconds = max(1, math.ceil((row.resets_ms - error.now_ms) / 1000))
        headers["retry-after"] = str(seconds)
        reset = f"it resets at {rfc3339(row.resets_ms)}"
    message = (
        f"Budget of {row.budget.subject} is used up: {said(unit, row.used)} of {said(unit, row.limit)} "
        f"{_PER.get(kind, 'per ' + kind)} used, {said(unit, row.held)} held by calls in flight, "
        f"and this call needs {said(unit, error.requested)}; {reset}."
    )
    return ClientError(
        429,
        message,
        type="insufficient_quota",
        code="insufficient_quota",
        headers=headers,
        extra={"budget": _row(error)},
    )


def _held(error: BudgetRefusedError) -> ClientError:
    row = error.row
    unit = row.budget.unit
    message = (
        f"Budget of {row.budget.subject} has room, but {said(unit, row.held)} of {said(unit, row.limit)} are held by calls "
        f"in flight, and this call needs {said(unit, error.requested)}. Try again in a moment."
    )
    headers = {"retry-after": "1", "x-should-retry": "true"}
    return ClientError(
        429, message, type="rate_limit_error", code="budget_held", headers=headers, extra={"budget": _row(error)}
    )


def _row(error: BudgetRefusedError) -> dict[str, object]:
    return {**budget_row(error.row), "requested": shown(error.row.budget.unit, error.requested)}


def _too_fast(error: RateRefusedError) -> ClientError:
    row, wait_s = error.row, max(0.001, error.wait_ms / 1000)
    per = "calls at once" if row.what == "concurrency" else f"{row.what} per minute"
    headers = {"retry-after": str(math.ceil(wait_s)), "retry-after-ms": str(error.wait_ms)}
    if row.what != "concurrency":
        headers |= {
            f"x-ratelimit-limit-{row.what}": str(row.limit),
            f"x-ratelimit-remaining-{row.what}": "0",
            f"x-ratelimit-reset-{row.what}": f"{wait_s:.3f}s",
        }
    return ClientError(
        429,
        f"Rate limit reached for {row.subject}: {row.limit} {per}. Try again in {wait_s:.2f} s.",
        type="rate_limit_error",
        code="rate_limit_exceeded",
        headers=headers,
    )
