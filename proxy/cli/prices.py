"""`bursar prices`: shows what models cost, checks that every configured one has a price, and writes newer prices as overrides.

`update` needs no network: it reads a file, and writes the `prices:` part of a configuration, where an operator can read every number
before it counts. An override has one rate of each kind, so of prices that depend on size it takes the dearest.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from accounting.prices.listing import OtherTable, Rates, TableError, shipped_models
from accounting.prices.price import Price
from accounting.prices.table import PROVIDER_OF_KIND, PriceBook, table_source, table_version
from proxy.amounts import usd_text
from proxy.building import build_prices
from proxy.cli.connected import CommandError, add_command, load_for_command, misuse, run_plain
from proxy.cli.tables import table
from proxy.config.model import Config
from proxy.pricing import beyond_plain, overrides, plain_rates, priced, targets

DAYS_MAX = 120
_EXAMPLE = """  bursar prices show gpt-4o
  bursar prices check                                   exit code 1 if a configured model has no price
  bursar prices update --from prices.json -o prices.yaml
"""
_UPDATE = """  bursar prices update --from data.json > prices.yaml    then put it into bursar.yaml under prices:
  bursar prices update --from data.json --model openai/gpt-5 --model claude/claude-opus-4-5
"""
_WORDS = ("input", "cached_input", "cache_write", "output", "request")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `prices` and its verbs to the commands."""
    parser = subparsers.add_parser(
        "prices", help="show, check and update prices", description="Prices in USD per million tokens.",
        epilog=f"example:\n{_EXAMPLE}", formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    verbs = parser.add_subparsers(metavar="VERB", required=True, dest="verb")
    show = add_command(
        verbs,
        "show",
        "show what models cost",
        "  bursar prices show gpt-4o --provider openai\n  bursar prices show --provider anthropic\n",
    )
    show.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="an upstream model, or a name of the configuration; else all configured",
    )
    show.add_argument("--provider", metavar="KIND", help="a kind or preset: openai, anthropic, groq …")
    add_command(verbs, "check", "check that every configured model has a price", "  bursar prices check\n")
    update = add_command(verbs, "update", "write newer prices as overrides", _UPDATE, json=False)
    update.add_argument(
        "--from",
        dest="source",
        metavar="FILE",
        required=True,
        help="a genai-prices data file, or a table.json of Bursar",
    )
    update.add_argument("--model", metavar="PROVIDER/MODEL", action="append", default=[], help="also this one")
    update.add_argument(
        "--dearest",
        action="store_true",
        help="take the rates of the dearest class of service (priority), not the plain one's",
    )
    update.add_argument("-o", "--output", metavar="FILE", help="where to write; standard output if not given")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run one verb; return 0, 1 (a price is missing) or 2 (misuse)."""

    async def act() -> int:
        config = load_for_command(args.config).config
        return {"show": _show, "check": _check, "update": _update}[args.verb](args, config)

    return run_plain(f"prices {args.verb}", act)


def _show(args: argparse.Namespace, config: Config) -> int:
    if args.provider and args.provider not in PROVIDER_OF_KIND:
        raise misuse(f"--provider {args.provider}: no public prices; there are {', '.join(sorted(PROVIDER_OF_KIND))}")
    rows: list[tuple[str, str, Rates, str, str | None]]
    if args.provider and not args.model:
        rows = [(args.provider, model, rates, table_version(), None) for model, rates in shipped_models(args.provider)]
    else:
        rows = [
            (owner, model, plain_rates(price), price.version, beyond_plain(price))
            for owner, model, price in _found(args, config)
            if price
        ]
    if args.json:
        print(
            json.dumps(
                [
                    {"provider": o, "model": m, "from": v, "more": t, **{w: usd_text(n) for w, n in r.items()}}
                    for o, m, r, v, t in rows
                ]
            )
        )
    elif rows:
        cells = [(o, m, *(usd_text(r[w]) if w in r else None for w in _WORDS), v, t) for o, m, r, v, t in rows]
        print(table(("provider", "model", *_WORDS, "from", "also"), cells, right=_WORDS))
    if not rows:
        raise CommandError(
            f"no price is known for {args.model or 'any configured model'}: name one under prices: in the configuration"
        )
    return 0


def _found(args: argparse.Namespace, config: Config) -> Iterator[tuple[str, str, Price | None]]:
    book = build_prices(config)
    if args.model and args.provider:
        yield args.provider, args.model, book.lookup(args.provider, args.model)
        return
    named = [(p, m) for name, p, m in targets(config) if args.model in (None, name, m, f"{p}/{m}")]
    for provider, model in dict.fromkeys(named):
        yield provider, model, priced(book, config, provider, model)
    if args.model and not named:
        for kind in PROVIDER_OF_KIND:
            yield kind, args.model, PriceBook().lookup(kind, args.model)


def _check(args: argparse.Namespace, config: Config) -> int:
    book = build_prices(config)
    rows, open_names = [], []
    for name, provider, model in targets(config):
        if "*" in model:
            covered = any(fnmatchcase(f"{provider}/{model}", pattern) for pattern in config.prices)
            open_names += [] if covered else [name]
        else:
            rows.append((name, f"{provider}/{model}", priced(book, config, provider, model) is not None))
    days = (datetime.now(UTC).date() - date.fromisoformat(table_version())).days
    missing = [row for row in rows if not row[2]]
    if args.json:
        found = {
            "table": table_version(),
            "days": days,
            "priced": len(rows) - len(missing),
            "missing": [row[1] for row in missing],
            "open": open_names,
        }
        print(json.dumps(found))
        return 1 if missing else 0
    print(
        f"table of {table_version()}, {days} days old{': upgrade Bursar, or see bursar prices update' if days > DAYS_MAX else ''} ({table_source()})"
    )
    for name, target, _ in missing:
        print(f"no price: {target} (models.{name}); name one under prices: in the configuration")
    for name in open_names:
        print(
            f"any name: models.{name} takes names that may have no price; then admission.unknown_price says {config.admission.unknown_price}"
        )
    print(f"{len(rows) - len(missing)} of {len(rows)} configured models have a price")
    return 1 if missing else 0


def _update(args: argparse.Namespace, config: Config) -> int:
    try:
        other = OtherTable(Path(args.source).read_bytes(), services=args.dearest)
        named = [
            *((p, m) for _, p, m in targets(config) if "*" not in m),
            *(_named(text, config) for text in args.model),
        ]
        text, missing = overrides(other, named, config, origin=Path(args.source).name, services=args.dearest)
        if args.output:
            Path(args.output).write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}; name another file") from error
    except TableError as error:
        raise CommandError(f"{args.source} {error}: give one of them") from error
    for target in missing:
        print(f"{target}: not in the file, its price stays as it is", file=sys.stderr)
    if args.output:
        print(f"{args.output} written: put it into the configuration, then bursar check", file=sys.stderr)
    else:
        sys.stdout.write(text)
    return 0


def _named(text: str, config: Config) -> tuple[str, str]:
    provider, slash, model = text.partition("/")
    if not slash or provider not in config.providers:
        raise misuse(f"--model {text}: wants provider/model with a provider of the configuration")
    return provider, model
