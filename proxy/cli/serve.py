"""`bursar serve`: runs the proxy until it is told to stop, then drains."""

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.config.load import Loaded
    from proxy.sidecar import Sidecar
    from proxy.workers import Workers

GC_YOUNG = 10_000
_EXAMPLE = """examples:
  bursar serve -c bursar.yaml
  bursar serve --workers 4                 four processes on one port, one metrics page
  OPENAI_API_KEY=sk-... bursar serve       no file: providers come from the environment, everything is metered

signals:
  SIGTERM, SIGINT    take no new calls, let streams end, settle everything, exit; a second one hurries
  SIGHUP             read the configuration anew; a bad file changes nothing
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `serve` to the commands."""
    parser = subparsers.add_parser(
        "serve",
        help="run the proxy",
        description="Run the proxy. The banner is printed when calls are answered.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-c", "--config", metavar="FILE", help="the file; else $BURSAR_CONFIG, ./bursar.yaml, the environment"
    )
    parser.add_argument("--listen", metavar="HOST:PORT", help="instead of the file's `listen`")
    parser.add_argument(
        "--workers", metavar="N", type=int, default=1, choices=range(1, 257),
        help="processes that share the port, for more than one core; limits of `server:` are each one's own (default 1)",
    )  # fmt: skip
    parser.add_argument("--worker-fd", type=int, help=argparse.SUPPRESS)  # set by the parent of workers
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve; return 0 after a clean stop, 1 when it could not start."""
    import msgspec

    from proxy.config.load import load
    from proxy.config.problem import ConfigError

    try:
        loaded = load(args.config)
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        print(
            "bursar serve: the configuration is not usable; `bursar check` says the same without starting",
            file=sys.stderr,
        )
        return 1
    if args.listen:
        loaded = replace(loaded, config=msgspec.structs.replace(loaded.config, listen=args.listen))
    if args.worker_fd is not None:
        ops = msgspec.structs.replace(loaded.config.ops, listen="127.0.0.1:0")
        loaded = replace(loaded, config=msgspec.structs.replace(loaded.config, ops=ops))
    elif args.workers > 1:
        from proxy.cli.serving_workers import serve_workers

        return asyncio.run(serve_workers(loaded, args.workers, args.config))
    return asyncio.run(serve(loaded, worker_fd=args.worker_fd))


async def serve(loaded: "Loaded", *, worker_fd: int | None = None) -> int:
    """Start, print the banner (or, as a worker, tell the parent), wait for a signal, drain."""
    from accounting.store.errors import StoreError
    from adapters.credentials.files import CredentialsError
    from proxy import logs, pidfile
    from proxy.sidecar import Sidecar

    config = loaded.config
    logs.set_up(config.log.level, config.log.format)
    try:
        sidecar = Sidecar(config, os.environ, defaults=loaded.defaults, reuse_port=worker_fd is not None)
        await sidecar.start()
    except (StoreError, CredentialsError, ValueError) as error:
        print(f"bursar serve: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"bursar serve: cannot listen: {error.strerror}; set listen: and ops.listen: to free ports", file=sys.stderr
        )
        return 1
    gc.collect()
    gc.freeze()  # what is there now stays: later collections need not look at it
    gc.set_threshold(GC_YOUNG, 20, 50)  # calls make little that only a collection frees: look less often
    if worker_fd is not None:
        from proxy.worker import tell_parent

        with contextlib.ExitStack() as stack:
            tell = partial(tell_parent, worker_fd, sidecar.ops_url)
            await until_stopped(sidecar, loaded.source, lambda: stack.enter_context(tell()))
        return 0
    with pidfile.held(Path(config.store.data_dir)):
        await until_stopped(sidecar, loaded.source, lambda: print(banner(loaded, sidecar), flush=True))
    return 0


def banner(loaded: "Loaded", sidecar: "Sidecar | Workers") -> str:
    """Return what is printed when calls are answered."""
    from proxy.config.describe import describe

    rows = [f"    {row.name:<12} {row.kind:<10} key {row.key}" for row in describe(loaded.config)]
    return "\n".join([
        "",
        f"  Bursar answers at   {sidecar.url}/v1",
        f"  metrics, probes     {sidecar.ops_url}/metrics",
        f"  configuration       {loaded.source}",
        f"  store               {loaded.config.store.url}",
        "  providers",
        *rows,
        "",
    ])  # fmt: skip


async def until_stopped(
    sidecar: "Sidecar | Workers", source: str | None = None, announce: Callable[[], object] = lambda: None
) -> None:
    """`announce` once signals are heeded and the file is watched; wait for SIGTERM, SIGINT or the admin listener's drain, then drain; a second signal hurries. SIGHUP reloads the file."""
    loop, stop, hurry = asyncio.get_running_loop(), sidecar.drain_asked, asyncio.Event()

    def signalled() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    if source not in (None, "environment"):
        loop.add_signal_handler(
            signal.SIGHUP, lambda: sidecar.supervisor.spawn(sidecar.reload_file(str(source)), name="reload")
        )
    watching = asyncio.ensure_future(sidecar.watch_file(str(source))) if source not in (None, "environment") else None
    await asyncio.sleep(0)  # the watch has begun
    announce()
    await stop.wait()
    if watching is not None:
        watching.cancel()
    stopping = asyncio.ensure_future(sidecar.stop())
    hurried = asyncio.ensure_future(hurry.wait())
    await asyncio.wait({stopping, hurried}, return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        sidecar.hurry()
    await stopping
    hurried.cancel()
