"""`bursar usage`: what was spent, by whom and on what; or the usage records themselves, for a spreadsheet or another program."""

import argparse
import json
import sys
from typing import Any

from accounting.spending import FILTERS, GROUPS, RECORD_FIELDS, total
from proxy import spelled
from proxy.amounts import rfc3339, usd_text
from proxy.cli.connected import Connected, add_command, misuse, run_connected
from proxy.cli.tables import csv_line, table
from proxy.reporting import Report, records, records_missing, report

_EXAMPLE = """  bursar usage --since 2026-11-01 --by user        whole days, from the totals (kept 400 days)
  bursar usage --since 24h --by model --user alice  any span, from the records (the latest 100,000)
  bursar usage --records --since 7d --csv > usage.csv
"""
_SUMS = ("calls", "input_tokens", "output_tokens", "cost_usd")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `usage` to the commands."""
    parser = add_command(subparsers, "usage", "show what was spent", _EXAMPLE)
    parser.add_argument(
        "--since", metavar="WHEN", default="today", help="2026-11-01 (UTC), 24h, 30d or today (the default)"
    )
    parser.add_argument("--by", choices=GROUPS, help="group by this (model)")
    for name in FILTERS:
        parser.add_argument(f"--{name}", metavar="NAME", help=f"only this {name}")
    parser.add_argument("--records", action="store_true", help="one line per call, as JSON lines or CSV")
    parser.add_argument("--csv", action="store_true", help="print CSV")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print what was spent; return 0, 1 (no store) or 2 (misuse)."""
    return run_connected("usage", args, _run)


async def _run(args: argparse.Namespace, c: Connected) -> int:
    if args.csv and args.json:
        raise misuse("--csv and --json exclude each other: give one")
    if args.records and args.by:
        raise misuse("--records are not grouped: leave out --by")
    now_ms = c.now_ms()
    try:
        since_ms = spelled.since_ms(args.since, now_ms)
    except ValueError as error:
        raise misuse(f"--since: {error}") from error
    only = {name: value for name in FILTERS if (value := getattr(args, name)) is not None}
    if args.records:
        return await _records(args, c, since_ms, only)
    found = await report(c.store, since_ms=since_ms, now_ms=now_ms, by=args.by or "model", only=only)
    print(_shown(found, args))
    return 0


async def _records(args: argparse.Namespace, c: Connected, since_ms: int, only: dict[str, str]) -> int:
    if args.csv:
        print(csv_line(RECORD_FIELDS))
    async for record in records(c.store, since_ms=since_ms, only=only):
        row = {"at": rfc3339(record["at_ms"]), **record}
        print(csv_line(_cell(row, name) for name in RECORD_FIELDS) if args.csv else json.dumps(row, ensure_ascii=False))
    missing = await records_missing(c.store, since_ms)
    if missing:
        _warn(missing)
    return 0


def _cell(row: dict[str, Any], name: str) -> object:
    value = row.get(name)
    return ";".join(map(str, value)) if isinstance(value, list) else value


def _shown(found: Report, args: argparse.Namespace) -> str:
    if args.json:
        return json.dumps(found.as_json(), ensure_ascii=False)
    rows = [(name or None, each) for name, each in found.groups.items()]
    if args.csv:
        lines = [(name, s.calls, s.input_tokens, s.output_tokens, usd_text(s.cost_nanousd)) for name, s in rows]
        return "\n".join(csv_line(line) for line in [(found.by, *_SUMS), *lines])
    if found.missing:
        _warn(found.missing)
    if not rows:
        return f"nothing was spent since {rfc3339(found.since_ms)}"
    named = [*rows, ("all", total(found.groups.values()))] if len(rows) > 1 else rows
    cells = [(name, s.calls, s.input_tokens, s.output_tokens, usd_text(s.cost_nanousd)) for name, s in named]
    unpriced = sum(each.unpriced or 0 for each in found.groups.values())
    note = f"\n{unpriced} calls have no known price: see bursar prices check" if unpriced else ""
    return (
        table((found.by, "calls", "input", "output", "cost USD"), cells, right=("calls", "input", "output", "cost USD"))
        + note
    )


def _warn(text: str) -> None:
    print(f"bursar usage: {text}", file=sys.stderr)
