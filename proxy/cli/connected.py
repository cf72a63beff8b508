"""Lets a command work on the store: reads the configuration, opens the store, and closes it again.

A command needs no provider: where nothing but the store is configured, the defaults serve. An embedded server that runs is
attached to; where none runs, the command starts it and stops it again.
"""

import argparse
import asyncio
import getpass
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from accounting.budgets import Budget, BudgetBook
from accounting.reading import Reader
from accounting.store.errors import StoreError
from accounting.store.store import Store
from accounting.stored import Stored, StoredConfig
from proxy.building import build_prices, file_budgets
from proxy.config.environment import SOURCE, from_environment
from proxy.config.load import FILE_NAME, FILE_VARIABLE, Loaded, load
from proxy.config.model import Config
from proxy.config.problem import ConfigError
from proxy.reaching import open_store

if TYPE_CHECKING:
    from accounting.prices.table import PriceBook
    from accounting.store.embedded import EmbeddedStore

OPEN_S = 5.0


class CommandError(Exception):
    """A command cannot do what it was asked; `code` 1: it said no, 2: it was asked wrongly."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def misuse(message: str) -> CommandError:
    """Return the error of a command that was asked wrongly."""
    return CommandError(message, 2)


@dataclass(frozen=True, kw_only=True)
class Connected:
    """What a command works with. `by` names who runs it, for the audit stream."""

    loaded: Loaded
    store: Store
    embedded: "EmbeddedStore | None"
    stored: StoredConfig
    reader: Reader
    offset_ms: float
    by: str

    @property
    def config(self) -> Config:
        """The configuration."""
        return self.loaded.config

    @cached_property
    def prices(self) -> "PriceBook":
        """The prices of the configuration and the table."""
        return build_prices(self.config)

    @cached_property
    def file_budgets(self) -> list[Budget]:
        """The budgets that the file names."""
        return file_budgets(self.config.budgets)

    def now_ms(self) -> int:
        """The store's clock, in epoch milliseconds."""
        return int(asyncio.get_running_loop().time() * 1000 + self.offset_ms)

    def book(self, stored: Stored) -> BudgetBook:
        """Return all budgets in force."""
        return BudgetBook(self.file_budgets, stored.budgets)


@asynccontextmanager
async def connected(args: argparse.Namespace) -> AsyncIterator[Connected]:
    """Open what a command works with. Raises CommandError in one sentence, ConfigError with every problem."""
    loaded = load_for_command(args.config)
    try:
        store, embedded = open_store(loaded.config)
    except ValueError as error:
        raise CommandError(str(error)) from error
    try:
        await store.start(OPEN_S)
        offset_ms = await store_time_ms(store) - asyncio.get_running_loop().time() * 1000
        yield Connected(
            loaded=loaded, store=store, embedded=embedded, stored=StoredConfig(store), reader=Reader(store),
            offset_ms=offset_ms, by=whoami(),
        )  # fmt: skip
    except StoreError as error:
        where = f"the store ({loaded.config.store.url})"
        raise CommandError(f"{where} cannot be used: {error}; start it, or set store.url or REDIS_URL") from error
    finally:
        await store.close()
        if embedded is not None:
            await embedded.stop()


def load_for_command(file: str | None) -> Loaded:
    """Return the configuration as `serve` finds it; with no file and no provider, the defaults. Raises ConfigError."""
    chosen = file or os.environ.get(FILE_VARIABLE) or Path(FILE_NAME).is_file()
    if not chosen:
        found = from_environment(os.environ)
        if not found.config.providers and not found.findings:
            return Loaded(config=found.config, source=SOURCE, defaults=found.defaults)
    return load(file)


async def store_time_ms(store: Store) -> int:
    """Return the clock that budgets are kept by: the store's own, never earlier than what it has been seen at."""
    seconds, micros = await store.call("TIME", deadline_s=2.0)
    seen = await store.call("HGET", store.key("g"), "clk", deadline_s=2.0)
    return max(int(seconds) * 1000 + int(micros) // 1000, int(seen or 0))


def whoami() -> str:
    """Return user@host for the audit stream."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # an id without a name, as in many containers
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def run_connected(
    name: str, args: argparse.Namespace, act: Callable[[argparse.Namespace, Connected], Awaitable[int]]
) -> int:
    """Run a command's coroutine with the store open; print errors, return the exit code."""

    async def whole() -> int:
        async with connected(args) as c:
            return await act(args, c)

    return run_plain(name, whole)


def run_plain(name: str, act: Callable[[], Awaitable[int]]) -> int:
    """Run a coroutine; print errors, return the exit code."""

    async def whole() -> int:
        return await act()

    try:
        return asyncio.run(whole())
    except CommandError as error:
        print(f"bursar {name}: {error}", file=sys.stderr)
        return error.code
    except StoreError as error:
        print(f"bursar {name}: {error}", file=sys.stderr)
        return 1
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        print(f"bursar {name}: the configuration is not usable; see `bursar check`", file=sys.stderr)
        return 1


def add_command(
    subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    about: str,
    example: str,
    *,
    json: bool = True,
) -> argparse.ArgumentParser:
    """Add a command or a command's verb with the options that all of them have; return its parser."""
    parser = subparsers.add_parser(
        name, help=about, description=about[0].upper() + about[1:] + ".", epilog=f"example:\n{example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="the file; else $BURSAR_CONFIG, ./bursar.yaml, the environment"
    )
    if json:
        parser.add_argument("--json", action="store_true", help="print JSON")
    return parser
