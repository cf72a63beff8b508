"""Several fake providers behind one sidecar, with the bill of each beside the ledger."""

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

from proxy.fake import FakeProvider
from tests.sidecars import house

PRICES = 'prices: {"*/*": {input: 1, output: 2}}\n'
NAMES = "abc"


def providers_text(fakes, keys=("sk-provider-0123456789abcdef012345",), extra=""):
    quoted = ", ".join(f'"{key}"' for key in keys)
    rows = [f'  {name}: {{kind: fake, base_url: "{url}", api_keys: [{quoted}]{extra}}}' for name, url in fakes.items()]
    # config_text formats the text once more
    return "providers:\n" + "\n".join(rows).replace("{", "{{").replace("}", "}}") + "\n"


class Fleet:
    """A house and its providers by name."""

    def __init__(self, home, fakes):
        self.home, self.fakes = home, fakes

    @property
    def trier(self):
        return self.home.sidecar.routes.gateway.trier

    @property
    def billed(self):
        """All entries of all invoices."""
        return [entry for fake in self.fakes.values() for entry in fake.invoice]

    def calls(self, name):
        return len(self.fakes[name].invoice)

    async def agree(self):
        """Wait until all is settled; return (ledger, invoices) in nano-USD at the prices of PRICES."""
        await self.home.settled()
        for fake in self.fakes.values():
            await fake.until(lambda fake=fake: fake.in_flight == 0)
        ledger = sum(receipt.cost_nanousd or 0 for receipt in self.home.receipts)
        return ledger, sum(1000 * e.prompt_tokens + 2000 * e.completion_tokens for e in self.billed)


@asynccontextmanager
async def fleet(
    store,
    data_dir,
    count=2,
    *,
    models=None,
    keys=("sk-provider-0123456789abcdef012345",),
    extra="",
    accept=None,
    prices=PRICES,
    **more,
):
    """Start `count` providers a, b, c … and a house that tries them in order as `m`. `accept`: the API keys that they take."""
    async with AsyncExitStack() as stack:
        settings = {} if accept is None else {"api_keys": accept}
        fakes = {
            name: await stack.enter_async_context(FakeProvider(count=_count, **settings)) for name in NAMES[:count]
        }
        text = providers_text({name: fake.url for name, fake in fakes.items()}, keys, extra)
        targets = ", ".join(f"{name}/fake-1" for name in fakes)
        models = models or f'models: {{m: [{targets}], "a/*": "a/*"}}\n'
        home = await stack.enter_async_context(
            house(store, data_dir, fake=fakes["a"], providers=text, models=models, prices=prices, **more)
        )
        yield Fleet(home, fakes)


def _count(text):
    from accounting.tokens.counter import count_text

    return count_text(text, "o200k_base")


async def together(*calls):
    return await asyncio.gather(*calls)
