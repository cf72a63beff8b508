"""What goes through Bursar and back unchanged: numbers, letters, order, unknown fields, embeddings; and what is listed."""

import base64
import json
import struct

import openai
import orjson
import pytest
import pytest_asyncio

from tests.constructed import BEGIN as FRAMES_BEGIN
from tests.constructed import MODELS, asking, claude, crlf, ended, google, reply, tool, used
from tests.constructed_openai import HI, ROLE, STOP, USED, sse
from tests.replay import PROVIDERS, Reply, bursar_before
from tests.stream_rules import accumulated, broken_rules, events_of
from tests.test_wire_proxy import WHOLE

pytestmark = pytest.mark.asyncio(loop_scope="module")


SSE = {"content-type": "text/event-stream"}
JSON_ = {"content-type": "application/json"}
CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "hi"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bursar():
    async with bursar_before() as running:
        yield running


def sdk(bursar, **more):
    return openai.AsyncOpenAI(base_url=f"{bursar.url}/v1", api_key="any", max_retries=0, **more)


LARGE = 9007199254740993
HUGE = 123456789012345678901234567890
ARGUMENTS = '{"z": 9007199254740993, "a": "\u00e9\U0001f600", "huge": 123456789012345678901234567890, "n": -1.50}'


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini", "vertex", "bedrock", "mistral", "deepseek"])
async def test_arguments_keep_their_numbers_letters_and_order_on_the_way_there(bursar, provider):
    """wire 3.74, 3.89: and the same request gives the same bytes again"""
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": ARGUMENTS}}
    schema = {
        "type": "object",
        "properties": {"z": {"type": "integer", "maximum": LARGE}, "a": {"type": "string"}},
        "required": ["z", "a"],
    }
    body = {
        "model": f"{provider}/{MODELS.get(provider, 'm')}", "tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}],
        "messages": [*HELLO, {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "tool_call_id": "call_1", "content": ARGUMENTS}],
    }  # fmt: skip
    sent = []
    for _ in range(2):
        bursar.replay.serve(Reply(status=400, body=b"{}", chunked=False))
        await bursar.post(CHAT, body)
        sent.append(bursar.replay.requests[0].body)
    assert sent[0] == sent[1]
    text = sent[0].decode()
    assert str(LARGE) in text
    assert str(HUGE) in text
    assert "\U0001f600" in json.dumps(json.loads(text), ensure_ascii=False)
    assert text.index('"z"') < text.index('"a"') if '"z"' in text else text.index('\\"z\\"') < text.index('\\"a\\"')


ROUND = {"z": LARGE, "a": "\u00e9\U0001f600", "huge": HUGE}
PACKED = json.dumps(ROUND)
BACK = {
    "anthropic": json.dumps({**WHOLE["anthropic"], "content": [{"type": "tool_use", "id": "a", "name": "f", "input": ROUND}]}),
    "gemini": json.dumps(google({"functionCall": {"name": "f", "args": ROUND}}, finish="STOP")),
    "bedrock": json.dumps({**WHOLE["bedrock"], "output": {"message": {"role": "assistant", "content": [{"toolUse": {"toolUseId": "a", "name": "f", "input": ROUND}}]}}}),
    "openai": json.dumps({**WHOLE["openai"], "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": PACKED}}]}}]}),
}  # fmt: skip
BACK_STREAMED = {
    "anthropic": claude(*tool(0, "a", "f", PACKED[:9], PACKED[9:]), reason="tool_use"),
    "gemini": crlf(google({"functionCall": {"name": "f", "args": ROUND}}, finish="STOP")),
    "bedrock": FRAMES_BEGIN + used(0, "a", "f", PACKED[:9], PACKED[9:]) + ended("tool_use"),
}


@pytest.mark.parametrize("provider", sorted(BACK))
async def test_arguments_keep_their_numbers_letters_and_order_on_the_way_back(bursar, provider):
    """wire 3.9, 3.89"""
    asked = {"model": f"{provider}/{MODELS[provider]}", "messages": HELLO, "tools": asking(provider)["tools"]}
    bursar.replay.serve(Reply(body=BACK[provider].encode(), headers=JSON_, chunked=False))
    _, _, answer = await bursar.post(CHAT, asked)
    got = [json.loads(answer)["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]]
    if provider in BACK_STREAMED:
        bursar.replay.serve(
            Reply(body=BACK_STREAMED[provider], headers=reply(provider, "a plain answer").headers, size=1)
        )
        _, _, answer = await bursar.post(CHAT, asking(provider))
        got.append(accumulated(events_of(answer)[0]).choices[0].message.tool_calls[0].function.arguments)
    for arguments in got:
        assert list(json.loads(arguments).items()) == list(ROUND.items())


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_fields_that_bursar_does_not_know_reach_openais_kin_and_are_told_elsewhere(bursar, provider):
    """wire 3.67, 3.71"""
    bursar.replay.serve(Reply(body=orjson.dumps(WHOLE.get(provider, WHOLE["gemini" if provider == "vertex" else "openai"])), headers=JSON_, chunked=False))  # fmt: skip
    odd = {"enable_thinking": False, "chat_template_kwargs": {"a": {"b": [1]}}}
    _, headers, _ = await bursar.post(
        CHAT, {"model": f"{provider}/{MODELS.get(provider, 'm')}", "messages": HELLO, **odd}
    )
    sent = bursar.replay.requests[0].json
    if provider in ("anthropic", "gemini", "vertex", "bedrock"):
        assert not odd.keys() & sent.keys()
        assert all(name in headers["x-bursar-dropped"] for name in odd)
    else:
        assert {name: sent[name] for name in odd} == odd


VECTOR = [0.5, -1.25, 0.0078125]
EMBEDDED = {
    "gemini/gemini-embedding-001": {"embeddings": [{"values": VECTOR}]},
    "vertex/text-embedding-005": {
        "predictions": [{"embeddings": {"values": VECTOR, "statistics": {"token_count": 4}}}]
    },
    "bedrock/amazon.titan-embed-text-v2:0": {"embedding": VECTOR, "inputTextTokenCount": 4},
    "bedrock/cohere.embed-english-v3": {"embeddings": {"float": [VECTOR]}, "id": "x"},
}


@pytest.mark.parametrize("model", sorted(EMBEDDED))
async def test_embeddings_come_in_the_encoding_that_was_asked_for(bursar, model):
    """wire 3.66: through the stock SDK, which asks for base64 unless told otherwise"""
    bursar.replay.serve(Reply(body=orjson.dumps(EMBEDDED[model]), headers=JSON_, chunked=False))
    async with sdk(bursar) as client:
        for more in ({}, {"encoding_format": "float"}):
            answer = await client.embeddings.create(model=model, input="hi", **more)
            assert answer.data[0].embedding == VECTOR
    for encoding, kind in (("base64", str), ("float", list)):
        _, _, raw = await bursar.post("/v1/embeddings", {"model": model, "input": ["hi"], "encoding_format": encoding})
        row = orjson.loads(raw)
        assert isinstance(row["data"][0]["embedding"], kind)
        assert row["usage"].keys() >= {"prompt_tokens", "total_tokens"}
    assert base64.b64encode(struct.pack("<3f", *VECTOR)) not in raw


async def test_models_are_listed_and_found_also_with_slashes_in_their_names(bursar):
    """wire 1.7"""
    status, listed = await bursar.get("/v1/models")
    assert (status, listed["object"]) == (200, "list")
    for name in ("anthropic/claude-sonnet-4-5", "anthropic%2Fclaude-sonnet-4-5", "openai/org/model"):
        status, row = await bursar.get(f"/v1/models/{name}")
        assert status == 200
        assert row.keys() >= {"id", "object", "created", "owned_by"}
    status, told = await bursar.get("/v1/models/nowhere")
    assert (status, told["error"]["code"]) == (404, "model_not_found")
    async with sdk(bursar) as client:
        assert (await client.models.list()).object == "list"
        assert (await client.models.retrieve("gemini/gemini-2.5-pro")).object == "model"


async def test_usage_is_asked_for_upstream_and_the_chunk_is_kept_from_who_did_not_ask(bursar):
    """wire 3.12, 3.13"""
    bursar.replay.serve(Reply(body=sse(ROLE, HI, STOP, USED), headers=SSE))
    status, _, answer = await bursar.post(CHAT, {"model": "openai/gpt-4o", "messages": HELLO, "stream": True})
    assert status == 200
    assert bursar.replay.requests[0].json["stream_options"] == {"include_usage": True}
    assert broken_rules(answer, usage=False) == []
