"""`bursar demo`: the whole of Bursar on this machine, with a provider of its own: no key, no network, no file."""

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

PACE_TOKENS_PER_S = 40
BUDGET_USD = "0.32"  # some five calls of the built-in provider
_EXAMPLE = """example:
  bursar demo          then paste what it prints; after a few calls the budget refuses
"""
_CONFIG = """
listen: 127.0.0.1:{port}
ops: {{listen: "127.0.0.1:{ops_port}"}}
store: {{url: embedded, data_dir: "{data_dir}"}}
providers:
  fake: {{kind: fake}}
models: {{fake-1: fake/fake-1, "*": fake/*}}
keys: [{{id: demo, user: demo, secret: "{key}"}}]
budgets: [{{subject: "user:demo", usd: {budget}, period: day}}]
prices: {{"fake/*": {{input: 100, output: 500}}}}
log: {{level: warning}}
"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `demo` to the commands."""
    parser = subparsers.add_parser(
        "demo",
        help="try it: no key, no network",
        description="Run Bursar with its built-in provider and a small budget. Nothing is kept afterwards.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the demo until it is interrupted."""
    del args
    folder = tempfile.mkdtemp(prefix="bursar-demo-")
    try:
        return asyncio.run(_demo(Path(folder)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _demo(folder: Path) -> int:
    from accounting.store.errors import StoreError
    from proxy import logs
    from proxy.cli.serve import until_stopped
    from proxy.config.load import load_text
    from proxy.sidecar import Sidecar

    logs.set_up("warning", "text")
    key = "sk-bursar-" + secrets.token_urlsafe(24)
    port, ops_port = _free(8080), _free(9090)
    text = _CONFIG.format(port=port, ops_port=ops_port, data_dir=folder, key=key, budget=BUDGET_USD)
    sidecar = Sidecar(load_text(text, "demo", {}).config, fake_pace=PACE_TOKENS_PER_S)
    try:
        await sidecar.start()
    except (StoreError, OSError) as error:
        print(f"bursar demo: {error}", file=sys.stderr)
        return 1
    announce = partial(print, _banner(sidecar.url, sidecar.ops_url, key), flush=True)
    await until_stopped(sidecar, announce=announce)
    return 0


def _banner(url: str, ops_url: str, key: str) -> str:
    return f"""
  Bursar demo: a built-in provider answers, and user:demo may spend ${BUDGET_USD} today.

  base URL   {url}/v1
  metrics    {ops_url}/metrics

OPENAI_API_KEY={key}

curl -s {url}/v1/chat/completions -H "Authorization: Bearer {key}" -H "Content-Type: application/json" -d '{{"model": "fake-1", "messages": [{{"role": "user", "content": "Hello"}}]}}'

from openai import OpenAI
print(OpenAI(base_url="{url}/v1", api_key="{key}").chat.completions.create(model="fake-1", messages=[{{"role": "user", "content": "Hello"}}]).choices[0].message.content)

  Call it a few times: the budget refuses, and says why. What is left: curl -s {url}/v1/budget -H "Authorization: Bearer {key}"
  Ctrl-C ends the demo.
"""


def _free(port: int) -> int:
    """Return the port if nobody has it, else 0: any that is free."""
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port
