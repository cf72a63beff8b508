"""`bursar init`: writes a short commented configuration to begin with; it never overwrites one unasked. The JSON Schema for editors goes beside it."""

import argparse
import sys
from pathlib import Path

_EXAMPLE = """example:
  bursar init                          writes ./bursar.yaml
  bursar init conf/bursar.yaml         somewhere else
  bursar check && bursar serve         what comes next
"""

_TEXT = """\
# yaml-language-server: $schema={schema}
# All settings: deploy/bursar.example.yaml. After a change: bursar check
listen: 127.0.0.1:8080                  # the base URL of your clients: http://127.0.0.1:8080/v1
store: {{url: embedded}}                  # or redis://host:6379/0, shared by all sidecars
providers:                              # ${{VAR}} and ${{VAR:-default}} come from the environment
  openai: {{kind: openai, api_keys: ["${{OPENAI_API_KEY}}"]}}
  # claude: {{kind: anthropic, api_keys: ["${{ANTHROPIC_API_KEY}}"]}}
models:
  "*": openai/*                         # any name goes through as it is
keys:                                   # what clients send as their API key
  - {{id: alice-laptop, user: alice, secret: "${{ALICE_KEY}}"}}
budgets:
  - {{subject: "user:*", usd: 5.00, period: month}}     # for each user; hard: a call that does not fit is refused
limits:
  - {{subject: "key:*", rpm: 600, concurrency: 32}}
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `init` to the commands."""
    parser = subparsers.add_parser(
        "init",
        help="write a configuration to begin with",
        description="Write a short commented configuration. Exit code 1 when the file is there already.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", nargs="?", default="bursar.yaml", metavar="PATH", help="default: ./bursar.yaml")
    parser.add_argument("--force", action="store_true", help="overwrite")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the file; return 0, or 1 when it could not be written."""
    from proxy.config.schema import FILE_NAME, schema_text

    path = Path(args.path)
    try:
        with path.open("w" if args.force else "x", encoding="utf-8") as stream:
            stream.write(text())
        path.with_name(FILE_NAME).write_text(schema_text(), encoding="utf-8")
    except FileExistsError:
        print(f"bursar init: {path} is there already; overwrite it with --force", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"bursar init: {path} cannot be written ({error.strerror}); name another path", file=sys.stderr)
        return 1
    schema = path.with_name(FILE_NAME)
    print(
        f"{path} and {schema} written. Set OPENAI_API_KEY and ALICE_KEY (openssl rand -hex 24), then: bursar check -c {path}"
    )
    return 0


def text() -> str:
    """Return the file that `init` writes; its schema lies beside it."""
    from proxy.config.schema import FILE_NAME

    return _TEXT.format(schema=FILE_NAME)
