"""Most pieces of a stream are relayed without waking its task; what that task would have counted and noted is counted and noted."""

import asyncio
import contextlib
from contextlib import asynccontextmanager

import pytest

from accounting.journal.aftermath import INTERVAL_TOKENS
from accounting.journal.format import Progress
from accounting.ledger import Ledger
from accounting.tokens.ranks import load
from proxy.streaming import Relay
from tests.misbehaving import provider as peer
from tests.sidecars import house, rows_of

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
CHUNK = b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{%b},"finish_reason":null}]}\n\n'
BUDGET = 'budgets: [{subject: "user:alice", output_tokens: %d, period: day}]\nadmission: {min_completion: 16, unbounded_share: 1}\n'
WORDS = 600
CLAUDE = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","model":"m","usage":{"input_tokens":9,"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n',
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" word"}}\n\n',
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":600}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
)
OPENAI = (
    CHUNK % b'"role":"assistant","content":""',
    CHUNK % b'"content":" word"',
    (CHUNK % b"").replace(b'"finish_reason":null', b'"finish_reason":"stop"')
    + b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":600,"total_tokens":609}}\n\ndata: [DONE]\n\n',
)
KINDS = {
    "openai": ('kind: openai, repair: "off", base_url: "%s"', OPENAI, "/v1"),
    "repaired": ('kind: openai, repair: auto, base_url: "%s"', OPENAI, "/v1"),
    "anthropic": ('kind: anthropic, base_url: "%s"', CLAUDE, ""),
}


@pytest.fixture(autouse=True)
def ranks():
    load("o200k_base")


def script(first, each, last, words):
    """A provider that writes event by event; if there is no last one it waits for the other side to leave."""

    async def run(p):
        if not await p.request():
            return
        with contextlib.suppress(ConnectionError):
            await p.write(HEAD + first)
            for _ in range(words):
                await p.write(each)
                await asyncio.sleep(0.0005)  # so that they come one by one
            await p.write(last)
        if not last:
            await p.gone()

    return run


@asynccontextmanager
async def behind(store, tmp_path, kind, run, granted):
    """A house in front of such a provider."""
    async with peer(run) as p:
        provider = KINDS[kind][0] % p.url(KINDS[kind][2])
        providers = "providers: {{fake: {{" + provider + ", api_keys: [k-0123456789]}}}}\n"
        async with house(store, tmp_path, providers=providers, more=BUDGET % granted) as h:
            yield h


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_a_streams_task_sleeps_while_it_is_relayed_and_its_notes_are_written(store, tmp_path, monkeypatch, kind):
    notes, woken, progress, following = [], [], Ledger.progress, Relay._next

    def noted(ledger, hold, payload):
        notes.append(Progress.load(payload).output_tokens)
        progress(ledger, hold, payload)

    async def awake(relay):
        woken.append(relay)
        return await following(relay)

    monkeypatch.setattr(Ledger, "progress", noted)
    monkeypatch.setattr(Relay, "_next", awake)
    async with behind(store, tmp_path, kind, script(*KINDS[kind][1], WORDS), 5000) as h:
        reply = await h.chat(stream=True, max_tokens=4000)
        assert reply.body.count(b" word") == WORDS
        assert reply.body.endswith(b"data: [DONE]\n\n")
        await h.until_receipts(1)
        assert h.receipts[0].outcome == "ok"
    assert len(woken) < WORDS / 10
    assert notes[0] == 0
    assert WORDS - INTERVAL_TOKENS <= notes[-1] <= WORDS
    assert all(0 <= after - before <= INTERVAL_TOKENS for before, after in zip(notes, notes[1:], strict=False))


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_a_stream_is_ended_with_the_piece_that_passes_its_grant(store, tmp_path, kind):
    first, each, _ = KINDS[kind][1]
    most = 100 + 16 + 2  # granted, and the slack that our own count has
    async with behind(store, tmp_path, kind, script(first, each, b"", most + 3), 100) as h:
        async with asyncio.timeout(10):
            reply = await h.chat(stream=True)
        rows = rows_of(reply.body)
        assert rows[-1]["choices"][0]["finish_reason"] == "length"
        said = reply.body.count(b" word")
        assert 100 < said <= most + 3
        await h.until_receipts(1)
        assert h.receipts[0].outcome == "cut"
