"""The `bursar` command. Commands are imported when they are asked for: `serve` is to be ready in a second."""

import argparse
import importlib
import sys
from collections.abc import Sequence

COMMANDS = (
    "serve", "demo", "init", "check", "explain", "doctor", "drain", "inject", "top", "reconcile", "record",
    "key", "budget", "usage", "prices",
)  # fmt: skip
_EXAMPLE = """examples:
  bursar demo                              try it: no key, no network
  bursar init && bursar check              write a configuration, and look it over
  bursar serve -c bursar.yaml              run it
  bursar COMMAND --help                    each command has an example
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0 (ok), 1 (said no) or 2 (misuse)."""
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="bursar",
        description="The treasurer in front of every LLM call: an OpenAI-compatible proxy with budgets that cannot be overspent.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bursar {version()}")
    subparsers = parser.add_subparsers(metavar="COMMAND", dest="command")
    wanted = [name for name in COMMANDS if name in words[:1]] or COMMANDS
    for name in wanted:
        importlib.import_module(f"proxy.cli.{name}").add_parser(subparsers)
    args = parser.parse_args(words)
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        code: int = args.run(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `bursar usage | head`
        sys.stderr.close()
        return 0
    return code


def version() -> str:
    """Return the version of this installation."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("bursar")
    except PackageNotFoundError:
        return "0 (not installed)"


if __name__ == "__main__":
    sys.exit(main())
