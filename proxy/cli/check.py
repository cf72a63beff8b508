"""`bursar check`: reads the configuration as `serve` would, and says all that is wrong with it."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy.config.load import Loaded

_EXAMPLE = """example:
  bursar check -c bursar.yaml          every problem as file:line:column: setting: what is wrong
  bursar check --json | jq .problems   the same for a script
  bursar check --schema > bursar.schema.json
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `check` to the commands."""
    parser = subparsers.add_parser(
        "check",
        help="check the configuration",
        description="Check the configuration without starting anything. Exit code 0: it is fine, 1: it is not.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="the file; else $BURSAR_CONFIG, ./bursar.yaml, the environment"
    )
    parser.add_argument("file", nargs="?", metavar="FILE", help="the same as -c FILE")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of the file, for editors")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check and print; return 0 (fine), 1 (problems) or 2 (misuse)."""
    from proxy.config.load import load
    from proxy.config.problem import ConfigError

    if args.schema:
        from proxy.config.schema import schema_text

        sys.stdout.write(schema_text())
        return 0
    if args.file and args.config and args.file != args.config:
        print("bursar check: two files are named; give one", file=sys.stderr)
        return 2
    try:
        loaded = load(args.config or args.file)
    except ConfigError as error:
        _print_problems(error, as_json=args.json)
        return 1
    _print_fine(loaded, as_json=args.json)
    return 0


def _print_problems(error: Any, *, as_json: bool) -> None:
    if as_json:
        rows = [
            {"file": each.file, "line": each.line, "column": each.column, "path": each.path, "message": each.message}
            for each in error.problems
        ]
        print(json.dumps({"ok": False, "problems": rows}, ensure_ascii=False))
        return
    for each in error.problems:
        print(each, file=sys.stderr)
    count = len(error.problems)
    print(f"bursar check: {count} problem{'s' if count > 1 else ''}", file=sys.stderr)


def _print_fine(loaded: "Loaded", *, as_json: bool) -> None:
    from proxy.config.describe import describe

    config, rows = loaded.config, describe(loaded.config)
    if as_json:
        providers = [row._asdict() for row in rows]
        print(json.dumps({"ok": True, "source": loaded.source, "providers": providers, "problems": []}))
        return
    print(f"{loaded.source}: ok")
    for row in rows:
        print(f"  {row.name:<16} {row.kind:<12} key {row.key:<8} {row.base_url}".rstrip())
    counts = (("models", config.models), ("keys", config.keys), ("budgets", config.budgets), ("limits", config.limits))
    print("  " + ", ".join(f"{len(found)} {name}" for name, found in counts) + f"; store {config.store.url}")
