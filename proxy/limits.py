"""Limits of speed: requests and tokens per minute, and calls at once, by subject. Kept in the store, in the same call as budgets.

A call that may be tried at several targets counts against the limits of all of them.
"""

from collections.abc import Iterable, Sequence

from accounting.ask import Ask, Rate, Worst
from accounting.budgets import Budget, Caller, qualified, route_subjects
from accounting.periods import Period
from proxy.config.policy import Limit

_FOREVER = Period(kind="total")


class LimitBook:
    """The limits of one configuration, looked up by subject; `*` is the default for subjects without a limit of their own."""

    def __init__(self, limits: Iterable[Limit]) -> None:
        self._by_subject = {limit.subject: limit for limit in limits}

    def of(self, caller: Caller, routes: Sequence[tuple[str, str]] = ()) -> list[tuple[str, Limit]]:
        """Return the limits that bind a caller on its way to these (provider, model), each with the subject it counts for."""
        if not self._by_subject:
            return []
        found, no_default = [], qualified(routes)
        for subject in (*caller.subjects(), *route_subjects(routes)):
            limit = self._by_subject.get(subject)
            if limit is None and subject not in no_default:
                limit = self._by_subject.get(subject.partition(":")[0] + ":*")
            if limit is not None:
                found.append((subject, limit))
        return found


def rates(limits: Iterable[tuple[str, Limit]], worst: Worst) -> tuple[Rate, ...]:
    """Return the limits per minute that a call counts against."""
    found: list[Rate] = []
    for subject, limit in limits:
        if limit.rpm is not None:
            found.append(Rate(subject, "requests", limit.rpm, 1, 0))
        if limit.tpm is not None:
            found.append(Rate(subject, "tokens", limit.tpm, worst.input_tokens, worst.choices))
    return tuple(found)


def lowered(ask: Ask) -> bool:
    """Tell whether a limit of tokens per minute grants less output than is wanted, however little of it is used: as `reserve.lua` has it."""
    for rate in ask.rates:
        if rate.per_output and rate.fixed + rate.per_output * ask.least <= rate.limit:
            fit = (rate.limit - rate.fixed) // rate.per_output
            if ask.share_permille:
                fit = min(fit, max(ask.least, fit * ask.share_permille // 1000))
            if fit < ask.wanted:
                return True
    return False


def concurrency(limits: Iterable[tuple[str, Limit]]) -> tuple[Budget, ...]:
    """Return the limits on calls at once: each call holds one and uses none."""
    return tuple(
        Budget(subject=subject, unit="concurrency", limit=limit.concurrency, period=_FOREVER, outage="allow")
        for subject, limit in limits
        if limit.concurrency is not None
    )
