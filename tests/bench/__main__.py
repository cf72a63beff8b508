"""`python -m tests.bench`: measures Bursar and the peers that are here, in interleaved rounds, and prints a table.

One proxy runs at a time, alone on its core; load generator, provider and Bursar's store have the other. Wall-clock figures of
a shared machine are worth little; CPU time per call, and ratios within one run, are what to trust.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter

from tests.bench import measure
from tests.bench.load import ask
from tests.bench.peers import ROOT, MissingError, Peer, Provider, all_peers, cache_dir
from tests.bench.picture import picture
from tests.bench.table import Figures, figures, ratios, table
from tests.bench.trial import Latency, Result, Trial, VoidError, latencies


def main() -> int:
    """Run it; return 0, 1 if nothing could be measured, 2 on misuse."""
    args = _arguments()
    if sys.platform != "linux":
        print("the benchmark reads /proc: it needs Linux", file=sys.stderr)
        return 2
    peers, missing, versions = _here(args.only, install=not args.no_install)
    if not peers:
        print("nobody to measure: " + "; ".join(f"{name}: {why}" for name, why in missing.items()), file=sys.stderr)
        return 1
    about = measure.machine()
    measured, voids = asyncio.run(_rounds(peers, args))
    if not measured:
        print("nothing was measured: " + "; ".join(f"{name}: {why}" for name, why in voids.items()), file=sys.stderr)
        return 1
    _say(args, about, versions, measured, missing | voids)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured (default 3)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each of the three measurements (default 4)")
    parser.add_argument("--only", metavar="NAMES", help=f"of {', '.join(p.name for p in all_peers())}; with commas")
    parser.add_argument("--limit-s", type=float, default=1200.0, help="begin nothing new after so long (default 1200)")
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    parser.add_argument("--svg", metavar="FILE", help="draw the result there")
    parser.add_argument("--no-install", action="store_true", help="measure what is installed")
    args = parser.parse_args()
    if args.rounds < 1 or args.seconds <= 0:
        parser.error("--rounds and --seconds want more than nothing")
    names = {peer.name for peer in all_peers()}
    args.only = set(args.only.split(",")) if args.only else names
    if unknown := args.only - names:
        parser.error(f"nobody is called {', '.join(sorted(unknown))}")
    return args


def _here(only: set[str], *, install: bool) -> tuple[list[Peer], dict[str, str], dict[str, str]]:
    peers, missing, versions, cache = [], {}, {}, cache_dir()
    for peer in (peer for peer in all_peers() if peer.name in only):
        try:
            peer.prepare(cache, install=install)
        except MissingError as error:
            missing[peer.name] = str(error)
            continue
        peers.append(peer)
        versions[peer.name] = f"{peer.version(cache)} ({peer.what})"
    return peers, missing, versions


async def _rounds(peers: list[Peer], args: argparse.Namespace) -> tuple[dict[str, Figures], dict[str, str]]:
    cores, began_s, cache = measure.cores(), perf_counter(), cache_dir()
    if not cores.apart:
        print("only one core: load and proxy disturb each other, compare nothing", file=sys.stderr)
    os.sched_setaffinity(0, cores.rest)
    results: dict[str, list[Result]] = {peer.name: [] for peer in peers}
    direct: dict[str, list[Latency]] = {peer.name: [] for peer in peers}
    voids: dict[str, str] = {}
    for number in range(args.rounds):
        for peer in peers[number % len(peers) :] + peers[: number % len(peers)]:  # nobody is always first
            if peer.name in voids:
                continue
            if perf_counter() - began_s > args.limit_s:
                voids["limit"] = f"round {number + 1} was not finished: {args.limit_s:.0f} s were over"
                break
            print(f"round {number + 1} of {args.rounds}: {peer.name}", file=sys.stderr, flush=True)
            try:
                latency, result = await _trial(peer, cache, cores, args.seconds)
            except (VoidError, MissingError) as error:
                voids[peer.name] = str(error)
                continue
            results[peer.name].append(result)
            direct[peer.name].append(latency)
    return {name: figures(found, direct[name]) for name, found in results.items() if found}, voids


async def _trial(peer: Peer, cache: Path, cores: measure.Cores, seconds: float) -> tuple[Latency, Result]:
    """Measure one peer beside a provider of its own; return the latency without a proxy, and the figures."""
    upstream = subprocess.Popen([sys.executable, "-m", "tests.bench.upstream"], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert upstream.stdout is not None
        ports = json.loads(await asyncio.to_thread(upstream.stdout.readline) or b"{}")
        if not ports:
            raise VoidError("the benchmark's own provider did not start")
        provider = Provider(ports["plain"], ports["tls"], ports["ca"])
        bare = ask("127.0.0.1", provider.port, path="/v1/chat/completions", headers={"authorization": "Bearer x"})
        latency = await latencies(bare, min(seconds, 2.0))
        return latency, await Trial(peer, cache, provider, cores, seconds=seconds).run()
    finally:
        upstream.kill()
        upstream.wait()
        if upstream.stdout is not None:
            upstream.stdout.close()


def _say(
    args: argparse.Namespace,
    about: dict[str, str],
    versions: dict[str, str],
    measured: dict[str, Figures],
    missing: dict[str, str],
) -> None:
    facts = ", ".join(f"{name} {value}" for name, value in about.items())
    print(f"\n{table(measured)}\n\n{ratios(measured)}\n")
    print(
        f"median (lowest–highest) of {args.rounds} rounds of {args.seconds:g} s; each proxy on one core, load and provider on another"
    )
    print(
        "CPU per chunk holds its share of its call; added latency is to the same call without a proxy, one call at a time, "
        "and at 40 calls a second (cold caches)"
    )
    print(facts)
    for name, version in versions.items():
        print(f"  {name}: {version}")
    for name, why in missing.items():
        print(f"  not measured, {name}: {why}")
    if args.json:
        whole = {
            "machine": about,
            "versions": versions,
            "missing": missing,
            "rounds": args.rounds,
            "seconds": args.seconds,
        }
        Path(args.json).write_text(json.dumps({**whole, "figures": measured}, indent=1) + "\n")
    if args.svg:
        notes = [facts, *(f"{name} {versions[name]}" for name in measured)]
        Path(args.svg).write_text(picture(measured, notes))


if __name__ == "__main__":
    sys.exit(main())
