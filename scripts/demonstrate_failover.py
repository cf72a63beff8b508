"""Shows that a client sees no error that it did not have to see: of three providers one is killed, one stalls, one limits.

Three fake providers stand behind one sidecar; streams and whole calls run all the time. Then, one after another, the first
provider is killed, and comes back; the second answers 500, then says nothing for longer than its limit; the third refuses with
429. At least one is always well. At the end the ledger is compared with what the providers say that they bill.

    python scripts/demonstrate_failover.py            about 20 seconds
    python scripts/demonstrate_failover.py --seconds 2 --clients 8
"""

import argparse
import asyncio
import collections
import sys
import tempfile
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import openai

sys.path.insert(0, str(Path(__file__).parent.parent))

from accounting.charge import Receipt
from accounting.tokens.counter import count_text
from proxy.config.load import load_text
from proxy.fake import FakeProvider, Script
from proxy.sidecar import Sidecar

KEY = "sk-demonstration-0123456789abcdef"
CONFIG = """
listen: 127.0.0.1:0
ops: {{listen: "127.0.0.1:0"}}
store: {{url: embedded, data_dir: "{dir}"}}
providers:
  one: {{kind: fake, base_url: "{one}", api_keys: [sk-one-0123456789]}}
  two: {{kind: fake, base_url: "{two}", api_keys: [sk-two-0123456789]}}
  three: {{kind: fake, base_url: "{three}", api_keys: [sk-three-0123456789]}}
models:
  m: {{balance: weighted, targets: [{{to: one/fake-1}}, {{to: two/fake-1}}, {{to: three/fake-1}}]}}
keys: [{{id: shop, user: shop, secret: {key}}}]
budgets: [{{subject: "user:shop", usd: 1000, period: day}}]
prices: {{"*/*": {{input: 1, output: 2}}}}
timeouts: {{connect: 1, first_token: 1, idle: 1}}
"""


@dataclass(slots=True)
class Tally:
    """What the clients saw, by phase."""

    ok: collections.Counter[str] = field(default_factory=collections.Counter)
    failed: collections.Counter[str] = field(default_factory=collections.Counter)
    cut: collections.Counter[str] = field(default_factory=collections.Counter)
    phase: str = "all well"


def count(text: str) -> int:
    """Count as Bursar counts, so that both bills can be equal to the token."""
    return count_text(text, "o200k_base")


async def client(sdk: openai.AsyncOpenAI, number: int, tally: Tally, stop: asyncio.Event) -> None:
    """Call until told to stop, as any application does: with the SDK as it comes. Every second call is a stream.

    A stream that was cut after its first bytes is counted apart: nobody can take back what was sent.
    """
    turn = 0
    while not stop.is_set():
        turn += 1
        phase = tally.phase
        messages = [{"role": "user", "content": f"client {number}, turn {turn}"}]
        try:
            if turn % 2:
                await sdk.chat.completions.create(model="m", messages=messages)
            else:
                chunks = [c async for c in await sdk.chat.completions.create(model="m", messages=messages, stream=True)]
                assert chunks[-1].choices[0].finish_reason in ("stop", "length")
            tally.ok[phase] += 1
        except openai.APIStatusError:
            tally.failed[phase] += 1
        except openai.APIError:
            tally.cut[phase] += 1


async def phases(fakes: dict[str, FakeProvider], stack: AsyncExitStack, tally: Tally, seconds: float) -> None:
    """Break one provider after another, and mend it again."""
    one, two, three = fakes.values()
    await asyncio.sleep(seconds)
    tally.phase = "one killed"
    await one.__aexit__(None, None, None)
    await asyncio.sleep(seconds)
    tally.phase = "one killed, two answers 500"
    two.script = Script(status=500)
    await asyncio.sleep(seconds)
    tally.phase = "one killed, two stalls"
    two.script = Script(hang=True)
    await asyncio.sleep(seconds)
    tally.phase = "one killed, two well, three limits"
    two.script, three.script = Script(), Script(status=429, retry_after="30")
    await asyncio.sleep(seconds)
    tally.phase = "one is back"
    three.script = Script()
    fakes["one again"] = await stack.enter_async_context(FakeProvider(port=one._port, count=count))  # noqa: SLF001
    await asyncio.sleep(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """The ledger beside the providers' bills, in nano-USD: of calls that ended well, and of those whose usage nobody told."""

    ledger: int
    billed: int
    estimated: int
    estimated_billed: int
    different: int  # calls that ended well and were charged otherwise than billed
    held: int


def compare(receipts: list[Receipt], fakes: Iterable[FakeProvider], held: int) -> Books:
    """Lay the receipts beside the invoices, call by call."""
    bills: collections.Counter[str] = collections.Counter()
    for fake in fakes:
        for entry in fake.invoice:
            bills[entry.request_id] += 1000 * entry.prompt_tokens + 2000 * entry.completion_tokens
    exact = [r for r in receipts if not r.usage.estimated]
    rest = [r for r in receipts if r.usage.estimated]
    return Books(
        ledger=sum(r.cost_nanousd or 0 for r in exact),
        billed=sum(bills[r.request_id] for r in exact),
        estimated=sum(r.cost_nanousd or 0 for r in rest),
        estimated_billed=sum(bills[r.request_id] for r in rest),
        different=sum((r.cost_nanousd or 0) != bills[r.request_id] for r in exact),
        held=held,
    )


async def demonstrate(seconds: float, clients: int) -> tuple[Tally, Books]:
    """Return what the clients saw, and what was charged."""
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            fakes = {
                name: await stack.enter_async_context(FakeProvider(count=count)) for name in ("one", "two", "three")
            }
            urls = {name: fake.url for name, fake in fakes.items()}
            loaded = load_text(CONFIG.format(dir=folder, key=KEY, **urls), "demonstration.yaml", {})
            sidecar = Sidecar(loaded.config)
            receipts: list[Receipt] = []
            tell = sidecar.telemetry.receipt
            sidecar.telemetry.receipt = lambda receipt: (receipts.append(receipt), tell(receipt))  # type: ignore[method-assign]
            await sidecar.start()
            tally, stop = Tally(), asyncio.Event()
            try:
                sdk = openai.AsyncOpenAI(api_key=KEY, base_url=sidecar.url + "/v1", timeout=30)
                async with sdk, asyncio.TaskGroup() as group:
                    for number in range(clients):
                        group.create_task(client(sdk, number, tally, stop))
                    await phases(fakes, stack, tally, seconds)
                    stop.set()
            finally:
                await sidecar.stop(5)
            return tally, compare(receipts, fakes.values(), len(sidecar.ledger.open))


def main() -> int:
    """Run it and print what came of it; 0 if every promise held."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each of the six phases")
    parser.add_argument("--clients", type=int, default=16, help="clients at once")
    args = parser.parse_args()
    tally, books = asyncio.run(demonstrate(args.seconds, args.clients))
    print(f"{'phase':<38}{'answered':>9}{'errors':>9}{'streams cut':>13}")
    for phase in dict.fromkeys([*tally.ok, *tally.failed, *tally.cut]):
        print(f"{phase:<38}{tally.ok[phase]:>9}{tally.failed[phase]:>9}{tally.cut[phase]:>13}")
    print(f"\nledger            {books.ledger / 1e9:.9f} USD\nproviders' bills  {books.billed / 1e9:.9f} USD")
    print(f"calls charged otherwise than billed: {books.different}; holds left: {books.held}")
    print(
        f"calls without a word on usage: charged {books.estimated / 1e9:.9f}, billed {books.estimated_billed / 1e9:.9f} USD"
    )
    good = not tally.failed and not books.different and books.ledger == books.billed and not books.held
    print("no client saw an error that it did not have to see" if good else "a promise was broken")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
