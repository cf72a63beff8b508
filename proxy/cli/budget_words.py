"""From the options of `bursar budget set` to budgets as the file spells them. Pure.

Amounts may carry their period (`5/day`) or share `--period`. Terms that are not given stay as they are where a budget of the same
subject, unit and period is in force.
"""

import argparse
from collections.abc import Sequence
from typing import Any

from accounting.budgets import Budget
from proxy import spelled
from proxy.amounts import usd_text
from proxy.config.policy import AMOUNT_UNITS

UNITS = AMOUNT_UNITS
LISTED = ("subject", "unit", "limit", "used", "held", "remaining", "period", "mode", "resets", "from")


def add_terms(parser: argparse.ArgumentParser) -> None:
    """Add the options of `budget set`."""
    for unit, example in zip(UNITS, ("5/day", "200k/day", "2M/month", "500k", "1000/hour"), strict=True):
        parser.add_argument(f"--{unit.replace('_', '-')}", metavar="AMOUNT", dest=unit, help=f"such as {example}")
    parser.add_argument("--period", metavar="PERIOD", help="minute hour day week month cycle rolling:30d total")
    parser.add_argument("--tz", metavar="ZONE", help="time zone in which the period begins (UTC)")
    parser.add_argument(
        "--mode", choices=("hard", "soft", "shadow"), help="refuse, let pass and tell, only count (hard)"
    )
    parser.add_argument("--hold", choices=("clamp", "full", "slice"), help="how a call is held (clamp)")
    parser.add_argument("--outage", choices=("refuse", "escrow", "allow"), help="while the store is away (refuse)")
    parser.add_argument("--soft", metavar="A,B", help="fractions at which an alert is sent, such as 0.5,0.8")
    parser.add_argument("--starts", metavar="DAY", help="the first day of a cycle, such as 2026-11-05")


def spelled_budgets(args: argparse.Namespace, in_force: Sequence[Budget]) -> list[dict[str, Any]]:
    """Return one budget for each amount that is given, as the file would spell it. Raises ValueError."""
    asked = []
    for unit in UNITS:
        text = getattr(args, unit)
        if text is None:
            continue
        option = f"--{unit.replace('_', '-')}"
        value, period = spelled.per(text)
        if period and args.period and period != args.period:
            raise ValueError(f"{option} says per {period}, --period says {args.period}: give one of them")
        period = period or args.period
        if not period:
            raise ValueError(f"say per what: {option} {value}/day, or --period month")
        try:
            number = spelled.amount(unit, value)
        except ValueError as error:
            raise ValueError(f"{option}: {error}") from None
        amount = usd_text(number) if unit == "usd" else number
        asked.append({"subject": args.subject, unit: amount, "period": period, **_terms(args, unit, period, in_force)})
    if not asked:
        raise ValueError("name an amount: --usd 5/day, --tokens 200k/day, --requests 1000/hour …")
    return asked


def _terms(args: argparse.Namespace, unit: str, period: str, in_force: Sequence[Budget]) -> dict[str, Any]:
    same = [b for b in in_force if b.unit == unit and b.period.kind == period and args.tz in (None, b.period.tz)]
    terms: dict[str, Any] = {}
    if same:
        known = same[0]
        terms = {
            "mode": known.mode,
            "hold": known.hold,
            "outage": known.outage,
            "soft": list(known.soft),
            "tz": known.period.tz,
        }
        if known.period.starts:
            terms["starts"] = known.period.starts.isoformat()
    for name in ("tz", "mode", "hold", "outage", "starts"):
        if getattr(args, name) is not None:
            terms[name] = getattr(args, name)
    if args.soft is not None:
        terms["soft"] = [_fraction(part) for part in args.soft.split(",") if part.strip()]
    return terms


def _fraction(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"--soft: {text!r} is not a fraction such as 0.8") from None
