"""What a budget is, and which budgets a call draws on.

A configured budget with several units becomes several `Budget`s: each counts one unit in one period. All arithmetic is in
integers: nano-USD for `usd`, plain counts for the rest.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias
from urllib.parse import quote

from accounting.periods import Period

Unit: TypeAlias = Literal["usd", "tokens", "input_tokens", "output_tokens", "requests", "concurrency"]
Mode: TypeAlias = Literal["hard", "soft", "shadow"]
HoldPolicy: TypeAlias = Literal["clamp", "full", "slice"]
Outage: TypeAlias = Literal["refuse", "escrow", "allow"]

AMOUNT_MAX = 2**53 - 1  # what Lua can count
SUBJECTS = ("key", "user", "team", "org", "model", "provider", "tag", "tenant")
DEFAULTS_MAX = 20_000
STORED_VERSION = 10**12  # what the commands store wins over any version a file may name


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A limit on one unit for one subject in one period; `limit` in nano-USD or counts."""

    subject: str  # "user:alice", or "user:*": a default for each user that has none of its own
    unit: Unit
    limit: int
    period: Period
    mode: Mode = "hard"
    hold: HoldPolicy = "clamp"
    outage: Outage = "refuse"
    soft: tuple[float, ...] = ()
    version: int = 1

    @cached_property
    def id(self) -> str:
        """The name of its counter: stable across changes of the limit, and safe inside a key."""
        period = self.period
        zone = "" if period.tz == "UTC" else "@" + period.tz
        start = f"@{period.starts.isoformat()}" if period.starts else ""
        return quote(f"{self.subject}|{self.unit}|{period.kind}{zone}{start}", safe="|:@/*+-_.")

    @cached_property
    def binds(self) -> bool:
        """Whether it can refuse a call."""
        return self.mode == "hard"

    def for_subject(self, subject: str) -> "Budget":
        """The same terms for one subject: how a default becomes somebody's own."""
        return replace(self, subject=subject)


class Caller(NamedTuple):
    """Who calls: the identities that budgets and limits may name. None where there is none. Much is looked up by it at each call."""

    tenant: str = "default"
    key: str | None = None
    user: str | None = None
    team: str | None = None
    org: str | None = None
    tags: tuple[str, ...] = ()

    def subjects(self) -> tuple[str, ...]:
        """The caller's own subjects, narrowest first: key, user, team, org, tags, tenant."""
        named = (("key", self.key), ("user", self.user), ("team", self.team), ("org", self.org))
        own = [f"{kind}:{name}" for kind, name in named if name]
        return (*own, *(f"tag:{tag}" for tag in self.tags), f"tenant:{self.tenant}")


def qualified(targets: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Subjects of models named with their provider. `model:*` is not for these: each such model has a plain name, too."""
    return frozenset(f"model:{provider}/{model}" for provider, model in targets)


def route_subjects(targets: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Subjects of the targets that may be tried, each (provider, upstream model): `model:` with and without provider."""
    found: dict[str, None] = {}
    for provider, model in targets:
        for subject in (f"model:{model}", f"model:{provider}/{model}", f"provider:{provider}"):
            found[subject] = None
    return tuple(found)


class BudgetBook:
    """All budgets that are in force, looked up by subject. Built anew when the configuration changes."""

    def __init__(self, file: Iterable[Budget] = (), stored: Iterable[Budget] = ()) -> None:
        chosen: dict[tuple[str, str, Period], Budget] = {}
        for budget in file:
            known = chosen.get((budget.subject, budget.unit, budget.period))
            if known is None or known.version < budget.version:
                chosen[budget.subject, budget.unit, budget.period] = budget
        of_file: dict[tuple[str, str], list[tuple[str, str, Period]]] = {}
        for known_key in chosen:
            of_file.setdefault(known_key[:2], []).append(known_key)
        for budget in stored:  # wins for its subject and unit, whatever the period in the file
            for known_key in of_file.pop((budget.subject, budget.unit), ()):
                del chosen[known_key]
            chosen[budget.subject, budget.unit, budget.period] = budget
        self._by_subject: dict[str, list[Budget]] = {}
        self._defaults: dict[str, list[Budget]] = {}  # made for a subject once, since a call asks for it every time
        for budget in chosen.values():
            self._by_subject.setdefault(budget.subject, []).append(budget)

    def all(self) -> list[Budget]:
        """Every budget, defaults as they are written (`user:*`)."""
        return [budget for group in self._by_subject.values() for budget in group]

    def for_subjects(self, subjects: Iterable[str], *, no_default: frozenset[str] = frozenset()) -> list[Budget]:
        """Budgets that these subjects draw on, in their order; a default where a subject has none of its own."""
        found: list[Budget] = []
        for subject in subjects:
            own = self._by_subject.get(subject)
            if own is not None:
                found.extend(own)
            elif subject not in no_default:
                found.extend(self._default(subject))
        return found

    def _default(self, subject: str) -> list[Budget]:
        made = self._defaults.get(subject)
        if made is None:
            if len(self._defaults) >= DEFAULTS_MAX:  # users may be as many as there are people
                self._defaults.clear()
            kind, _, _ = subject.partition(":")
            made = [budget.for_subject(subject) for budget in self._by_subject.get(f"{kind}:*", ())]
            self._defaults[subject] = made
        return made


def amounts(unit: Unit, *, requests: int, input_tokens: int, output_tokens: int, cost_nanousd: int) -> int:
    """What a finished call takes from a budget of this unit."""
    return amounts_by_unit(requests, input_tokens, output_tokens, cost_nanousd)[unit]


def amounts_by_unit(requests: int, input_tokens: int, output_tokens: int, cost_nanousd: int) -> dict[Unit, int]:
    """What a finished call takes from a budget of each unit."""
    return {
        "usd": cost_nanousd,
        "tokens": input_tokens + output_tokens,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "requests": requests,
        "concurrency": 0,
    }
