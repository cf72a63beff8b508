"""`bursar top`: what is being spent now, budget by budget, and the latest calls. Plain ANSI, nothing to install."""

import argparse
import asyncio
import json
import shutil
import sys
from dataclasses import dataclass
from typing import Any

from accounting.reading import Balance
from proxy.amounts import rfc3339, usd_text
from proxy.cli.connected import Connected, add_command, misuse, run_connected
from proxy.cli.tables import plain, table
from proxy.cli.talking import ask_ops
from proxy.stored_budgets import row_of

RECORDS, BAR_CHARS = 10, 20
_EXAMPLE = """  bursar top                       refreshes every 2 seconds; Ctrl-C ends it
  bursar top --once                prints once and exits
  bursar top --json | jq .budgets
"""
_SHOWN_METRICS = ("bursar_in_flight", "bursar_store_up", "bursar_settlements_pending", "bursar_overspend_usd_total")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look. `metrics` is None where no proxy of this configuration answers on this machine."""

    at_ms: int
    balances: list[Balance]
    records: list[dict[str, Any]]
    metrics: dict[str, float] | None


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `top` to the commands."""
    parser = add_command(subparsers, "top", "watch what is being spent", _EXAMPLE)
    parser.add_argument("--once", action="store_true", help="print once and exit (as --json does)")
    parser.add_argument("--every", metavar="SECONDS", type=float, default=2.0, help="between two looks (2)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Watch until interrupted; return 0, 1 (no store) or 2 (misuse)."""
    return run_connected("top", args, _run)


async def _run(args: argparse.Namespace, c: Connected) -> int:
    if not 0.1 <= args.every <= 3600:  # noqa: PLR2004
        raise misuse("--every wants 0.1 to 3600 seconds")
    if args.json:
        print(json.dumps(as_json(await look(c)), ensure_ascii=False))
        return 0
    if args.once or not sys.stdout.isatty():
        print(screen(await look(c), shutil.get_terminal_size().columns))
        return 0
    while True:
        text = screen(await look(c), shutil.get_terminal_size().columns)
        print(f"\033[H\033[J{text}", flush=True)
        await asyncio.sleep(args.every)


async def look(c: Connected) -> Seen:
    """Read the balances of all budgets in force, and of the callers that were seen lately. Raises StoreError."""
    newest = await c.store.call("XREVRANGE", c.store.key("u"), "+", "-", "COUNT", RECORDS, deadline_s=2.0)
    records = [
        {**json.loads(fields[1 + fields.index(b"r")]), "at_ms": int(entry.partition(b"-")[0])}
        for entry, fields in newest
    ]
    book = c.book(await c.stored.read())
    own = [budget.subject for budget in book.all() if not budget.subject.endswith(":*")]
    called = [
        f"{kind}:{record[kind]}" for record in records for kind in ("key", "user", "team", "org") if record.get(kind)
    ]
    balances = await c.reader.balances(book.for_subjects(dict.fromkeys([*own, *called])), c.now_ms())
    reply = await ask_ops(c.config, "GET", "/metrics")
    return Seen(
        at_ms=c.now_ms(), balances=balances, records=records, metrics=metrics_of(reply.body.decode()) if reply else None
    )


def metrics_of(text: str) -> dict[str, float]:
    """Return the metrics that are shown, summed over their labels. Source: https://prometheus.io/docs/instrumenting/exposition_formats/"""
    sums: dict[str, float] = {}
    for line in text.splitlines():
        name = line.partition("{")[0].partition(" ")[0]
        if name in _SHOWN_METRICS:
            sums[name] = sums.get(name, 0.0) + float(line.rpartition(" ")[2])
    return sums


def as_json(seen: Seen) -> dict[str, Any]:
    """Return one look as JSON shows it."""
    budgets = [row_of(balance) for balance in seen.balances]
    return {"at": rfc3339(seen.at_ms), "budgets": budgets, "records": seen.records, "metrics": seen.metrics}


def screen(seen: Seen, columns: int) -> str:
    """Return one look as text, no line longer than the terminal is wide."""
    flight = "no proxy answers on this machine"
    if seen.metrics is not None:
        up = "store up" if seen.metrics.get("bursar_store_up") else "STORE DOWN"
        flight = f"{seen.metrics.get('bursar_in_flight', 0):g} calls in flight, {up}"
    lines = [f"bursar  {rfc3339(seen.at_ms)}  {flight}", ""]
    rows = []
    for balance in sorted(seen.balances, key=_fullness, reverse=True):
        row = balance.row
        unit = row.budget.unit
        used, limit = (usd_text(n) if unit == "usd" else n for n in (row.used, row.limit))
        percent = f"{_fullness(balance) * 100:.0f}%"
        rows.append(
            (row.budget.subject, bar(row.used, row.held, row.limit), percent, used, limit, unit, row.budget.period.kind)
        )
    lines.append(
        table(("budget", "used, held", "", "used", "limit", "unit", "period"), rows, right=("", "used", "limit"))
        if rows
        else "no budgets"
    )
    lines += ["", "latest calls" if seen.records else "no calls yet"]
    for each in seen.records:
        cost = "no price" if each.get("cost_nanousd") is None else "$" + usd_text(each["cost_nanousd"])
        who = each.get("user") or each.get("key") or "-"
        lines.append(
            plain(
                f"{rfc3339(each['at_ms'])}  {who}  {each.get('provider')}/{each.get('upstream_model')}  {each.get('outcome')}  {cost}"
            )
        )
    return "\n".join(line[:columns] for line in "\n".join(lines).split("\n"))


def bar(used: int, held: int, limit: int) -> str:
    """Return a bar of fixed width: `#` is used, `+` held, `.` free. What is used is never shown as nothing, nor what is free as full."""
    if limit <= 0:
        return "#" * BAR_CHARS
    full = min(BAR_CHARS, -(-used * BAR_CHARS // limit))
    if full == BAR_CHARS and used < limit:
        full -= 1
    holding = min(BAR_CHARS - full, -(-held * BAR_CHARS // limit))
    return "#" * full + "+" * holding + "." * (BAR_CHARS - full - holding)


def _fullness(balance: Balance) -> float:
    row = balance.row
    return (row.used + row.held) / row.limit if row.limit else 1.0
