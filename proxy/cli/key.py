"""`bursar key`: creates, lists, rotates and revokes the keys that clients send. A running proxy sees a change on its next call."""

import argparse
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from proxy import spelled
from proxy.cli.connected import CommandError, Connected, add_command, misuse, run_connected
from proxy.cli.tables import plain, table
from proxy.stored_keys import Desk, UnfitError

_EXAMPLE = """  bursar key create alice-laptop --user alice --team research --expires 90d
  bursar key list
  bursar key rotate alice-laptop --grace 1h    both secrets serve for an hour
  bursar key revoke alice-laptop
"""
_CREATE = """  bursar key create alice-laptop --user alice --models 'gpt-4o*,fast' --expires 90d
  bursar key create shop --team shop --user-from header:x-bursar-user
  OPENAI_API_KEY=$(bursar key create ci --user ci --json | jq -r .secret)
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `key` and its verbs to the commands."""
    parser = subparsers.add_parser(
        "key", help="create, list, rotate and revoke keys", description="Keys that clients send, kept in the store.",
        epilog=f"example:\n{_EXAMPLE}", formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    verbs = parser.add_subparsers(metavar="VERB", required=True, dest="verb")
    create = add_command(verbs, "create", "make a key and print its secret, once", _CREATE)
    create.add_argument("id", nargs="?", metavar="ID", help="its name in logs and budgets; else one is made up")
    for name, what in (("user", "user"), ("team", "team"), ("org", "organization")):
        create.add_argument(f"--{name}", metavar="NAME", help=f"the {what} it speaks for")
    create.add_argument("--tags", metavar="A,B", help="labels that budgets can be set on")
    create.add_argument("--models", metavar="A,B", help="model names it may send, * as a wildcard; not given: all")
    create.add_argument("--user-from", metavar="PLACE", help="header:NAME or body:FIELD that names its calls' user")
    create.add_argument(
        "--expires", metavar="WHEN", default="never", help="30d, 2027-01-01 (UTC) or never (the default)"
    )
    add_command(verbs, "list", "list all keys, the file's too", "  bursar key list --json | jq '.[].id'\n")
    show = add_command(verbs, "show", "show one key", "  bursar key show alice-laptop\n")
    rotate = add_command(
        verbs, "rotate", "give a key a new secret and print it, once", "  bursar key rotate alice-laptop --grace 1h\n"
    )
    rotate.add_argument(
        "--grace", metavar="SPAN", help="how long the old secret still serves, such as 1h; not given: not at all"
    )
    revoke = add_command(verbs, "revoke", "end a key", "  bursar key revoke alice-laptop\n")
    for verb in (show, rotate, revoke):
        verb.add_argument("id", metavar="ID", help="the key's id")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run one verb; return 0, 1 (the store or the key says no) or 2 (misuse)."""
    return run_connected(f"key {args.verb}", args, _run)


async def _run(args: argparse.Namespace, c: Connected) -> int:
    desk = Desk(stored=c.stored, config=c.config, by=c.by)
    try:
        return await _VERBS[args.verb](args, c, desk)
    except UnfitError as error:
        raise CommandError(str(error), 1 if error.there else 2) from error


async def _create(args: argparse.Namespace, c: Connected, desk: Desk) -> int:
    fields = {
        "id": args.id, "user": args.user, "team": args.team, "org": args.org, "tags": _names(args.tags),
        "models": _names(args.models), "user_from": args.user_from,
    }  # fmt: skip
    if args.id == "":
        raise misuse("ID is empty: leave it out, and one is made up")
    try:
        expires_ms = spelled.expiry_ms(args.expires, c.now_ms())
    except ValueError as error:
        raise misuse(f"--expires: {error}") from error
    key, secret = await desk.create(fields, expires_ms=expires_ms, now_ms=c.now_ms())
    _print_secret(args, await _row(c, desk, key.id), secret)
    return 0


async def _rotate(args: argparse.Namespace, c: Connected, desk: Desk) -> int:
    try:
        grace_ms = spelled.span_ms(args.grace) if args.grace is not None else 0
    except ValueError as error:
        raise misuse(f"--grace: {error}") from error
    key, secret = await desk.rotate(args.id, grace_ms=grace_ms, now_ms=c.now_ms())
    _print_secret(args, await _row(c, desk, key.id), secret)
    return 0


async def _revoke(args: argparse.Namespace, c: Connected, desk: Desk) -> int:
    key = await desk.revoke(args.id, now_ms=c.now_ms())
    row = await _row(c, desk, key.id)
    print(json.dumps(row) if args.json else f"{key.id} was revoked at {row['revoked_at']}")
    return 0


async def _list(args: argparse.Namespace, c: Connected, desk: Desk) -> int:
    rows = await desk.list(c.now_ms())
    if args.json:
        print(json.dumps(rows, ensure_ascii=False))
    elif rows:
        head = ("id", "state", "from", "user", "team", "models", "expires")
        print(table(head, [
            (r["id"], _state(r), r["source"], r["user"], r["team"], ",".join(r["models"]) if r["models"] is not None else "all", r["expires_at"])
            for r in rows
        ]))  # fmt: skip
    else:
        print("no keys yet: bursar key create alice-laptop --user alice")
    return 0


async def _show(args: argparse.Namespace, c: Connected, desk: Desk) -> int:
    row = await _row(c, desk, args.id)
    if args.json:
        print(json.dumps(row, ensure_ascii=False))
        return 0
    for name, value in row.items():
        if value not in (None, []):
            print(f"{name:<18} {plain(', '.join(map(str, value)) if isinstance(value, list) else value)}")
    return 0


async def _row(c: Connected, desk: Desk, key_id: str) -> dict[str, Any]:
    rows = {row["id"]: row for row in await desk.list(c.now_ms())}
    if key_id not in rows:
        raise CommandError(f"there is no key {key_id[:128]}: `bursar key list` names all")
    return rows[key_id]


def _print_secret(args: argparse.Namespace, row: dict[str, Any], secret: str) -> None:
    if args.json:
        print(json.dumps(row | {"secret": secret}, ensure_ascii=False))
        return
    print(secret)
    print(f"this is the secret of key {row['id']}; it is shown this once and kept nowhere", file=sys.stderr)
    for until in row.get("old_secrets_until", ()):
        print(f"the secret before it serves until {until}", file=sys.stderr)
    if row.get("replaces_file"):
        print(f"it takes the place of the file's key {row['id']}, whose secret no longer serves", file=sys.stderr)


def _state(row: dict[str, Any]) -> str:
    return f"revoked {row['revoked_at']}" if row["revoked_at"] else str(row["state"])


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


_VERBS: dict[str, Callable[[argparse.Namespace, Connected, Desk], Awaitable[int]]] = {
    "create": _create, "list": _list, "show": _show, "rotate": _rotate, "revoke": _revoke,
}  # fmt: skip
