"""Running Bursars for the tests: in this process, or as real processes; with a fake provider and one store for all of them.

Each house has a prefix of its own in the store, so tests share one server and see nothing of each other. Waiting is always
for something that happened (a receipt, a settlement, a line of output), never for time.
"""

import asyncio
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import openai
import pytest

from accounting.budgets import Budget
from accounting.reading import Reader
from accounting.store.embedded import find_server
from accounting.store.resp import Address, connect
from accounting.stored import StoredConfig
from accounting.tokens.counter import count_text
from proxy.config.load import load_text
from proxy.fake import FakeProvider
from proxy.sidecar import Sidecar

ROOT = Path(__file__).parent.parent
KEY = "sk-alice-0123456789abcdef0123456789"
PROVIDER_KEY = "sk-provider-0123456789abcdef012345"
MODEL = "gpt-4o"  # one whose tokenizer is known; the fake provider answers to any name
HELLO_TOKENS = 14
HELLO = [{"role": "user", "content": "Say hello to the treasurer."}]
NANO = 10**9
_numbers = itertools.count()

BASE = """
listen: 127.0.0.1:0
ops: {{listen: "127.0.0.1:0"{ops}}}
store: {{url: "{store}", prefix: "{prefix}", data_dir: "{data_dir}", deadline_ms: {deadline_ms}}}
log: {{level: info, format: json}}
"""
PROVIDERS = 'providers: {{fake: {{kind: fake, base_url: "{fake}", api_keys: ["' + PROVIDER_KEY + '"]}}}}\n'
MODELS = 'models: {fake-1: fake/fake-1, "org/with/slashes": fake/fake-1, "*": fake/*}\n'
KEYS = f'keys: [{{id: alice-laptop, user: alice, team: lab, secret: "{KEY}"}}]\n'
PRICES = 'prices: {"fake/*": {input: 1, output: 2}}\n'  # 1,000 nano-USD per input token, 2,000 per output token


def counted(text):
    """What the fake provider counts with: the tokenizer of MODEL, so that its bill and our count are the same."""
    return count_text(text, "o200k_base")


class StoreServer:
    """A Valkey server of the tests' own on a unix socket, empty at the start."""

    def __init__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="bt-"))
        self.socket = self.dir / "s"
        self.process = None

    @property
    def url(self):
        return f"unix://{self.socket}"

    def start(self):
        command = [find_server(), "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.dir)]
        command += ["--appendonly", "yes", "--appendfsync", "no", "--save", "", "--maxmemory-policy", "noeviction"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in self.process.stdout:
            if "ready to accept connections" in line.lower():
                return
        raise AssertionError("the store did not start")

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def close(self):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    async def command(self, *words):
        connection = await connect(Address(path=str(self.socket)), timeout_s=5)
        try:
            return await connection.call(*words, deadline_s=5)
        finally:
            connection.close()


@pytest.fixture(scope="session")
def store():
    """One server for all tests of this process."""
    server = StoreServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def own_store():
    """A server that a test may kill."""
    server = StoreServer()
    server.start()
    yield server
    server.close()


class House:
    """A running sidecar in this process with its fake provider; `receipts` are those of all calls that ended."""

    def __init__(self, sidecar, fake, text, http):
        self.sidecar, self.fake, self.text, self.http = sidecar, fake, text, http
        self.receipts = []
        self._changed = asyncio.Event()
        tell = sidecar.telemetry.receipt

        def noted(receipt):
            tell(receipt)
            self.receipts.append(receipt)
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

        sidecar.telemetry.receipt = noted

    @property
    def url(self):
        return self.sidecar.url + "/v1"

    @property
    def port(self):
        return int(self.sidecar.url.rpartition(":")[2])

    def sdk(self, key=KEY, **more):
        """An async SDK client that hides nothing: no retries, every shape checked."""
        settings = {"max_retries": 0, "timeout": 20, "_strict_response_validation": True} | more
        return openai.AsyncOpenAI(api_key=key, base_url=self.url, **settings)

    def sync_sdk(self, key=KEY, **more):
        settings = {"max_retries": 0, "timeout": 20, "_strict_response_validation": True} | more
        return openai.OpenAI(api_key=key, base_url=self.url, **settings)

    async def post(self, path="/chat/completions", key=KEY, headers=None, **body):
        """Send JSON; return the whole answer."""
        return await self.send("POST", path, key=key, headers=headers, data=json.dumps(body).encode())

    async def chat(self, model=MODEL, key=KEY, headers=None, **more):
        return await self.post(key=key, headers=headers, model=model, messages=more.pop("messages", HELLO), **more)

    async def get(self, path, key=KEY):
        return await self.send("GET", path, key=key)

    async def send(self, method, path, *, key=KEY, headers=None, data=None):
        known = {"authorization": f"Bearer {key}"} if key else {}
        if data is not None:
            known["content-type"] = "application/json"
        async with self.http.request(method, self.url + path, headers=known | (headers or {}), data=data) as answer:
            return Reply(answer.status, answer.headers, await answer.read())

    async def ops(self, path, method="GET", headers=None):
        async with self.http.request(method, self.sidecar.ops_url + path, headers=headers) as answer:
            return Reply(answer.status, answer.headers, await answer.read())

    async def until_receipts(self, count, timeout_s=20):
        """Wait until so many calls have ended, and the store has all of them."""
        async with asyncio.timeout(timeout_s):
            while len(self.receipts) < count:
                await self._changed.wait()
        await self.settled(timeout_s)

    async def settled(self, timeout_s=20):
        """Wait until no call is open and the store has every settlement."""
        async with asyncio.timeout(timeout_s):
            while self.sidecar.ledger.open:
                await self._changed.wait()
            while self.sidecar.ledger.settler.pending:
                tasks = [t for t in self.sidecar.supervisor._tasks if t.get_name() in ("settle", "finish")]
                await (asyncio.wait(tasks) if tasks else self.sidecar.ledger.settler.heard())

    async def balances(self):
        """(used, held) by (subject, unit), read from the store by the sidecar's own reader."""
        budgets = [b for b in self.sidecar.routes.gateway.rules.admitter.book.all() if not b.subject.endswith(":*")]
        found = await Reader(self.sidecar.store).balances(budgets, self.sidecar.ledger.now_ms())
        return {(f.row.budget.subject, f.row.budget.unit): (f.row.used, f.row.held) for f in found}

    async def records(self):
        """All usage records in the store."""
        return [record async for record in Reader(self.sidecar.store).records()]

    async def metrics(self):
        """Samples of /metrics by name and labels; read past the second for which a scrape is kept."""
        return samples(await self.scrape())

    async def scrape(self):
        self._ops._metrics_at_s = -1e9
        return (await self.ops("/metrics")).body.decode()

    @property
    def _ops(self):
        from gc import get_objects

        from proxy.ops import Ops

        return next(o for o in get_objects() if type(o) is Ops and o.registry is self.sidecar.telemetry.registry)

    def stored(self):
        return StoredConfig(self.sidecar.store)


class Reply:
    """A whole answer."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self):
        return self.json["error"]

    def __repr__(self):
        return f"<{self.status} {dict(self.headers)} {self.body[:600]!r}>"


def config_text(
    store,
    data_dir,
    fake_url,
    *,
    prefix=None,
    providers=None,
    models=MODELS,
    keys=KEYS,
    prices=PRICES,
    more="",
    ops="",
    deadline_ms=1000,
):
    """YAML for one house; `more` is further top-level keys.

    A machine that runs all tests at once may leave a store without a turn for the default's 250 ms.
    """
    prefix = prefix or f"t{os.getpid()}x{next(_numbers)}"
    url = store if isinstance(store, str) else store.url
    text = BASE.format(store=url, prefix=prefix, data_dir=data_dir, ops=ops, deadline_ms=deadline_ms)
    providers = PROVIDERS if providers is None else providers
    return text + providers.format(fake=fake_url) + models + keys + prices + more


@asynccontextmanager
async def house(store, data_dir, *, fake=None, **settings):
    """Start a sidecar, and a fake provider unless one is given; both end with the block."""
    async with AsyncExitStack() as stack:
        if fake is None:
            fake = await stack.enter_async_context(FakeProvider(count=counted))
        http = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30), auto_decompress=False)
        )
        text = config_text(store, data_dir, fake.url, **settings)
        loaded = load_text(text, "test.yaml", {})
        sidecar = Sidecar(loaded.config, defaults=loaded.defaults)
        await sidecar.start()
        stack.push_async_callback(sidecar.stop, 0.2)
        yield House(sidecar, fake, text, http)


class Process:
    """`bursar serve` as users run it. `log` is what it wrote to standard error so far."""

    def __init__(self, process, banner):
        self.process, self.banner = process, banner
        self.url = re.search(r"http://\S+/v1", banner)[0]
        self.ops_url = re.search(r"(http://\S+)/metrics", banner)[1]
        self.lines = []
        self._changed = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @property
    def log(self):
        return "".join(self.lines)

    async def until_logged(self, text, timeout_s=20):
        """Wait until standard error holds `text`."""
        async with asyncio.timeout(timeout_s):
            while text not in self.log:
                await self._changed.wait()

    def signal(self, number):
        self.process.send_signal(number)

    async def ended(self, timeout_s=30):
        """Wait until it is gone; return its exit code."""
        async with asyncio.timeout(timeout_s):
            code = await self.process.wait()
            await self._reading
        return code

    async def _read(self):
        async for line in self.process.stderr:
            self.lines.append(line.decode())
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()


@asynccontextmanager
async def serving(config_file, *, environ=None):
    """Start `python -m proxy serve -c FILE` and wait for its banner; it is killed when the block ends, if it still runs."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "proxy",
        "serve",
        "-c",
        str(config_file),
        cwd=ROOT,
        env={**os.environ, **(environ or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        banner = b""
        async with asyncio.timeout(20):
            while b"providers" not in banner:
                line = await process.stdout.readline()
                if not line:
                    raise AssertionError((await process.stderr.read()).decode())
                banner += line
        running = Process(process, banner.decode())
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    await running._reading


def samples(text):
    """The samples of an exposition: {(name, ((label, value), …)): number}."""
    from prometheus_client.parser import text_string_to_metric_families

    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def total(found, name, **labels):
    """The sum of a metric over all samples that have these labels."""
    return sum(v for (n, ls), v in found.items() if n == name and labels.items() <= dict(ls).items())


def budget(subject, unit, limit, period="day", **more):
    """A stored budget."""
    from accounting.periods import Period

    return Budget(subject=subject, unit=unit, limit=limit, period=Period(kind=period), **more)


def rows_of(data):
    """The JSON chunks of an SSE body, [DONE] left out."""
    from adapters.sse import Decoder

    return [json.loads(event.data) for event in Decoder().feed(data) if event.data.startswith(b"{")]
