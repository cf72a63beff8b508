"""Counters and histograms for what every call counts: a number added where it happens, told in Prometheus's form at each scrape.

prometheus-client's own take a lock and check each label at every step, which a scrape each 15 seconds does not need. What a
stranger would get wrong: all numbers are written by the loop's thread alone; a scrape, in another thread, only reads.
"""

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

Labels: TypeAlias = tuple[str, ...]


class Sum:
    """One number of a counter: add to `total` what happens, never less than nothing."""

    __slots__ = ("total",)

    def __init__(self) -> None:
        self.total = 0.0


class Sums(Collector):
    """A counter, by label values. One that is still 0 is not told. There are as many as were asked for: label values must be bounded."""

    def __init__(self, registry: CollectorRegistry, name: str, help_: str, labels: Sequence[str]) -> None:
        self._name, self._help, self._labels = name, help_, labels
        self._sums: dict[Labels, Sum] = {}
        registry.register(self)

    def of(self, labels: Labels) -> Sum:
        """Return the sum of these label values, which may be kept."""
        known = self._sums.get(labels)
        if known is None:
            known = self._sums[labels] = Sum()
        return known

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(self._name, self._help, labels=self._labels)
        for labels, known in list(self._sums.items()):
            if known.total:
                family.add_metric(labels, known.total)
        yield family


class Spread:
    """How many values fell between which bounds, and their sum. `note` takes a value; whoever notes must `fold` now and then."""

    __slots__ = ("_bounds", "_counts", "_folding", "_noted", "_total", "note")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds, self._total = bounds, 0.0
        self._counts = [0] * (len(bounds) + 1)
        self._noted: list[float] = []
        self._folding = threading.Lock()  # a scrape folds, too
        self.note: Callable[[float], None] = (
            self._noted.append
        )  # what becomes of a value is found out later, of many at once

    def fold(self) -> tuple[list[int], float]:
        """Count what was noted; return how many values are below each bound, and the sum of all."""
        with self._folding:
            count = len(self._noted)
            values, counts = self._noted[:count], self._counts
            del self._noted[:count]
            for value in values:
                counts[bisect_left(self._bounds, value)] += 1
            self._total += sum(values)
            return list(accumulate(counts)), self._total


class Spreads(Collector):
    """A histogram, by label values; `of` may show those of another under a second name."""

    def __init__(
        self,
        registry: CollectorRegistry,
        name: str,
        help_: str,
        labels: Sequence[str] = (),
        *,
        bounds: Sequence[float],
        of: "Spreads | None" = None,
    ) -> None:
        self._name, self._help, self._labels, self._bounds = name, help_, labels, bounds
        self._les = [*map(floatToGoString, bounds), "+Inf"]
        self._spreads: dict[Labels, Spread] = {} if of is None else of._spreads  # noqa: SLF001 - one of us
        if not labels:
            self.of(())
        registry.register(self)

    def of(self, labels: Labels) -> Spread:
        """Return the spread of these label values, which may be kept."""
        spread = self._spreads.get(labels)
        if spread is None:
            spread = self._spreads[labels] = Spread(self._bounds)
        return spread

    def fold(self) -> None:
        """Count what was noted, so that it takes no more room."""
        for spread in list(self._spreads.values()):
            spread.fold()

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._help, labels=self._labels)
        for labels, spread in list(self._spreads.items()):
            counts, total = spread.fold()
            family.add_metric(labels, list(zip(self._les, counts, strict=True)), total)
        yield family
