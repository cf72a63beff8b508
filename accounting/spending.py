"""Adds up what was spent: from usage records, or from the totals of whole days. Pure; every sum is of integers.

Totals go back further than records but know whole UTC days only, by the day on which a call was admitted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

By = Literal["key", "user", "team", "model", "provider", "day"]
GROUPS: tuple[By, ...] = ("key", "user", "team", "model", "provider", "day")
FILTERS = ("key", "user", "team", "model", "provider")
RECORD_FIELDS = (
    "at", "id", "key", "user", "team", "org", "tags", "model", "provider", "upstream_model", "response_model", "input", "cached",
    "cache_write", "output", "reasoning", "cost_nanousd", "price", "estimated", "outcome", "ms", "reserved",
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Sum:
    """What one group spent. `unpriced` calls have a cost that nobody knows (None: totals do not tell)."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nanousd: int = 0
    unpriced: int | None = None

    def add(self, other: "Sum") -> None:
        """Add another group to this one."""
        self.calls += other.calls
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cost_nanousd += other.cost_nanousd
        if other.unpriced is not None:
            self.unpriced = (self.unpriced or 0) + other.unpriced


def of_records(records: Iterable[Mapping[str, Any]], by: By) -> dict[str, Sum]:
    """Return the sums of usage records, dearest group first (days in order). Absent names are grouped under ''."""
    sums: dict[str, Sum] = {}
    for record in records:
        cost = record.get("cost_nanousd")
        part = Sum(
            calls=1, input_tokens=_count(record, "input"), output_tokens=_count(record, "output"),
            cost_nanousd=cost or 0, unpriced=int(cost is None),
        )  # fmt: skip
        sums.setdefault(_group(record, by), Sum()).add(part)
    return ordered(sums, by)


def of_totals(
    days: Mapping[str, Mapping[tuple[str, str, str, str], Mapping[str, int]]], by: By, only: Mapping[str, str]
) -> dict[str, Sum]:
    """Return the sums of days' totals ({YYYYMMDD: rows as `Reader.totals` returns them}) for the rows that `only` names."""
    sums: dict[str, Sum] = {}
    for day, rows in days.items():
        for (key, user, team, route), row in rows.items():
            provider, _, model = route.partition("/")
            names = {
                "key": key,
                "user": user,
                "team": team,
                "provider": provider,
                "model": model,
                "day": f"{day[:4]}-{day[4:6]}-{day[6:]}",
            }
            if all(names[name] == value for name, value in only.items()):
                part = Sum(
                    calls=row["n"], input_tokens=row["input"], output_tokens=row["output"], cost_nanousd=row["cost"]
                )
                sums.setdefault(names[by], Sum()).add(part)
    return ordered(sums, by)


def ordered(sums: Mapping[str, Sum], by: By) -> dict[str, Sum]:
    """Return the groups with the dearest first, days by date."""
    if by == "day":
        return dict(sorted(sums.items()))
    return dict(sorted(sums.items(), key=lambda item: (-item[1].cost_nanousd, -item[1].calls, item[0])))


def chosen(record: Mapping[str, Any], only: Mapping[str, str]) -> bool:
    """Tell whether a record is of the key, user … that `only` names; `model` is the upstream model."""
    return all((_named(record, name) or "") == value for name, value in only.items())


def total(sums: Iterable[Sum]) -> Sum:
    """Return the sum of all groups."""
    whole = Sum()
    for each in sums:
        whole.add(each)
    return whole


def utc_days(since_ms: int, now_ms: int) -> list[str]:
    """Return the days from one moment to another, both included, as YYYYMMDD."""
    day_ms = 86_400_000
    return [
        datetime.fromtimestamp(day * day_ms / 1000, UTC).strftime("%Y%m%d")
        for day in range(since_ms // day_ms, now_ms // day_ms + 1)
    ]


def _group(record: Mapping[str, Any], by: By) -> str:
    if by == "day":
        return datetime.fromtimestamp(record["at_ms"] / 1000, UTC).strftime("%Y-%m-%d")
    return _named(record, by) or ""


def _named(record: Mapping[str, Any], name: str) -> str | None:
    value = record.get("upstream_model" if name == "model" else name)
    return None if value is None else str(value)


def _count(record: Mapping[str, Any], name: str) -> int:
    value = record.get(name)
    return value if isinstance(value, int) else 0
