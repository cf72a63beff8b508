"""What only the whole of Bursar can show of the wire's assertions: pace, headers, departures, bytes that go round."""

import asyncio
import gzip
import struct

import aiohttp
import openai
import orjson
import pytest
import pytest_asyncio

from tests.constructed import BEGIN as FRAMES_BEGIN
from tests.constructed import MODELS, TABLES, asking, claude, crlf, ended, google, reply, tool, used
from tests.constructed_openai import HI, ROLE, STOP, sse
from tests.replay import PROVIDERS, Reply, bursar_before
from tests.stream_rules import accumulated, broken_rules, events_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

SSE = {"content-type": "text/event-stream"}
JSON_ = {"content-type": "application/json"}
CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hi"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bursar():
    async with bursar_before(more="server: {keepalive_comment: 0.1}\n") as running:
        yield running


def sdk(bursar, **more):
    return openai.AsyncOpenAI(base_url=f"{bursar.url}/v1", api_key="any", max_retries=0, **more)


RESPONSE = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": "in_progress", "output": [], "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}  # fmt: skip


def response_events():
    calls = [
        {
            "type": "function_call",
            "id": f"fc_{n}",
            "call_id": f"call_{n}",
            "name": name,
            "arguments": "{}",
            "status": "completed",
        }
        for n, name in enumerate("fg")
    ]
    events = [{"type": "response.created", "response": RESPONSE}]
    for n, call in enumerate(calls):
        events += [
            {"type": "response.output_item.added", "output_index": n, "item": {**call, "arguments": ""}},
            {"type": "response.function_call_arguments.delta", "output_index": n, "item_id": call["id"], "delta": "{}"},
            {"type": "response.function_call_arguments.done", "output_index": n, "item_id": call["id"], "name": call["name"], "arguments": "{}"},
            {"type": "response.output_item.done", "output_index": n, "item": call},
        ]  # fmt: skip
    done = {
        **RESPONSE,
        "status": "completed",
        "output": calls,
        "usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
    }
    events.append({"type": "response.completed", "response": done})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


@pytest.mark.parametrize("provider", ["openai", "azure", "xai", "deepseek", "openrouter"])
@pytest.mark.parametrize("size", [0, 1, 7])
async def test_the_calls_of_a_response_keep_their_output_index_byte_for_byte(bursar, provider, size):
    """wire 3.3: chat is never served from a Responses upstream; a response itself is relayed as it came, without [DONE]."""
    body = sse(*response_events(), done=False, name=True)
    bursar.replay.serve(Reply(body=body, headers=SSE, size=size))
    status, _, answer = await bursar.post("/v1/responses", {"model": f"{provider}/m", "input": "hi", "stream": True})
    assert (status, answer) == (200, body)
    bursar.replay.serve(Reply(body=body, headers=SSE, size=size))
    async with sdk(bursar) as client, client.responses.stream(model=f"{provider}/m", input="hi") as stream:
        made = await stream.get_final_response()
    assert [item.name for item in made.output] == ["f", "g"]


@pytest.mark.parametrize("provider", ["anthropic", "gemini", "vertex", "bedrock"])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/completions"])
async def test_what_a_provider_does_not_have_is_a_clean_404(bursar, provider, path):
    """wire 1.7"""
    given = {"/v1/responses": {"input": "hi"}, "/v1/completions": {"prompt": "hi"}}[path]
    status, _, answer = await bursar.post(path, {"model": f"{provider}/{MODELS[provider]}", **given})
    assert (status, orjson.loads(answer)["error"]["code"]) == (404, "model_not_found")
    status, _, answer = await bursar.post("/v1/embeddings", {"model": "anthropic/claude", "input": "hi"})
    assert (status, orjson.loads(answer)["error"]["code"]) == (404, "model_not_found")


WHOLE = {
    "openai": {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}, "finish_reason": "tool_calls"}]},
    "anthropic": {"id": "msg", "type": "message", "role": "assistant", "model": "m", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}], "stop_reason": "tool_use", "usage": {"input_tokens": 1, "output_tokens": 1}},
    "gemini": google({"functionCall": {"name": "f", "id": "a", "args": {}}}, finish="STOP"),
    "bedrock": {"output": {"message": {"role": "assistant", "content": [{"toolUse": {"toolUseId": "a", "name": "f", "input": {}}}]}}, "stopReason": "tool_use", "usage": {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}},
}  # fmt: skip
STREAMED = {
    "openai": sse(ROLE, {**HI, "choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **WHOLE["openai"]["choices"][0]["message"]["tool_calls"][0]}]}, "finish_reason": None}]}, {**STOP, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}),
    "anthropic": claude(*tool(0, "a", "f"), reason="tool_use"),
    "gemini": crlf(google({"functionCall": {"name": "f", "id": "a", "args": {}}}, finish="STOP")),
    "bedrock": FRAMES_BEGIN + used(0, "a", "f") + ended("tool_use"),
}  # fmt: skip


@pytest.mark.parametrize("provider", sorted(WHOLE))
async def test_a_call_is_a_call_streamed_and_not(bursar, provider):
    """wire 3.8, 3.11, 3.31"""
    bursar.replay.serve(Reply(body=orjson.dumps(WHOLE[provider]), headers=JSON_, chunked=False))
    body = asking(provider)
    _, _, answer = await bursar.post(CHAT, {k: v for k, v in body.items() if not k.startswith("stream")})
    plain = orjson.loads(answer)["choices"][0]
    bursar.replay.serve(Reply(body=STREAMED[provider], headers=reply(provider, "a plain answer").headers))
    _, _, answer = await bursar.post(CHAT, body)
    streamed = accumulated(events_of(answer)[0]).choices[0]
    assert plain["finish_reason"] == streamed.finish_reason == "tool_calls"
    for call in (plain["message"]["tool_calls"][0], streamed.message.tool_calls[0].model_dump()):
        assert (call["id"], call["function"]["name"], call["function"]["arguments"]) == ("a", "f", "{}")
    assert not plain["message"]["content"]
    assert not streamed.message.content


async def test_a_stop_beside_calls_keeps_the_calls_and_what_google_adds_to_them(bursar):
    """wire 3.31: Google's own OpenAI endpoint"""
    delta = {"role": "assistant", "tool_calls": [{"index": 0, "id": "a", "type": "function", "extra_content": {"google": {"thought_signature": "s"}}, "function": {"name": "f", "arguments": "{}"}}]}  # fmt: skip
    chunk = {**HI, "choices": [{"index": 0, "delta": delta, "finish_reason": "stop"}]}
    bursar.replay.serve(Reply(body=sse(chunk), headers=SSE))
    _, _, answer = await bursar.post(CHAT, asking("openai"))
    assert broken_rules(answer) == []
    call = events_of(answer)[0][0]["choices"][0]["delta"]["tool_calls"][0]
    assert call["extra_content"] == {"google": {"thought_signature": "s"}}


# pace, comments, headers ----------------------------------------------------------------------------------------------


def gated(provider, name="a plain answer", **more):
    made = reply(provider, name)
    pieces = {
        "bedrock": lambda: frames(made.body),
        "gemini": lambda: [e + b"\r\n\r\n" for e in made.body.split(b"\r\n\r\n")[:-1]],
    }.get(provider, lambda: [e + b"\n\n" for e in made.body.split(b"\n\n")[:-1]])()
    return Reply(pieces=pieces, headers=made.headers, gate=asyncio.Semaphore(0), **more)


def frames(body):
    out = []
    while body:
        size = struct.unpack(">I", body[:4])[0]
        out.append(body[:size])
        body = body[size:]
    return out


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini", "bedrock"])
async def test_an_event_is_with_the_client_before_the_provider_sends_the_next(bursar, provider):
    """wire 3.23: the provider is let go on only when the client has what it said last"""
    served = gated(provider)
    bursar.replay.serve(served)
    texts = []
    asked = asyncio.ensure_future(bursar.session.post(bursar.url + CHAT, json=asking(provider)))
    for _ in range(4 if provider in ("anthropic", "bedrock") else 3):  # the head, and what comes before any text
        served.gate.release()
    if provider == "anthropic":
        served.gate.release()
    async with await asyncio.wait_for(asked, 5) as response:
        seen = b""
        while b'"h' not in seen:
            seen += await asyncio.wait_for(response.content.readany(), 5)
        texts.append(seen)
        assert b"[DONE]" not in seen
        assert b'"finish_reason":"stop"' not in seen
        for _ in range(20):
            served.gate.release()
        seen += await asyncio.wait_for(response.content.read(), 5)
    assert broken_rules(seen) == []


async def test_silence_is_filled_with_comments_that_every_sdk_takes(bursar):
    """wire 3.16: one line and no blank one, no event, no empty data"""
    served = gated("openai")
    bursar.replay.serve(served)
    for _ in range(3):
        served.gate.release()
    seen = b""
    async with bursar.session.post(bursar.url + CHAT, json=asking("openai")) as response:
        while seen.count(b": keep-alive") < 2:
            seen += await asyncio.wait_for(response.content.readany(), 5)
        for _ in range(10):
            served.gate.release()
        seen += await response.content.read()
    assert broken_rules(seen, usage=True) == []
    lines = [line for line in seen.split(b"\n") if not line.startswith(b"data: ")]
    assert set(lines) == {b"", b": keep-alive"}
    assert b": keep-alive\n\n" not in seen


@pytest.mark.parametrize("provider", sorted(TABLES))
async def test_a_streams_headers_keep_proxies_from_buffering_it(bursar, provider):
    """wire 3.24"""
    bursar.replay.serve(reply(provider, "a plain answer"))
    _, headers, _ = await bursar.post(CHAT, asking(provider))
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "content-length" not in headers


@pytest.mark.parametrize("provider", sorted(TABLES))
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_before_the_answer_takes_the_provider_along(bursar, provider, stream):
    """wire 3.28"""
    bursar.replay.serve(Reply(gate=asyncio.Semaphore(0)))
    body = asking(provider) if stream else {k: v for k, v in asking(provider).items() if not k.startswith("stream")}
    gone = bursar.replay.gone
    async with aiohttp.ClientSession() as session:
        asked = asyncio.ensure_future(session.post(bursar.url + CHAT, json=body))
        async with asyncio.timeout(5):
            while not bursar.replay.requests:
                await asyncio.sleep(0)
        asked.cancel()
        await asyncio.wait([asked])
    await asyncio.wait_for(gone.wait(), 1)


@pytest.mark.parametrize("provider", sorted(TABLES))
async def test_a_client_that_leaves_in_the_stream_takes_the_provider_along(bursar, provider):
    """wire 3.27"""
    whole = reply(provider, "a plain answer")
    bursar.replay.serve(Reply(body=whole.body[: len(whole.body) * 4 // 5], headers=whole.headers, hold=True))
    gone = bursar.replay.gone
    async with aiohttp.ClientSession() as session:
        response = await session.post(bursar.url + CHAT, json=asking(provider))
        await asyncio.wait_for(response.content.readany(), 5)
        response.close()
    await asyncio.wait_for(gone.wait(), 1)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_compressed_answer_is_unpacked_and_its_old_headers_are_gone(bursar, coding):
    """wire 3.79"""
    import zlib

    plain = orjson.dumps(WHOLE["openai"])
    packed = gzip.compress(plain) if coding == "gzip" else zlib.compress(plain)
    bursar.replay.serve(
        Reply(body=packed, headers={**JSON_, "content-encoding": coding}, chunked=False, keep_coding=True)
    )
    status, headers, answer = await bursar.post(CHAT, {"model": "openai/m", "messages": HELLO})
    assert (status, orjson.loads(answer)) == (200, WHOLE["openai"])
    assert "content-encoding" not in headers
    assert int(headers["content-length"]) == len(answer)
    async with sdk(bursar) as client:
        made = await client.chat.completions.create(model="openai/m", messages=HELLO)
    assert made.choices[0].message.tool_calls[0].function.name == "f"


async def test_a_provider_that_is_not_there_is_a_502():
    """wire 3.81"""
    async with bursar_before() as alone:
        await alone.replay.stop()
        for provider in PROVIDERS:
            for stream in (True, False):
                status, _, answer = await alone.post(
                    CHAT, {"model": f"{provider}/m", "messages": HELLO, "stream": stream}
                )
                assert (status, orjson.loads(answer)["error"]["code"]) == (502, "upstream_unavailable")


@pytest.mark.parametrize(("name", "value"), [("retry-after", "7"), ("retry-after-ms", "7500")])
@pytest.mark.parametrize("provider", PROVIDERS)
async def test_when_to_come_back_reaches_the_client_under_its_name(bursar, provider, name, value):
    """wire 3.69"""
    body = b'{"error": {"message": "slow down", "type": "rate_limit_error"}}'
    bursar.replay.serve(Reply(status=429, body=body, headers={name: value, **JSON_}, chunked=False))
    status, headers, answer = await bursar.post(CHAT, {"model": f"{provider}/m", "messages": HELLO, "stream": True})
    assert (status, headers[name]) == (429, value)
    assert orjson.loads(answer)["error"]["message"] == "slow down"
    async with sdk(bursar) as client:
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model=f"{provider}/m", messages=HELLO)
