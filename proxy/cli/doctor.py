"""`bursar doctor`: looks at everything that a proxy needs, and names the remedy of each thing that is wrong."""

import argparse
import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path

from accounting.store.errors import StoreError
from proxy.cli.connected import OPEN_S, add_command, load_for_command, run_plain, store_time_ms
from proxy.cli.findings import Finding, bad, fine, note
from proxy.cli.reachability import provider_findings
from proxy.cli.talking import ask_ops, local_address
from proxy.config.describe import describe
from proxy.config.load import Loaded
from proxy.config.model import Config
from proxy.config.problem import ConfigError
from proxy.reaching import open_store

PRICES_DAYS_MAX = 120
SKEW_MS_MAX = 2_000
LATENCY_PROBES = 5
_EXAMPLE = """  bursar doctor                   exit code 1 if anything is wrong
  bursar doctor --network         also connects to each provider (TCP and TLS, no call)
  bursar doctor --json | jq '.[] | select(.state == "bad")'
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `doctor` to the commands."""
    parser = add_command(subparsers, "doctor", "look for what is wrong, and name its remedy", _EXAMPLE)
    parser.add_argument("--network", action="store_true", help="connect to each provider, without calling it")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look at everything; return 0 (fine), 1 (something is wrong) or 2 (misuse)."""

    async def act() -> int:
        found = [finding async for finding in examined(args.config, network=args.network)]
        if args.json:
            print(json.dumps([each._asdict() for each in found], ensure_ascii=False))
        else:
            for each in found:
                print(f"{each.state:<5} {each.name:<22} {each.detail}")
                if each.remedy:
                    print(f"{'':<28} -> {each.remedy}")
        return 1 if any(each.state == "bad" for each in found) else 0

    return run_plain("doctor", act)


async def examined(file: str | None, *, network: bool) -> AsyncIterator[Finding]:
    """Yield what is found, the configuration first; nothing else where that cannot be read."""
    try:
        loaded = load_for_command(file)
    except ConfigError as error:
        for problem in error.problems:
            yield bad("configuration", str(problem), "mend it, then run bursar check")
        return
    config = loaded.config
    yield fine("configuration", f"{loaded.source}: every check passed")
    for finding in await store_findings(config):
        yield finding
    for finding in (*key_findings(config), *table_findings(), *file_findings(loaded)):
        yield finding
    async for finding in proxy_findings(config):
        yield finding
    if network:
        async for finding in provider_findings(config):
            yield finding


async def store_findings(config: Config) -> list[Finding]:
    """Look at the store: reachable, how fast, its settings, its clock."""
    where = str(config.store.url)
    try:
        store, embedded = open_store(config)
    except ValueError as error:
        return [bad("store", where, str(error))]
    store.hard = any(budget.mode == "hard" for budget in config.budgets)
    loop = asyncio.get_running_loop()
    try:
        warnings = await store.start(OPEN_S)
        took_ms = []
        for _ in range(LATENCY_PROBES):
            began_s = loop.time()
            await store.call("PING", deadline_s=2.0)
            took_ms.append((loop.time() - began_s) * 1000)
        skew_ms = await store_time_ms(store) - int(datetime.now(UTC).timestamp() * 1000)
        assert store.info is not None
        version = ".".join(map(str, store.info.version))
        found = [
            fine("store", f"{where}: version {version}"),
            _latency(sorted(took_ms)[LATENCY_PROBES // 2], config.store.deadline_ms),
            _policy(store.info.policy),
            *(note("store settings", warning) for warning in warnings),
        ]
        if not warnings and store.info.aof:
            found.append(fine("store settings", "append-only file on"))
        late = abs(skew_ms) > SKEW_MS_MAX
        remedy = "budgets follow the store's clock: set both by NTP"
        found.append(
            (note if late else fine)("clock", f"the store is {skew_ms:+d} ms from here", *([remedy] if late else []))
        )
        return found
    except StoreError as error:
        return [bad("store", f"{where}: {error}", "start it, or set store.url or REDIS_URL to one that runs")]
    finally:
        await store.close()
        if embedded is not None:
            await embedded.stop()


def key_findings(config: Config) -> Iterator[Finding]:
    """Look at the providers' credentials, as far as the configuration tells."""
    if not config.providers:
        yield bad("providers", "none is configured", "set OPENAI_API_KEY, or write a file with `bursar init`")
    for row in describe(config):
        name, shown = f"provider {row.name}", f"{row.kind} {row.base_url}".rstrip()
        if row.key == "missing":
            yield bad(name, f"{shown}: no API key", f"set providers.{row.name}.api_keys")
        else:
            word = {"ok": "key set", "none": "needs no key", "machine": "credentials come from this machine"}[row.key]
            yield fine(name, f"{shown}: {word}")


def table_findings() -> Iterator[Finding]:
    """Look at what ships: token ranks and prices."""
    from accounting.prices.table import table_version
    from accounting.tokens.ranks import load

    try:
        encoding = load("o200k_base")
        yield fine("token ranks", f"o200k_base, {encoding.n_vocab} tokens")
    except (OSError, ValueError, ImportError) as error:
        yield bad(
            "token ranks", f"cannot be loaded ({type(error).__name__})", "install Bursar anew: its package is not whole"
        )
    days = (datetime.now(UTC).date() - date.fromisoformat(table_version())).days
    if days > PRICES_DAYS_MAX:
        remedy = "upgrade Bursar, or set newer prices: bursar prices update --from FILE"
        yield note("price table", f"of {table_version()}, {days} days old", remedy)
    else:
        yield fine("price table", f"of {table_version()}")


def file_findings(loaded: Loaded) -> Iterator[Finding]:
    """Look at who may read the data directory and the configuration."""
    folder, file = Path(loaded.config.store.data_dir), Path(loaded.source)
    if folder.is_dir():
        mode = folder.stat().st_mode & 0o777
        if not os.access(folder, os.W_OK):
            yield bad("data_dir", f"{folder} cannot be written", "give it to the user that runs Bursar")
        elif mode & 0o077:
            yield bad("data_dir", f"{folder} has mode {mode:o}: others can read it", f"chmod 700 {folder}")
        else:
            yield fine("data_dir", f"{folder}, mode {mode:o}")
    else:
        yield note("data_dir", f"{folder} is not there yet: serve makes it")
    if file.is_file() and file.stat().st_mode & 0o002:
        yield bad("configuration file", f"{file} can be changed by anybody", f"chmod o-w {file}")


async def proxy_findings(config: Config) -> AsyncIterator[Finding]:
    """Look at the running proxy, or at whether one could listen."""
    reply = await ask_ops(config, "GET", "/readyz")
    status = reply.json() if reply else None
    if reply is not None and isinstance(status, dict) and "status" in status:
        if reply.status == 200:  # noqa: PLR2004
            yield fine("proxy", f"runs and is ready ({config.ops.listen})")
        else:
            checks = "; ".join(map(str, (status.get("checks") or {}).values()))
            yield bad("proxy", f"runs, but is not ready: {checks}", "mend what it names; it becomes ready by itself")
        for finding in upstream_findings(status.get("upstreams") or {}):
            yield finding
        return
    for name, listen in (("listen", config.listen), ("ops.listen", config.ops.listen)):
        host, port = local_address(listen)
        taken = port and await _answers(host, port)
        if taken:
            yield bad(name, f"{listen} is taken by another program", f"stop it, or set {name} to a free port")
        else:
            yield fine(name, f"{listen} is free")


def upstream_findings(upstreams: Mapping[str, Mapping[str, int]]) -> Iterator[Finding]:
    """Say what a running proxy has met at its providers: targets that keep failing, API keys that are refused or limited."""
    for name, state in upstreams.items():
        left_out, resting = state.get("targets_left_out", 0), state.get("keys_resting", 0)
        if left_out:
            remedy = "the log says why its calls fail; it is tried again by itself"
            yield note(f"upstream {name}", f"{left_out} of its targets kept failing and are left out for now", remedy)
        if resting:
            remedy = f"look whether providers.{name}.api_keys are valid, and within their limits and quota"
            yield note(f"upstream {name}", f"{resting} of its API keys were refused or limited and rest", remedy)
        if not left_out and not resting:
            yield fine(f"upstream {name}", "every target and every API key is in use")


async def _answers(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(1.0):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def _latency(median_ms: float, deadline_ms: int) -> Finding:
    detail = f"{median_ms:.1f} ms a round trip (of {deadline_ms} ms that an admission may take)"
    if median_ms * 4 > deadline_ms:
        return bad("store latency", detail, "move the store closer, or raise store.deadline_ms")
    return fine("store latency", detail)


def _policy(policy: str | None) -> Finding:
    if policy is None:
        return note("store eviction", "the store does not tell its maxmemory-policy", "make sure that it is noeviction")
    if policy != "noeviction":
        remedy = "CONFIG SET maxmemory-policy noeviction, and in the server's configuration"
        return bad("store eviction", f"maxmemory-policy is {policy}: counters may be deleted", remedy)
    return fine("store eviction", policy)
