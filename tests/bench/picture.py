"""The result as an SVG for the README: one bar a peer, on a logarithmic scale, since they lie orders of magnitude apart."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from statistics import median

from tests.bench.table import Figures

PANELS = (
    ("us_per_call", "CPU per call", "µs"),
    ("us_per_chunk", "CPU per streamed chunk", "µs"),
    ("loaded_mb", "memory under load", "MB"),
    ("ready_s", "time to ready", "s"),
)
_WIDTH, _BAR, _GAP, _LEFT, _RIGHT = 720, 18, 6, 120, 90
_OURS, _OTHERS = "#2f6f4f", "#9aa5b1"


def picture(measured: Mapping[str, Figures], footnote: Sequence[str]) -> str:
    """Return an SVG document; less is better in every panel. Its colours suit light and dark pages."""
    parts, y = [], 24
    for column, title, unit in PANELS:
        bars = {name: median(numbers[column]) for name, numbers in measured.items() if numbers[column]}
        parts.append(
            f'<text x="8" y="{y}" font-weight="600">{escape(title)} ({unit}), logarithmic, less is better</text>'
        )
        y += 12
        for name, value in sorted(bars.items(), key=lambda bar: bar[1]):
            parts.append(_bar(name, value, y, _length(value, bars.values())))
            y += _BAR + _GAP
        y += 22
    for line in footnote:
        parts.append(f'<text x="8" y="{y}" font-size="10" opacity="0.75">{escape(line)}</text>')
        y += 14
    style = "text{font:12px system-ui,sans-serif;fill:#57606a}"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}" viewBox="0 0 {_WIDTH} {y}" role="img">'
    )
    return f"{head}<title>Bursar beside its peers</title><style>{style}</style>{''.join(parts)}</svg>\n"


def _bar(name: str, value: float, y: int, length: float) -> str:
    colour = _OURS if name.startswith("bursar") else _OTHERS
    number = f"{value:.2f}" if value < 10 else f"{value:,.0f}"  # noqa: PLR2004 - two digits are enough there
    return (
        f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>'
        f'<rect x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="2" fill="{colour}"/>'
        f'<text x="{_LEFT + length + 6:.1f}" y="{y + 13}">{number}</text>'
    )


def _length(value: float, others: "Sequence[float] | object") -> float:
    """Return a bar's length: from a tenth of the panel for the least to all of it for the most."""
    values = [v for v in others if v > 0]  # type: ignore[attr-defined]  # any iterable of numbers
    room, low, high = _WIDTH - _LEFT - _RIGHT, math.log(min(values)), math.log(max(values))
    share = (math.log(max(value, min(values))) - low) / (high - low) if high > low else 1.0
    return room * (0.1 + 0.9 * share)
