"""One metrics page from those of several processes: counters add up, gauges by what each means. Pure.

A worker that ends takes its counters with it, and a sum that falls looks to Prometheus like a restart of everything; so `counters` of a
dead worker's last page go on being added.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from prometheus_client.utils import floatToGoString

_LEAST = ("bursar_store_up", "bursar_upstream_up")  # of all: 1 only where every worker says so
_MOST = ("bursar_budget_limit", "bursar_budget_used", "bursar_budget_held")  # all read the same store: the latest word
_ADDING = ("counter", "histogram", "summary")


@dataclass(slots=True)
class Family:
    """One metric: its comment lines, its type, and its samples by name with labels, as written."""

    comments: list[str] = field(default_factory=list)
    type: str = "untyped"
    samples: dict[str, float] = field(default_factory=dict)


Page = dict[str, Family]  # by family name, in the order of the page


def parse(text: str) -> Page:
    """Read Prometheus's text format. Source: https://prometheus.io/docs/instrumenting/exposition_formats/"""
    page: Page = {}
    family = Family()
    for line in text.splitlines():
        if line.startswith("# "):
            _, word, name, rest = (*line.split(" ", 3), "")[:4]
            family = page.setdefault(name, Family())
            family.comments.append(line)
            if word == "TYPE":
                family.type = rest
        elif line:
            sample, _, value = line.rpartition(" ")
            family.samples[sample] = float(value)
    return page


def merge(pages: Iterable[Page]) -> Page:
    """Return one page with the metrics of all."""
    merged: Page = {}
    for page in pages:
        for name, family in page.items():
            known = merged.setdefault(name, Family(comments=family.comments, type=family.type))
            join = _joining(name, family.type)
            for sample, value in family.samples.items():
                known.samples[sample] = join(known.samples[sample], value) if sample in known.samples else value
    return merged


def counters(page: Page) -> Page:
    """Return what of a dead process's page still counts."""
    return {name: family for name, family in page.items() if family.type in _ADDING}


def text(page: Page) -> str:
    """Write a page."""
    lines: list[str] = []
    for family in page.values():
        lines += family.comments
        for sample, value in family.samples.items():
            lines.append(f"{sample} {floatToGoString(value)}")  # type: ignore[no-untyped-call]
    return "\n".join(lines) + "\n" if lines else ""


def _joining(name: str, kind: str) -> Callable[[float, float], float]:
    if kind in _ADDING:
        return float.__add__
    if name in _LEAST or name.endswith("_created"):
        return min
    return max if name in _MOST else float.__add__
