"""`bursar budget`: sets, shows, corrects and removes budgets. A running proxy sees a change on its next call."""

import argparse
import json
from collections.abc import Awaitable, Callable
from typing import Any

from proxy import spelled
from proxy.amounts import said, usd_text
from proxy.cli.budget_words import LISTED, UNITS, add_terms, spelled_budgets
from proxy.cli.connected import CommandError, Connected, add_command, misuse, run_connected
from proxy.cli.tables import plain, table
from proxy.stored_budgets import BudgetDesk, budgets_of, subject_of
from proxy.stored_keys import UnfitError

_EXAMPLE = """  bursar budget set alice --usd 5/day --tokens 2M/month
  bursar budget get alice
  bursar budget adjust alice --usd -0.50 --reason "provider refunded the outage"
  bursar budget remove alice
"""
_SET = """  bursar budget set alice --usd 5/day                          (a subject without a kind is a user)
  bursar budget set 'user:*' --usd 20 --period month --tz Europe/Berlin
  bursar budget set team:research --usd 500/month --requests 1000/hour --soft 0.5,0.8
  bursar budget set org:acme --usd 1000 --period cycle --starts 2026-11-05
"""
_ADJUST = """  bursar budget adjust alice --usd -0.50 --reason "provider refunded the outage"
  bursar budget adjust team:research --tokens 20k --period day --reason "batch run outside of Bursar"
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `budget` and its verbs to the commands."""
    parser = subparsers.add_parser(
        "budget", help="set, show, correct and remove budgets", description="Budgets kept in the store; they win over the file's.",
        epilog=f"example:\n{_EXAMPLE}", formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    verbs = parser.add_subparsers(metavar="VERB", required=True, dest="verb")
    put = add_command(verbs, "set", "set what a subject may spend", _SET)
    get = add_command(verbs, "get", "show a subject's budgets", "  bursar budget get alice --json\n")
    add_command(verbs, "list", "show all budgets", "  bursar budget list\n")
    change = add_command(verbs, "adjust", "correct what counts as used, for a reason", _ADJUST)
    remove = add_command(verbs, "remove", "remove stored budgets", "  bursar budget remove alice --unit tokens\n")
    for verb in (put, get, change, remove):
        verb.add_argument(
            "subject", metavar="SUBJECT", help="alice, user:*, team:x, key:x, model:x …; no kind means user:"
        )
    add_terms(put)
    for unit in UNITS:
        change.add_argument(
            f"--{unit.replace('_', '-')}", metavar="CHANGE", dest=unit, help=f"change of {unit}, such as -5"
        )
    change.add_argument("--reason", metavar="TEXT", help="why; it is kept in the audit stream")
    remove.add_argument("--unit", choices=UNITS, help="this unit only")
    for verb in (change, remove):
        verb.add_argument("--period", metavar="PERIOD", help="which, where there are several")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run one verb; return 0, 1 (said no) or 2 (misuse)."""
    return run_connected(f"budget {args.verb}", args, _run)


async def _run(args: argparse.Namespace, c: Connected) -> int:
    desk = BudgetDesk(store=c.store, config=c.config, by=c.by)
    if "subject" in args:
        args.subject = subject_of(args.subject)
    try:
        return await _VERBS[args.verb](args, c, desk)
    except UnfitError as error:
        raise CommandError(str(error), 1 if error.there else 2) from error


async def _set(args: argparse.Namespace, c: Connected, desk: BudgetDesk) -> int:
    in_force = [b for b in desk.book(await c.stored.read()).all() if b.subject == args.subject]
    try:
        asked = spelled_budgets(args, in_force)
    except ValueError as error:
        raise misuse(str(error)) from error
    budgets = [budget for fields in asked for budget in budgets_of(fields, c.config)]
    await desk.put(budgets, c.now_ms())
    return await _get(args, c, desk)


async def _get(args: argparse.Namespace, c: Connected, desk: BudgetDesk) -> int:
    rows = await desk.rows(args.subject, c.now_ms())
    if not rows and not args.json:
        print(f"{args.subject} has no budget: nothing limits it here")
        return 1
    _print_rows(rows, as_json=args.json)
    return 0 if rows else 1


async def _list(args: argparse.Namespace, c: Connected, desk: BudgetDesk) -> int:
    rows = await desk.rows(None, c.now_ms())
    if not rows and not args.json:
        print("no budgets yet: bursar budget set alice --usd 5/day")
        return 0
    _print_rows(rows, as_json=args.json)
    return 0


async def _adjust(args: argparse.Namespace, c: Connected, desk: BudgetDesk) -> int:
    given = [(unit, text) for unit in UNITS if (text := getattr(args, unit)) is not None]
    if len(given) != 1:
        raise misuse("name one change, such as --usd -0.50")
    if not (args.reason or "").strip():
        raise misuse('say why with --reason "…": it is kept in the audit stream')
    unit, text = given[0]
    try:
        change = spelled.change(unit, text)
    except ValueError as error:
        raise misuse(f"--{unit.replace('_', '-')}: {error}") from error
    done = await desk.adjust(args.subject, unit, change, reason=args.reason, period=args.period, now_ms=c.now_ms())
    if args.json:
        print(
            json.dumps(
                {
                    "subject": args.subject,
                    "unit": unit,
                    "before": _exact(unit, done["before"]),
                    "after": _exact(unit, done["after"]),
                }
            )
        )
        return 0
    print(f"{plain(args.subject)}: used was {said(unit, done['before'])}, is {said(unit, done['after'])}")
    if done["after"] - done["before"] != change:
        print(f"(only {said(unit, abs(done['after'] - done['before']))} could be taken away: nothing falls below 0)")
    return 0


async def _remove(args: argparse.Namespace, c: Connected, desk: BudgetDesk) -> int:
    gone = await desk.remove(args.subject, [args.unit] if args.unit else [], args.period, c.now_ms())
    rows = await desk.rows(args.subject, c.now_ms())
    if args.json:
        print(json.dumps({"removed": [budget.id for budget in gone], "in_force": rows}, ensure_ascii=False))
        return 0
    print("removed " + ", ".join(f"{budget.unit} per {budget.period.kind}" for budget in gone))
    if rows:
        print("now in force:")
        _print_rows(rows, as_json=False)
    return 0


def _print_rows(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    print(
        table(
            LISTED,
            [[_cell(row, name) for name in LISTED] for row in rows],
            right=("limit", "used", "held", "remaining"),
        )
    )


def _cell(row: dict[str, Any], name: str) -> object:
    if name == "resets":
        return row["resets_at"]
    if name == "from":
        return row["source"]
    if row["unit"] == "usd" and name in ("limit", "used", "held", "remaining"):
        return usd_text(row[f"{name}_nanousd"])
    return row[name]


def _exact(unit: str, value: int) -> str | int:
    return usd_text(value) if unit == "usd" else value


_VERBS: dict[str, Callable[[argparse.Namespace, Connected, BudgetDesk], Awaitable[int]]] = {
    "set": _set, "get": _get, "list": _list, "adjust": _adjust, "remove": _remove,
}  # fmt: skip
