"""Compares what a budget's counters say with the usage records of its current window, and says why they differ. Pure.

A call belongs to the window in which it was admitted, a record carries the time at which it was settled and how long the call
took; calls within two seconds of the window's edge may belong to either side.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accounting.budgets import Budget, Caller, amounts, route_subjects
from accounting.reading import Balance

EDGE_MS = 2_000
Routes = Callable[
    [str], Iterable[tuple[str, str]]
]  # the name a client sent -> (provider, upstream model) that may be tried


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One budget's counters beside its records. `difference` is what is used less what records and adjustments sum to."""

    budget: Budget
    used: int
    recorded: int
    adjusted: int
    held: int
    holds: int
    over: int
    late: int
    difference: int
    causes: tuple[str, ...]
    explained: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What is known of a budget's current window. `covered`: the records go back to its start."""

    start_ms: int
    covered: bool
    adjusted: int
    open_amounts: tuple[int, ...]


def subjects_of(record: Mapping[str, Any], tenant: str, routes: Routes) -> set[str]:
    """Return the subjects that a recorded call drew on."""
    caller = Caller(
        tenant=tenant, key=record.get("key"), user=record.get("user"), team=record.get("team"), org=record.get("org"),
        tags=tuple(record.get("tags") or ()),
    )  # fmt: skip
    tried = [*routes(str(record.get("model") or ""))]
    if record.get("provider"):
        tried.append((str(record["provider"]), str(record["upstream_model"])))
    return {*caller.subjects(), *route_subjects(tried)}


def start_ms(budget: Budget, now_ms: int) -> int:
    """Return where the current window starts; a rolling one starts with its oldest bucket."""
    window = budget.period.window(now_ms)
    return (now_ms // window.bucket_ms - 60) * window.bucket_ms if window.bucket_ms else window.start_ms


def compare(balance: Balance, window: Window, records: Sequence[Mapping[str, Any]]) -> Compared:
    """Compare one budget with the records of the calls that drew on it, oldest first."""
    budget, row = balance.row.budget, balance.row
    inside = [each for each in records if admitted_ms(each) >= window.start_ms]
    recorded = sum(amount(budget, each) for each in inside)
    difference = row.used - recorded - window.adjusted
    causes, explained = _causes(balance, window, records, inside, difference)
    open_sum = sum(window.open_amounts)
    if open_sum != row.held:
        causes.append(
            f"{row.held} is held, but the open holds sum to {open_sum}: a call was in between, or a hold was lost"
        )
        explained = False
    return Compared(
        budget=budget, used=row.used, recorded=recorded, adjusted=window.adjusted, held=row.held, holds=len(window.open_amounts),
        over=balance.over, late=balance.late, difference=difference, causes=tuple(causes), explained=explained,
    )  # fmt: skip


def amount(budget: Budget, record: Mapping[str, Any]) -> int:
    """Return what a recorded call took from a budget."""
    return amounts(
        budget.unit, requests=int(_worked(record)), input_tokens=record.get("input") or 0, output_tokens=record.get("output") or 0,
        cost_nanousd=record.get("cost_nanousd") or 0,
    )  # fmt: skip


def admitted_ms(record: Mapping[str, Any]) -> int:
    """Return when the call was admitted, as near as the record knows."""
    return int(record["at_ms"]) - int(record.get("ms") or 0)


def _causes(
    balance: Balance,
    window: Window,
    records: Sequence[Mapping[str, Any]],
    inside: Sequence[Mapping[str, Any]],
    difference: int,
) -> tuple[list[str], bool]:
    budget = balance.row.budget
    if difference == 0:
        return [], True
    if not window.covered:
        return ["records of this window were trimmed"], True
    edge = [amount(budget, each) for each in records if abs(admitted_ms(each) - window.start_ms) <= EDGE_MS]
    if edge and abs(difference) <= sum(edge):
        return ["calls at the edge of the window belong to either side"], True
    if budget.unit == "requests" and 0 < difference <= sum(1 for each in inside if not _worked(each)):
        return ["calls that failed may have reached a provider, and count"], True
    younger = len(inside) - balance.calls
    if younger > 0 and difference == -sum(amount(budget, each) for each in inside[:younger]):
        return [f"the budget is younger than {younger} of these calls"], True
    if balance.calls > len(inside):
        return [
            f"{balance.calls - len(inside)} settled calls have no record: they were trimmed, or the routes have changed"
        ], False
    if younger > 0:
        return [f"{younger} recorded calls did not draw on it: its terms or the routes have changed"], False
    return ["none that is known: look at the audit stream, and at what else writes to this store"], False


def _worked(record: Mapping[str, Any]) -> bool:
    """Tell whether a provider surely worked on it; of a failed call without usage the record does not say."""
    return record.get("outcome") == "ok" or bool(record.get("input") or record.get("output"))
