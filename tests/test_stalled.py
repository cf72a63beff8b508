"""A sidecar that stands still for longer than its lease: its room may be taken, and it writes nothing more before it has room again (B3)."""

import asyncio
import contextlib
import signal
from contextlib import asynccontextmanager

import aiohttp
import orjson
import pytest

import proxy.relayed
import proxy.streaming
from accounting.ask import Ask, Draw
from accounting.hold import BudgetRefusedError
from accounting.journal.format import ADMITTED, decode
from accounting.ledger import TTL_MS, Ledger
from accounting.supervisor import Supervisor
from proxy.building import file_budgets
from proxy.config.load import load_text
from tests.sidecars import HELLO, KEY, MODEL, ROOT, config_text, house, serving
from tests.test_crash import provider, records_of, store_of

LEASE_MS = 2_000
SEAM = f"import accounting.ledger as l\nl.TTL_MS, l.HEARTBEAT_S = {LEASE_MS}, 0.3\n"
LENGTH, ASKED, LIMIT = 400, 600, 1_000
BUDGET = f'budgets: [{{{{subject: "user:alice", output_tokens: {LIMIT}, period: total, mode: MODE}}}}]\n'.replace(
    "{{", "{"
).replace("}}", "}")


class Client:
    """One stream; `tokens` seen so far, and how it ended."""

    def __init__(self):
        self.tokens, self.finish, self.done, self.status = 0, None, False, 0

    async def run(self, url):
        with contextlib.suppress(aiohttp.ClientError):  # killed
            await self._run(url)

    async def _run(self, url):
        body = {"model": f"gpt-4o?length={LENGTH}&pace=100", "messages": HELLO, "stream": True, "max_tokens": ASKED}
        headers = {"authorization": f"Bearer {KEY}"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.post(f"{url}/chat/completions", json=body) as answer,
        ):
            self.status = answer.status
            async for line in answer.content:
                if line.startswith(b"data: {"):
                    for choice in orjson.loads(line[6:])["choices"]:
                        self.tokens += bool(choice["delta"].get("content"))
                        self.finish = choice["finish_reason"] or self.finish
                self.done = self.done or line == b"data: [DONE]\n"

    async def until(self, tokens):
        async with asyncio.timeout(15):
            while self.tokens < tokens:
                await asyncio.sleep(0.01)

    async def still(self):
        """Wait until nothing more comes; return how many tokens there are."""
        before = -1
        while before != self.tokens:
            before = self.tokens
            await asyncio.sleep(0.2)
        return before


class Scene:
    """A stalled sidecar with one stream open, and another ledger on the same store."""

    def __init__(self, running, client, stream, store, ledger, budget, folder):
        self.running, self.client, self.stream, self.store = running, client, stream, store
        self.ledger, self.budget, self.folder = ledger, budget, folder

    async def expired(self):
        """Wait until nothing on the store says that the sidecar holds anything."""
        async with asyncio.timeout(15):
            while not await self._lapsed():
                await asyncio.sleep(0.05)

    async def _lapsed(self):
        seconds, micro = await self.store.call("TIME")
        return not await self.store.call(
            "ZCOUNT", self.store.key("x", self.budget.id, "total"), int(seconds) * 1000 + int(micro) // 1000, "+inf"
        )

    async def passed(self, ms):
        """Wait until so much time has passed on the store's clock; the other ledger keeps what it holds."""
        seconds, _ = await self.store.call("TIME")
        until_s = int(seconds) + ms // 1000 + 1
        async with asyncio.timeout(ms / 1000 + 15):
            while int((await self.store.call("TIME"))[0]) < until_s:
                await self.ledger.extend()
                await asyncio.sleep(0.2)

    async def take(self, amount, within_s=15):
        """Hold room as another sidecar would; wait until it is free."""
        ask = Ask(draws=(Draw(self.budget, amount, 0),), wanted=1, least=1)
        async with asyncio.timeout(within_s):
            while True:
                try:
                    return await self.ledger.reserve(ask, request_id="other")
                except BudgetRefusedError:
                    await asyncio.sleep(0.05)

    def admissions(self):
        """How often the call was written down as admitted."""
        paths = (self.folder / "data" / "journal").glob("*/*.log")
        return sum(record.kind == ADMITTED for path in paths for record in decode(path.read_bytes())[1])

    async def judged(self):
        """(the call's record, the budget's used, its held)."""
        async with asyncio.timeout(20):
            while not (records := await records_of(self.store)):
                await asyncio.sleep(0.05)
        key = self.store.key("b", self.budget.id, "total")
        used, held = await self.store.call("HMGET", key, "used", "held")
        assert len(records) == 1
        return records[0], int(used), int(held)


@asynccontextmanager
async def stalled(server, tmp_path, mode="hard", seam=SEAM, more=""):
    (tmp_path / "seam").mkdir()
    (tmp_path / "seam" / "sitecustomize.py").write_text(seam)
    async with provider(tmp_path / "invoice") as fake_url:
        text = config_text(server, tmp_path / "data", fake_url, more=BUDGET.replace("MODE", mode) + more)
        (config_file := tmp_path / "bursar.yaml").write_text(text)
        (budget,) = file_budgets(load_text(text, "test.yaml", {}).config.budgets)
        store, supervisor = store_of(server, text), Supervisor()
        ledger = Ledger(store, supervisor=supervisor)
        async with serving(config_file, environ={"PYTHONPATH": f"{tmp_path / 'seam'}:{ROOT}"}) as running:
            await ledger.start()
            client = Client()
            async with asyncio.TaskGroup() as group:
                stream = group.create_task(client.run(running.url))
                await client.until(30)
                running.signal(signal.SIGSTOP)
                await client.still()
                try:
                    yield Scene(running, client, stream, store, ledger, budget, tmp_path)
                finally:
                    with contextlib.suppress(ProcessLookupError):
                        running.signal(signal.SIGCONT)
        await supervisor.drain(1)
        await store.close()


@pytest.mark.slow
async def test_a_stream_whose_room_was_taken_meanwhile_ends_before_its_next_chunk(tmp_path, store):
    async with stalled(store, tmp_path) as scene:
        before = scene.client.tokens
        other = await scene.take(ASKED)
        scene.running.signal(signal.SIGCONT)
        await asyncio.wait_for(scene.stream, 15)
        assert scene.client.tokens == before, "nothing was written after the lease"
        assert (scene.client.finish, scene.client.done) == ("length", True), "it ends as OpenAI would end it"
        record, used, held = await scene.judged()
        assert record["outcome"] == "cut"
        assert record["output"] == used >= before, "what was relayed is charged, late"
        assert held == ASKED
        assert used + held <= LIMIT
        scene.ledger.release(other)


async def test_a_lease_that_ends_while_ranks_are_loaded_is_looked_at_before_the_next_byte(store, tmp_path, monkeypatch):
    wrote, is_loaded, renewed = [], [], proxy.streaming.renewed
    async with house(store, tmp_path, more=BUDGET.replace("MODE", "hard")) as h:
        streams = h.sidecar.routes.gateway.streams

        def load_and_stand_still(_encoding):
            (relay,) = streams
            relay._charge.hold.until_s = 0.0
            wrote.append(relay.wrote)
            is_loaded.append(True)

        async def noted(ledger, hold):
            (relay,) = streams
            wrote.append(relay.wrote)
            return await renewed(ledger, hold)

        monkeypatch.setattr(proxy.relayed, "loaded", lambda _encoding: bool(is_loaded))
        monkeypatch.setattr(proxy.relayed, "load", load_and_stand_still)
        monkeypatch.setattr(proxy.streaming, "renewed", noted)
        reply = await h.chat(f"{MODEL}?length=200&pace=2000", stream=True, max_tokens=300)
        assert reply.body.count(b'"content":') > 100
    assert len(wrote) == 2
    assert wrote[0] == wrote[1] > 0, "nothing was written between the load and the look at the lease"


@pytest.mark.slow
async def test_a_stream_whose_room_is_still_free_holds_it_anew_and_goes_on(tmp_path, store):
    async with stalled(store, tmp_path) as scene:
        await scene.expired()
        scene.running.signal(signal.SIGCONT)
        await asyncio.wait_for(scene.stream, 30)
        assert (scene.client.tokens, scene.client.finish, scene.client.done) == (LENGTH, "stop", True)
        record, used, held = await scene.judged()
        assert (record["outcome"], record["output"], used, held) == ("ok", LENGTH, LENGTH, 0)
        assert scene.admissions() == 2, "it was held twice, one after the other"


@pytest.mark.slow
async def test_a_call_held_anew_is_charged_once_when_its_process_is_killed(tmp_path, store):
    async with stalled(store, tmp_path) as scene:
        await scene.expired()
        before = scene.client.tokens
        scene.running.signal(signal.SIGCONT)
        await scene.client.until(before + 20)
        scene.running.process.kill()
        await scene.stream
        seen = scene.client.tokens
        async with serving(scene.folder / "bursar.yaml") as again:
            await again.until_logged("ended without us")
            record, used, held = await scene.judged()
        assert record["outcome"] == "crashed"
        assert seen <= record["output"] == used <= seen + 256
        assert held == 0


@pytest.mark.slow
async def test_a_soft_budget_ends_nothing(tmp_path, store):
    async with stalled(store, tmp_path, mode="soft") as scene:
        await scene.take(ASKED)
        scene.running.signal(signal.SIGCONT)
        await asyncio.wait_for(scene.stream, 30)
        assert (scene.client.tokens, scene.client.finish) == (LENGTH, "stop")


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("taken", [True, False], ids=["its room is taken", "its room is free"])
async def test_a_stop_of_two_real_leases_costs_nothing_beyond_the_limit(tmp_path, store, taken):
    """B3 as it is: a lease of 30 s, heartbeats of 5 s, and a process that stands still for a minute.

    Which is how long a provider may be silent, too: without more patience than that, the stream ends as if it had been.
    """
    async with stalled(store, tmp_path, seam="", more="timeouts: {idle: 180}\n") as scene:
        before, other = scene.client.tokens, None
        if taken:
            other = await scene.take(ASKED, within_s=45)
        await scene.passed(2 * TTL_MS - (TTL_MS if taken else 0))
        scene.running.signal(signal.SIGCONT)
        await asyncio.wait_for(scene.stream, 30)
        record, used, held = await scene.judged()
        assert record["output"] == used
        if taken:
            assert scene.client.tokens == before, "nothing was written after the lease"
            assert before <= used <= before + 256, "what had been taken up until then is charged, late"
            assert (scene.client.finish, scene.client.done, record["outcome"], held) == ("length", True, "cut", ASKED)
            assert used + held <= LIMIT
            scene.ledger.release(other)
        else:
            assert scene.client.tokens == used
            assert (used, scene.client.finish, record["outcome"], held) == (LENGTH, "stop", "ok", 0)
