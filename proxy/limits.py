"""Limits of speed: requests and tokens per minute, and calls at once, by subject. Kept in the store, in the same call as budgets.

A call that may be tried at several targets counts against the limits of all of them.
"""

from collections.abc import Iterable

from accounting.ask import Draw, Rate, Worst
from accounting.budgets import Budget, Caller, route_subjects
from accounting.periods import Period
from proxy.config.policy import Limit

_FOREVER = Period(kind="total")


class LimitBook:
    """The limits of one configuration, looked up by subject; `*` is the default for subjects without a limit of their own."""

    def __init__(self, limits: Iterable[Limit]) -> None:
        self._by_subject = {limit.subject: limit for limit in limits}

    def of(self, caller: Caller, routes: Iterable[tuple[str, str]] = ()) -> list[tuple[str, Limit]]:
        """Return the limits that bind a caller on its way to these (provider, model), each with the subject it counts for."""
        found = []
        for subject in (*caller.subjects(), *route_subjects(routes)) if self._by_subject else ():
            kind, _, name = subject.partition(":")
            limit = self._by_subject.get(subject)
            if limit is None and not (kind == "model" and "/" in name):  # such a model has a second name without it
                limit = self._by_subject.get(f"{kind}:*")
            if limit is not None:
                found.append((subject, limit))
        return found

    def rates(self, caller: Caller, worst: Worst, routes: Iterable[tuple[str, str]] = ()) -> tuple[Rate, ...]:
        """Return the limits per minute that a call counts against."""
        rates = []
        for subject, limit in self.of(caller, routes):
            if limit.rpm is not None:
                rates.append(Rate(subject=subject, what="requests", limit=limit.rpm, fixed=1, per_output=0))
            if limit.tpm is not None:
                rates.append(
                    Rate(
                        subject=subject,
                        what="tokens",
                        limit=limit.tpm,
                        fixed=worst.input_tokens,
                        per_output=worst.choices,
                    )
                )
        return tuple(rates)

    def concurrency(self, caller: Caller, routes: Iterable[tuple[str, str]] = ()) -> tuple[Draw, ...]:
        """Return the limits on calls at once: each call holds one and uses none."""
        return tuple(
            Draw(
                Budget(subject=subject, unit="concurrency", limit=limit.concurrency, period=_FOREVER, outage="allow"),
                1,
                0,
            )
            for subject, limit in self.of(caller, routes)
            if limit.concurrency is not None
        )
