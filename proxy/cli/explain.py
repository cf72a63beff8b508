"""`bursar explain`: says what a call would hold, on which budgets, and whether it would be let in. Nothing is sent or held."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, cast, get_args

from accounting.budgets import Budget
from adapters.base import Operation
from proxy.amounts import said, usd_text
from proxy.building import build_rules
from proxy.cli.connected import CommandError, Connected, add_command, misuse, run_connected
from proxy.cli.tables import plain
from proxy.cli.unsent import looked_at
from proxy.errors import ClientError
from proxy.explaining import Explained, as_json, explain, principal_of

_EXAMPLE = """  bursar explain --user alice --model gpt-4o --prompt 'Write a poem' --max-tokens 2000
  bursar explain --key alice-laptop --file request.json
  bursar explain --user alice --model gpt-4o --json | jq .verdict
"""
_FIELD_OF = {"messages": "chat", "prompt": "completions", "input": "responses"}
_LIMIT_FIELD = {"chat": "max_completion_tokens", "completions": "max_tokens", "responses": "max_output_tokens"}
FILE_BYTES_MAX = 32 * 2**20


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `explain` to the commands."""
    parser = add_command(subparsers, "explain", "say what a call would hold and whether it would be let in", _EXAMPLE)
    parser.add_argument("--user", metavar="NAME", help="who calls")
    parser.add_argument("--team", metavar="NAME", help="the caller's team, where no key names it")
    parser.add_argument("--key", metavar="ID", help="the id of the key that calls")
    parser.add_argument("--model", metavar="NAME", help="the model, as the client would send it")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--file", metavar="FILE", help="the request's body as JSON; - is standard input")
    what.add_argument("--prompt", metavar="TEXT", default="Hello", help="one user message in its place")
    parser.add_argument("--max-tokens", metavar="N", type=int, help="the output limit that the client names")
    parser.add_argument("--operation", choices=get_args(Operation), help="chat unless the body says otherwise")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Explain; return 0 (let in), 1 (refused) or 2 (misuse)."""
    return run_connected("explain", args, _run)


async def _run(args: argparse.Namespace, c: Connected) -> int:
    body = _body(args)
    operation = cast("Operation", args.operation or _operation(body))
    if args.max_tokens is not None and operation in _LIMIT_FIELD:
        body[_LIMIT_FIELD[operation]] = args.max_tokens
    stored = await c.stored.read()
    try:
        principal = principal_of(c.config, stored, key=args.key, user=args.user, team=args.team)
    except ValueError as error:
        raise misuse(str(error)) from error
    rules = build_rules(c.config, stored, looked_at(c.config), c.prices)
    request = (operation, json.dumps(body).encode())
    try:
        found = await explain(rules, principal, request, defaults=c.loaded.defaults, store=c.store, now_ms=c.now_ms())
    except ClientError as error:
        if args.json:
            print(
                json.dumps(
                    {
                        "verdict": error.code or "invalid_request",
                        "code": error.code,
                        "message": error.message,
                        "param": error.param,
                    }
                )
            )
        else:
            print(f"{error.code or 'invalid_request'}: {plain(error.message)}")
        return 1
    print(json.dumps(as_json(found), ensure_ascii=False) if args.json else text(found))
    return 1 if found.code else 0


def text(found: Explained) -> str:
    """Return the explanation for people."""
    ask, verdict, asked = found.terms.ask, found.verdict, found.asked
    caller = ", ".join(found.principal.caller.subjects())
    how = (
        "counted"
        if found.terms.input_tokens == found.counted
        else f"a cheap bound, far from every limit; counted: {found.counted}"
    )
    named = f"{asked.limit} named" if asked.limit is not None else "none named, so the most that the model gives"
    lines = [
        f"caller    {plain(caller)}",
        f"model     {plain(asked.model)}",
        f"input     {found.terms.input_tokens} tokens ({how})",
        f"output    {ask.wanted} tokens wanted ({named}), {ask.least} at least, {asked.choices} choice(s)",
    ]
    for target, price, ceiling in zip(found.targets, found.terms.prices, found.terms.ceilings, strict=True):
        rates = "no price" if price is None else (
            f"${usd_text(price.plain.rates.input * 1000)} in, ${usd_text(price.plain.rates.output * 1000)} out per million ({price.version})"
        )  # fmt: skip
        lines.append(f"target    {plain('/'.join(target.names))}: {rates}; at most {ceiling} output tokens")
    for each in verdict.draws:
        lines += ["", *_budget_lines(each.row.budget, found, each)]
    if not verdict.draws:
        lines.append("budgets   none: nothing limits this call")
    for number, rate in enumerate(found.rates):
        state = f"full for {verdict.wait_ms} ms" if verdict.rate == number else "has room"
        lines.append(f"limit     {plain(rate.subject)}: {rate.limit} {rate.what} per minute, {state}")
    return "\n".join([*lines, "", f"verdict   {found.says}"])


def _budget_lines(budget: Budget, found: Explained, each: Any) -> list[str]:
    row, draw, unit = each.row, each.draw, budget.unit
    wanted = found.terms.ask.wanted if budget.hold == "full" else found.terms.ask.least
    share = found.terms.ask.share_permille
    if unit == "concurrency":
        return [f"limit     {plain(budget.subject)}: {row.limit} calls at once, {row.held} in flight"]
    lines = [
        f"budget    {plain(budget.subject)}: {said(unit, row.limit)} per {budget.period.kind}, {budget.mode}",
        f"          free    {said(unit, row.limit)} - {said(unit, row.used)} used - {said(unit, row.held)} held = {said(unit, each.free)}",
        f"          needs   {said(unit, draw.fixed)} + {wanted} x {said(unit, draw.per_output)} = {said(unit, each.need)}",
    ]
    if each.fit is not None:
        part = (
            f", of which a call without a limit of its own gets {share / 10:g} %"
            if share and budget.hold != "full"
            else ""
        )
        lines.append(f"          fits    {each.fit} output tokens{part}")
    words = {
        "yes": "has room",
        "held": "momentarily held: budget_held",
        "spent": "does not fit: insufficient_quota",
        "counts": "only counts",
    }
    lines.append(f"          says    {words[each.says]}")
    if found.code is None:
        lines.append(f"          holds   {said(unit, draw.fixed + draw.per_output * found.verdict.granted)}")
    return lines


def _body(args: argparse.Namespace) -> dict[str, Any]:
    if not args.file:
        if not args.model:
            raise misuse("name a model: --model gpt-4o")
        field = {"completions": "prompt", "embeddings": "input", "responses": "input"}.get(args.operation or "chat")
        said_ = {field: args.prompt} if field else {"messages": [{"role": "user", "content": args.prompt}]}
        return {"model": args.model, **said_}
    try:
        raw = sys.stdin.buffer.read(FILE_BYTES_MAX) if args.file == "-" else Path(args.file).read_bytes()
        body = json.loads(raw)
    except OSError as error:
        raise CommandError(f"{args.file} cannot be read ({error.strerror}): name another file") from error
    except ValueError as error:
        raise misuse(
            f'{args.file} is not JSON: give a request\'s body, such as {{"model": …, "messages": […]}}'
        ) from error
    if not isinstance(body, dict):
        raise misuse(f"{args.file} is not a JSON object: give a request's body")
    return {**body, "model": args.model} if args.model else body


def _operation(body: dict[str, Any]) -> str:
    return next((operation for field, operation in _FIELD_OF.items() if field in body), "chat")
