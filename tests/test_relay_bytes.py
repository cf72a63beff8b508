"""What a provider that speaks OpenAI sends is what the client gets, byte for byte, apart from what it did not ask for."""

import asyncio
import json

import openai
import pytest

from adapters.sse import KEEPALIVE
from tests.misbehaving import provider as peer
from tests.sidecars import HELLO, MODEL, house, rows_of

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
ROLE = b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
WORD = 'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"h\u00e4 \\"usage\\" [DONE]\U0001f600"},"finish_reason":null}], "x_extra" : 1.10}\n\n'.encode()
STOP = b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4,"total_tokens":13}}\n\n'
DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"
LF = ROLE + COMMENT + WORD + STOP + USAGE + DONE
CRLF = LF.replace(b"\n", b"\r\n")


class Cut:
    """A provider that sends `stream` in the pieces that `cuts` say, each in a write of its own."""

    def __init__(self):
        self.stream, self.cuts = LF, []

    async def __call__(self, p):
        if not await p.request():
            return
        await p.write(HEAD)
        for start, end in zip([0, *self.cuts], [*self.cuts, len(self.stream)], strict=True):
            await p.write(self.stream[start:end])
            for _ in range(3):  # each piece is read before the next is sent
                await asyncio.sleep(0)


@pytest.fixture
async def cut(store, tmp_path, request):
    """A house in front of such a provider; the parameter is its setting of `repair`."""
    script = Cut()
    async with peer(script) as p:
        repair = getattr(request, "param", "off")
        providers = f'providers: {{{{fake: {{{{kind: openai, repair: {repair}, base_url: "{p.url("/v1")}", api_keys: [k-0123456789]}}}}}}}}\n'
        async with house(store, tmp_path, providers=providers) as h:
            yield h, script


async def streamed(h, **more):
    reply = await h.chat(stream=True, **more)
    assert reply.status == 200
    return reply.body


@pytest.mark.slow
@pytest.mark.parametrize("cut", ["off", "auto"], indirect=True)
@pytest.mark.parametrize("shown", [True, False], ids=["usage asked for", "usage not asked for"])
@pytest.mark.parametrize("stream", [LF, CRLF], ids=["lf", "crlf"])
async def test_bytes_out_are_bytes_in_at_every_cut(cut, shown, stream):
    h, script = cut
    script.stream = stream
    more = {"stream_options": {"include_usage": True}} if shown else {}
    usage = USAGE if stream is LF else USAGE.replace(b"\n", b"\r\n")
    wanted = stream if shown else stream.replace(usage, b"")
    for at in range(1, len(stream)):
        script.cuts = [at]
        assert await streamed(h, **more) == wanted, at
    script.cuts = list(range(1, len(stream)))
    assert await streamed(h, **more) == wanted
    await h.until_receipts(len(stream))
    assert {(r.outcome, r.usage.input, r.usage.output, r.usage.estimated) for r in h.receipts} == {("ok", 9, 4, False)}


async def test_a_whole_answer_is_the_providers_bytes(store, tmp_path):
    async with house(store, tmp_path) as h:
        for script in ("length=20", "length=20&bytes=1", "length=5&last"):
            reply = await h.chat(f"{MODEL}?{script}")
            direct = await h.http.post(h.fake.url + "/chat/completions", data=h.fake.requests[-1].body)
            theirs, ours = await direct.json(), reply.json
            theirs["id"] = ours["id"]  # the fake provider numbers its answers
            assert ours == theirs


async def test_the_provider_is_asked_for_the_usage_that_the_client_does_not_see(store, tmp_path):
    async with house(store, tmp_path) as h:
        body = await streamed(h)
        assert json.loads(h.fake.requests[0].body)["stream_options"] == {"include_usage": True}
        assert not any(chunk.get("usage") for chunk in rows_of(body))
        assert all(chunk["choices"] for chunk in rows_of(body))
        shown = await streamed(h, stream_options={"include_usage": True})
        assert rows_of(shown)[-1]["usage"]["total_tokens"] > 0
        hidden = await streamed(h, stream_options={"include_usage": False})
        assert not any(chunk.get("usage") for chunk in rows_of(hidden))
        await h.until_receipts(3)
        assert not any(r.usage.estimated for r in h.receipts)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("error_after=5", None),
        ("cut=5", "upstream_unavailable"),
        ("reset=5", "upstream_unavailable"),
        ("stall=5", "upstream_timeout"),
        ("no_finish&length=5", "upstream_protocol_error"),
    ],
)
async def test_a_failure_in_the_middle_is_one_error_event_and_never_a_false_finish(store, tmp_path, script, code):
    async with house(store, tmp_path, more=f"timeouts: {{idle: {0.3 if 'stall' in script else 30}}}\n") as h:
        body = await streamed(h, model=f"{MODEL}?{script}")
        events = rows_of(body)
        assert events[-1]["error"]["code"] == code
        assert set(events[-1]["error"]) >= {"message", "type", "param", "code"}
        assert b"[DONE]" not in body
        assert not any(c["finish_reason"] for e in events[:-1] for c in e["choices"])
        assert (
            5
            >= sum(bool(c["delta"].get("content")) for e in events[:-1] for c in e["choices"])
            >= (script != "reset=5")
        )
        async with h.sdk() as sdk:
            with pytest.raises(openai.APIError) as caught:
                async for _ in await sdk.chat.completions.create(
                    model=f"{MODEL}?{script}", messages=HELLO, stream=True
                ):
                    pass
            assert caught.value.code == code
        await h.until_receipts(2)
        assert {r.outcome for r in h.receipts} == {"upstream_error"}


@pytest.mark.parametrize("at", [1, len(ROLE) - 1, len(ROLE), len(ROLE) + 5, len(ROLE) + len(COMMENT) + 100])
async def test_a_stream_that_ends_anywhere_is_an_error_wherever_it_ends(cut, at):
    h, script = cut
    script.stream = LF[:at]
    reply = await h.chat(stream=True)
    if at < len(ROLE) - 1:
        assert (reply.status, reply.error["code"]) == (502, "upstream_protocol_error")
    else:
        assert reply.status == 200
        assert reply.body.startswith(ROLE[:-2])
        assert rows_of(reply.body)[-1]["error"]["code"] == "upstream_protocol_error"
        assert b"[DONE]" not in reply.body


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (b'data: {"error":{"message":"overloaded","type":"server_error","code":503}}\n\n', 503),
        (b'data: {"error":{"message":"slow down","code":"rate_limit_exceeded","status":429}}\n\n', 429),
        (b'event: error\ndata: {"error":"no"}\n\n', 502),
        (b'{"error":{"message":"bad","type":"invalid_request_error","status":400}}', 400),
        (b": hi\n\n" + b'data: {"error":{"message":"x","code":500}}\n\n', 500),
    ],
)
async def test_an_error_that_comes_first_is_a_status(cut, event, status):
    h, script = cut
    script.stream = event
    reply = await h.chat(stream=True)
    assert reply.status == status
    assert reply.headers["content-type"].startswith("application/json")
    await h.until_receipts(1)
    assert h.receipts[0].outcome in ("refused", "upstream_error")


async def test_a_long_silence_is_filled_with_comments_that_sdks_do_not_see(store, tmp_path):
    async with house(store, tmp_path, more="server: {keepalive_comment: 0.02}\n") as h:
        wire = await streamed(h, model=MODEL + "?length=4&pace=12")
        async with h.sdk() as sdk:
            text = ""
            async for chunk in await sdk.chat.completions.create(
                model=MODEL + "?length=4&pace=12", messages=HELLO, stream=True
            ):
                text += chunk.choices[0].delta.content or ""
        assert wire.count(KEEPALIVE) >= 2
        assert len(text.split()) == 4
        await h.until_receipts(2)
        assert h.receipts[1].usage.output == 4


async def test_comments_never_land_inside_an_event(store, tmp_path):
    more = "server: {keepalive_comment: 0.001}\n"
    async with house(store, tmp_path, more=more) as h:
        body = await streamed(h, model=f"{MODEL}?length=20&pace=100&bytes=40")
        parts = body.split(KEEPALIVE)
        assert len(parts) > 1
        assert all(part.endswith(b"\n\n") for part in parts if part)
        assert len(rows_of(b"".join(parts))) == 22


async def test_crlf_streams_may_get_comments_too(store, tmp_path):
    async with house(store, tmp_path, more="server: {keepalive_comment: 0.001}\n") as h:
        body = await streamed(h, model=f"{MODEL}?length=20&pace=400&crlf")
        assert len(rows_of(body)) == 22


async def test_an_upstream_connection_is_used_again_after_a_stream(store, tmp_path):
    async with house(store, tmp_path) as h:
        for _ in range(5):
            assert (await streamed(h)).endswith(DONE)
        await h.until_receipts(5)
        assert h.fake.connections <= 2
