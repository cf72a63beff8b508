"""`bursar drain`: tells the proxy on this machine to take no new calls, finish those in flight and end; waits until it has."""

import argparse
import asyncio
import os
import signal
from pathlib import Path

from proxy.cli.connected import CommandError, add_command, load_for_command, run_plain
from proxy.cli.talking import ask_ops
from proxy.config.model import Config
from proxy.pidfile import running

POLL_S = 0.1
MARGIN_S = 15.0
_EXAMPLE = """  bursar drain                    ask, and wait until it is gone
  bursar drain --timeout 30       exit code 1 if it is still there after 30 s
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `drain` to the commands."""
    parser = add_command(subparsers, "drain", "let a running proxy finish its calls and end", _EXAMPLE, json=False)
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=float,
        help="how long to wait; server.drain_seconds and a little if not given",
    )
    parser.add_argument("--no-wait", action="store_true", help="only ask")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Drain; return 0 (it is gone), 1 (nothing runs, or it is still there) or 2 (misuse)."""

    async def act() -> int:
        return await _drain(args, load_for_command(args.config).config)

    return run_plain("drain", act)


async def _drain(args: argparse.Namespace, config: Config) -> int:
    process = running(Path(config.store.data_dir))
    how = await _asked(config, process)
    if args.no_wait:
        print(f"asked it to drain ({how})")
        return 0
    timeout_s = args.timeout if args.timeout is not None else config.server.drain_seconds + MARGIN_S
    try:
        async with asyncio.timeout(timeout_s):
            while await _there(config, process):  # noqa: ASYNC110 - another process ends; nothing tells us when
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise CommandError(
            f"it is still there after {timeout_s:g} s: calls are in flight; ask again to wait on"
        ) from None
    print(f"drained ({how})")
    return 0


async def _asked(config: Config, process: int | None) -> str:
    """Ask by the admin listener where that is open to us, else by a signal; return how. Raises CommandError."""
    if config.ops.admin_token:
        reply = await ask_ops(config, "POST", "/admin/v1/drain")
        if reply is not None and reply.status == 200:  # noqa: PLR2004
            return f"admin listener {config.ops.listen}"
        if reply is not None and process is None:
            raise CommandError(
                f"{config.ops.listen} answers {reply.status}: is its ops.admin_token the one of this configuration?"
            )
    if process is None:
        raise CommandError(f"nothing runs with data_dir {config.store.data_dir}: name its configuration with -c")
    try:
        os.kill(process, signal.SIGTERM)
    except ProcessLookupError:
        return "it was ending"
    except PermissionError as error:
        raise CommandError(f"process {process} is another user's: drain it as that user") from error
    return f"SIGTERM to process {process}"


async def _there(config: Config, process: int | None) -> bool:
    if process is not None:
        return running(Path(config.store.data_dir)) == process
    return await ask_ops(config, "GET", "/livez") is not None
