"""From trials to a table: medians over the rounds, the spread beside them, and how many times the floor and Bursar each is."""

from collections.abc import Mapping, Sequence
from statistics import median

from tests.bench.trial import Latency, Result

COLUMNS = {
    "us_per_call": ("CPU µs/call", 0), "us_per_chunk": ("CPU µs/chunk", 1), "calls_per_s": ("calls/s", 0),
    "added_p50_ms": ("added p50 ms", 2), "added_p99_ms": ("added p99 ms", 2), "cold_p50_ms": ("at 40/s p50 ms", 2), "idle_mb": ("MB idle", 0),
    "loaded_mb": ("MB loaded", 0), "ready_s": ("ready s", 2), "store_us_per_call": ("store µs/call", 0),
}  # fmt: skip

Figures = dict[str, list[float]]  # of one peer: by column, one number for each round


def figures(results: Sequence[Result], direct: Sequence[Latency]) -> Figures:
    """Return one peer's numbers by column; `direct` is the latency without a proxy, of the same rounds."""
    found: Figures = {name: [] for name in COLUMNS}
    for result, bare in zip(results, direct, strict=True):
        seen = result.latency
        row = result.dump() | {
            "added_p50_ms": seen.p50_ms - bare.p50_ms, "added_p99_ms": seen.p99_ms - bare.p99_ms,
            "cold_p50_ms": seen.cold_p50_ms - bare.cold_p50_ms,
        }  # fmt: skip
        for name, values in found.items():
            if (value := row[name]) is not None:
                values.append(value)
    return found


def table(measured: Mapping[str, Figures]) -> str:
    """Return Markdown: a row for each peer, `median (lowest–highest)` in each cell."""
    rows = [["", *(title for title, _ in COLUMNS.values())]]
    for name, numbers in measured.items():
        rows.append([name, *(_cell(numbers[column], digits) for column, (_, digits) in COLUMNS.items())])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def ratios(measured: Mapping[str, Figures]) -> str:
    """Return, for CPU per call and per chunk, how many times nginx and Bursar each peer is."""
    lines = []
    for column in ("us_per_call", "us_per_chunk"):
        for base in ("nginx", "bursar"):
            if base not in measured or not (floor := median(measured[base][column])):
                continue
            parts = [
                f"{name} {median(numbers[column]) / floor:.1f}" for name, numbers in measured.items() if name != base
            ]
            if parts:
                lines.append(f"{COLUMNS[column][0]}, times {base}: " + ", ".join(parts))
    return "\n".join(lines)


def _cell(values: Sequence[float], digits: int) -> str:
    if not values:
        return "–"
    shown = f"{median(values):.{digits}f}"
    return shown if len(values) == 1 else f"{shown} ({min(values):.{digits}f}–{max(values):.{digits}f})"
