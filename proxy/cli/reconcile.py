"""`bursar reconcile`: checks the counters of every budget against the usage records, the adjustments and the open holds."""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from accounting.adjusting import audit_entries
from accounting.budgets import Budget
from accounting.reading import Balance
from accounting.reconciling import Compared, Window, compare, start_ms, subjects_of
from accounting.settlement import RECORDS_MAX
from proxy.amounts import shown, usd_text
from proxy.cli.connected import CommandError, Connected, add_command, run_connected
from proxy.cli.tables import table
from proxy.cli.unsent import looked_at
from proxy.reporting import oldest_record_ms
from proxy.routing import Router

_EXAMPLE = """  bursar reconcile                     exit code 1 if a difference cannot be explained
  bursar reconcile --json | jq '.[] | select(.explained | not)'
"""
TRIES = 5


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `reconcile` to the commands."""
    parser = add_command(subparsers, "reconcile", "check the counters against the usage records", _EXAMPLE)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Compare; return 0, 1 (an unexplained difference) or 2 (misuse)."""
    return run_connected("reconcile", args, _run)


async def _run(args: argparse.Namespace, c: Connected) -> int:
    found = await compared(c)
    if args.json:
        print(json.dumps([_json(each) for each in found], ensure_ascii=False))
    elif found:
        head = ("subject", "unit", "period", "used", "recorded", "adjusted", "held", "holds", "difference", "cause")
        rows = [
            (e.budget.subject, e.budget.unit, e.budget.period.kind, *(_money(e, n) for n in (e.used, e.recorded, e.adjusted, e.held)),
             e.holds, _money(e, e.difference), _why(e))
            for e in found
        ]  # fmt: skip
        print(table(head, rows, right=head[3:9]))
    else:
        print("no budgets, nothing to compare")
    return 0 if all(each.explained for each in found) else 1


async def compared(c: Connected) -> list[Compared]:
    """Compare every budget in force that has been drawn on; tries again while calls settle in between. Raises StoreError."""
    for _ in range(TRIES):
        now_ms = c.now_ms()
        book = c.book(await c.stored.read())
        oldest_ms = await oldest_record_ms(c.store) or 0
        trimmed = int(await c.store.call("XLEN", c.store.key("u"))) >= RECORDS_MAX
        own = [budget for budget in book.all() if not budget.subject.endswith(":*")]
        starts = [start_ms(budget, now_ms) for budget in book.all()]
        records, drawn = await _records(c, min(starts, default=now_ms))
        corrected = [e["subject"] async for e in audit_entries(c.store) if e.get("what") == "budget.adjust"]
        called = [subject for each in drawn for subject in sorted(each)]
        subjects = dict.fromkeys([*(budget.subject for budget in own), *corrected, *called])
        budgets = book.for_subjects(subjects)
        before = await c.reader.balances(budgets, now_ms)
        windows = [await _window(c, balance, now_ms, oldest_ms if trimmed else 0) for balance in before]
        again, _ = await _records(c, min(starts, default=now_ms))
        if await c.reader.balances(budgets, now_ms) == before and len(again) == len(records):
            return [
                compare(
                    balance,
                    window,
                    [r for r, who in zip(records, drawn, strict=True) if balance.row.budget.subject in who],
                )
                for balance, window in zip(before, windows, strict=True)
            ]
    raise CommandError("calls settle faster than the counters can be read: try again in a quieter moment")


async def _records(c: Connected, since_ms: int) -> tuple[list[dict[str, Any]], list[set[str]]]:
    router = Router(c.config.models, looked_at(c.config))
    records = [record async for record in c.reader.records(since_ms=max(0, since_ms))]
    return records, [subjects_of(r, c.config.tenant, lambda m: [t.names for t in router.targets(m)]) for r in records]


async def _window(c: Connected, balance: Balance, now_ms: int, oldest_ms: int) -> Window:
    budget, begin_ms = balance.row.budget, start_ms(balance.row.budget, now_ms)
    holds = await c.store.call("ZRANGEBYSCORE", balance.row.holds_key, f"({now_ms}", "+inf")
    return Window(
        start_ms=begin_ms, covered=oldest_ms <= begin_ms, adjusted=await _adjusted(c, budget, begin_ms, now_ms),
        open_amounts=tuple(int(member.rpartition(b"|")[2]) for member in holds),
    )  # fmt: skip


async def _adjusted(c: Connected, budget: Budget, since_ms: int, now_ms: int) -> int:
    key = budget.period.window(now_ms).key
    return sum([
        entry.get("applied", 0) async for entry in audit_entries(c.store, since_ms=max(0, since_ms))
        if entry.get("what") == "budget.adjust" and entry.get("budget") == budget.id and entry.get("window") == key
    ])  # fmt: skip


def _json(each: Compared) -> dict[str, Any]:
    unit = each.budget.unit
    names: Sequence[str] = ("used", "recorded", "adjusted", "held", "over", "late", "difference")
    return {
        "subject": each.budget.subject, "unit": unit, "period": each.budget.period.kind,
        **{name: shown(unit, getattr(each, name)) for name in names},
        "holds": each.holds, "causes": list(each.causes), "explained": each.explained,
    }  # fmt: skip


def _money(each: Compared, amount: int) -> str | int:
    return usd_text(amount) if each.budget.unit == "usd" else amount


def _why(each: Compared) -> str:
    told = [*each.causes]
    if each.over:
        told.append(f"over holds: {_money(each, each.over)}")
    if each.late:
        told.append(f"settled late: {_money(each, each.late)}")
    return "; ".join(told) or "equal"
