"""`python -m proxy.fake`: the fake provider as a process of its own, for tests that kill things and for benchmarks."""

import argparse
import asyncio
import sys
from pathlib import Path

from proxy.fake.server import serve


def main() -> None:
    """Serve until interrupted; the first line of stdout is the base URL."""
    parser = argparse.ArgumentParser(prog="python -m proxy.fake", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--pace", type=float, default=0, help="tokens per second; 0 is as fast as possible")
    parser.add_argument("--billing", choices=["cancel", "drain"], default="cancel")
    parser.add_argument("--invoice", type=Path, help="write what is billed to this file, as JSON lines")
    args = parser.parse_args()
    settings = {"port": args.port, "pace": args.pace, "billing": args.billing, "invoice_file": args.invoice}
    try:
        asyncio.run(serve(_announce, **settings))
    except KeyboardInterrupt:
        sys.exit(0)


def _announce(url: str) -> None:
    sys.stdout.write(url + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
