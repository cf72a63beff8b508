"""kill -9 of a real process with streams open: what was settled stays settled once, what was cut short is charged as promised."""

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from contextlib import asynccontextmanager

import aiohttp
import orjson
import pytest

from accounting.journal.format import ADMITTED, PROGRESS, SETTLED, admitted_seq, decode, settled_seq
from accounting.reading import Reader
from accounting.store.resp import Address
from accounting.store.store import Store
from accounting.store.url import read_url
from proxy.config.load import load_text
from tests.sidecars import HELLO, HELLO_TOKENS, KEY, ROOT, StoreServer, config_text, serving

LENGTHS, LIMIT, PACE = (30, 700, 700), 1000, 400
INTERVAL = 256  # what is promised
BUDGETS = 'budgets: [{subject: "user:alice", tokens: 1000000000, period: total}, {subject: "key:alice-laptop", usd: 9000, period: total}]\n'


class Seen:
    """What one client saw of its stream."""

    def __init__(self, request_id):
        self.request_id, self.tokens, self.done = request_id, 0, False


class Clients:
    """Stream again and again until the proxy is gone; `until` waits for so many tokens in all."""

    def __init__(self, http):
        self.http, self.seen, self.tokens = http, [], 0
        self._changed = asyncio.Event()

    async def stream(self, url, model, *, once=False):
        body = {"model": model, "messages": HELLO, "stream": True, "max_tokens": LIMIT}
        try:
            while True:
                async with self.http.post(f"{url}/chat/completions", json=body) as answer:
                    if answer.status == 503:  # a busy machine: the store did not answer within the deadline
                        await answer.read()
                        continue
                    assert answer.status == 200, await answer.text()
                    seen = Seen(answer.headers["x-request-id"])
                    self.seen.append(seen)
                    async for line in answer.content:
                        self._take(seen, line)
                if once:
                    return
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
            return

    async def until(self, tokens):
        async with asyncio.timeout(20):
            while self.tokens < tokens:
                await self.changed()

    async def changed(self):
        await self._changed.wait()

    def _take(self, seen, line):
        if line == b"data: [DONE]\n":
            seen.done = True
            self._tell()
        elif line.startswith(b"data: {"):
            choices = orjson.loads(line[6:])["choices"]
            if choices and choices[0]["delta"].get("content"):
                seen.tokens += 1
                self.tokens += 1
                self._tell()

    def _tell(self):
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


@asynccontextmanager
async def provider(invoice):
    """The fake provider as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "proxy.fake",
        "--invoice",
        str(invoice),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


def store_of(server, text):
    prefix = load_text(text, "test.yaml", {}).config.store.prefix

    async def locate():
        return (Address(path=str(server.socket)),)

    return Store(read_url(server.url), prefix=prefix, locate=locate)


async def records_of(store):
    return [record async for record in Reader(store).records()]


def judge(seen, records):
    """Every stream has one record, and it says what the client saw: all of it, or an interval more at most."""
    count = Counter(record["id"] for record in records)
    assert not [name for name, times in count.items() if times > 1]
    by_id = {record["id"]: record for record in records}
    for one in seen:
        record = by_id.get(one.request_id)
        if one.done:
            assert record, "a stream that came to its end is not settled"
            assert (record["outcome"], record["output"]) == ("ok", one.tokens)
        elif one.tokens:
            assert record, "a stream that was relayed in part is not charged"
            assert one.tokens <= record["output"] <= min(one.tokens + INTERVAL, LIMIT)


async def killed_again_and_again(server, tmp_path, *, seed, kills, streams):
    rng = random.Random(seed)
    async with (
        provider(tmp_path / "invoice") as fake_url,
        aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as http,
    ):
        text = config_text(server, tmp_path / "data", fake_url, more=BUDGETS)
        config_file = tmp_path / "bursar.yaml"
        config_file.write_text(text)
        store = store_of(server, text)
        seen = []
        for number in range(kills + 1):
            async with serving(config_file) as running:
                if number:
                    await running.until_logged("ended without us")
                if number == kills:
                    break
                clients = Clients(http)
                async with asyncio.TaskGroup() as group:
                    for _ in range(streams):
                        model = f"gpt-4o?length={rng.choice(LENGTHS)}&pace={PACE}"
                        group.create_task(clients.stream(running.url, model))
                    await clients.until(rng.randrange(1, streams * 350))
                    await asyncio.sleep(rng.random() / PACE)  # somewhere between two tokens
                    running.process.kill()
                    await running.process.wait()
                seen += clients.seen
        await nothing_is_left(store, tmp_path / "data" / "journal")
        records = await records_of(store)
        judge(seen, records)
        await totals_agree(store, records)
        await store.close()
        return seen, records


async def nothing_is_left(store, folder):
    """No call that a journal knows of holds anything; one that was admitted in the moment of a kill holds for 30 s at most."""
    known = set()
    for path in folder.glob("*/*.log"):
        sid, found, _ = decode(path.read_bytes())
        known |= {f"{sid}.{admitted_seq(payload)}" for kind, payload in found if kind == ADMITTED}
        known |= {f"{sid}.{settled_seq(payload)}" for kind, payload in found if kind == SETTLED}
    now_s, _ = await store.call("TIME")
    for key in await store.call("KEYS", store.key("x", "*"), deadline_s=5):
        found = await store.call("ZRANGE", key, 0, -1, "WITHSCORES")
        for member, until_ms in zip(found[::2], found[1::2], strict=True):
            assert member.decode().partition("|")[0] not in known
            assert int(until_ms) <= (int(now_s) + 31) * 1000


async def totals_agree(store, records):
    """What the budgets count is the sum of the records."""
    used = {}
    for key in await store.call("KEYS", store.key("b", "*"), deadline_s=5):
        name = key.decode()
        used["tokens" if "|tokens|" in name else "usd"] = int(await store.call("HGET", key, "used"))
    assert used == {
        "tokens": sum(r["input"] + r["output"] for r in records),
        "usd": sum(r["cost_nanousd"] for r in records),
    }


@pytest.fixture
def seed():
    """Of the random moments; BURSAR_SEED repeats a run."""
    number = int(os.environ.get("BURSAR_SEED") or random.SystemRandom().randrange(2**32))
    print(f"BURSAR_SEED={number}")
    return number


@pytest.mark.slow
async def test_kill_9_loses_and_doubles_nothing_and_charges_what_was_relayed(tmp_path, seed, store):
    seen, records = await killed_again_and_again(store, tmp_path, seed=seed, kills=4, streams=10)
    assert any(one.done for one in seen)
    assert any(record["outcome"] == "crashed" for record in records)


@pytest.mark.slow
async def test_a_whole_answer_that_a_kill_cut_short_is_charged_its_input_and_an_interval(tmp_path, store):
    """The provider was asked, and may write and bill it to its end, which nobody will see."""
    async with (
        provider(tmp_path / "invoice") as fake_url,
        aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as http,
    ):
        text = config_text(store, tmp_path / "data", fake_url, more=BUDGETS)
        (config_file := tmp_path / "bursar.yaml").write_text(text)
        asked = {"model": "gpt-4o?length=400&pace=100", "messages": HELLO, "max_tokens": LIMIT}
        folder = tmp_path / "data" / "journal"
        async with serving(config_file) as running:
            call = asyncio.create_task(http.post(f"{running.url}/chat/completions", json=asked))
            async with asyncio.timeout(20):
                while not [
                    r for path in folder.glob("*/*.log") for r in decode(path.read_bytes())[1] if r.kind == PROGRESS
                ]:
                    await asyncio.sleep(0.01)
            running.process.kill()
            with pytest.raises(aiohttp.ClientError):
                await call
        async with serving(config_file) as running:
            await running.until_logged("ended without us")
        books = store_of(store, text)
        (record,) = await records_of(books)
        assert (record["outcome"], record["estimated"]) == ("crashed", True)
        assert record["input"] >= HELLO_TOKENS, "the bound that it was admitted on"
        assert 0 < record["output"] <= INTERVAL
        await totals_agree(books, [record])
        await nothing_is_left(books, folder)
        await books.close()


@pytest.mark.slow
@pytest.mark.parametrize("outage", ["silent", "gone"])
async def test_a_stream_that_ended_while_the_store_was_away_is_settled_after_a_kill(tmp_path, own_store, outage):
    async with (
        provider(tmp_path / "invoice") as fake_url,
        aiohttp.ClientSession(headers={"authorization": f"Bearer {KEY}"}) as http,
    ):
        text = config_text(own_store, tmp_path / "data", fake_url, more=BUDGETS)
        (config_file := tmp_path / "bursar.yaml").write_text(text)
        clients = Clients(http)
        async with serving(config_file) as running, asyncio.TaskGroup() as group:
            group.create_task(clients.stream(running.url, f"gpt-4o?length=100&pace={PACE}", once=True))
            await clients.until(20)
            own_store.process.send_signal(signal.SIGSTOP) if outage == "silent" else own_store.stop()
            await clients.until(100)
            async with asyncio.timeout(10):
                while not clients.seen[0].done:
                    await clients.changed()
            running.process.kill()
        own_store.process.send_signal(signal.SIGCONT) if outage == "silent" else own_store.start()
        async with serving(config_file) as running:
            await running.until_logged("ended without us")
        store = store_of(own_store, text)
        records = await records_of(store)
        judge(clients.seen, records)
        assert [(r["outcome"], r["output"]) for r in records] == [("ok", 100)]
        await totals_agree(store, records)
        await store.close()


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_two_hundred_kills_with_fifty_streams_open(tmp_path, seed):
    server = StoreServer()
    server.start()
    try:
        await killed_again_and_again(server, tmp_path, seed=seed, kills=200, streams=50)
    finally:
        server.close()
