"""Tool loops of two turns through the official SDK, as a client uses it that keeps nothing but OpenAI's own fields.

wire 3.50, 3.51, 3.52: what a provider wants back of its own reasoning is put back by Bursar.
"""

import json

import openai
import orjson
import pytest
import pytest_asyncio

from tests.constructed import BEGIN, claude, closed, crlf, ended, google, piece, said, start, stop, tool, used
from tests.constructed_openai import CALLED, ROLE, call, chunk, sse
from tests.replay import Reply, bursar_before

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
HELLO = {"role": "user", "content": "What is the weather?"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bursar():
    async with bursar_before() as running:
        yield running


async def first_turn(bursar, model, reply, messages, stream, **more):
    """Ask with the official SDK; return the assistant's message with OpenAI's own fields only."""
    bursar.replay.serve(reply)
    async with openai.AsyncOpenAI(base_url=f"{bursar.url}/v1", api_key="any", max_retries=0) as client:
        if stream:
            async with client.chat.completions.stream(
                model=model, messages=messages, extra_body={"tools": TOOLS, **more}
            ) as events:
                async for _ in events:
                    pass
                message = events.current_completion_snapshot.choices[0].message
        else:
            answer = await client.chat.completions.create(
                model=model, messages=messages, extra_body={"tools": TOOLS, **more}
            )
            message = answer.choices[0].message
    calls = [
        {"id": c.id, "type": "function", "function": {"name": c.function.name, "arguments": c.function.arguments}}
        for c in message.tool_calls
    ]
    return {"role": "assistant", "content": message.content, "tool_calls": calls}


async def second_turn(bursar, model, messages, said_before, stream=False, reply=None, **more):
    """Send the call's results; return the body that the provider got."""
    results = [{"role": "tool", "tool_call_id": c["id"], "content": "sunny"} for c in said_before["tool_calls"]]
    bursar.replay.serve(reply or Reply(status=400, body=b'{"error": {"message": "stop here"}}', chunked=False))
    body = {"model": model, "messages": [*messages, said_before, *results], "tools": TOOLS, "stream": stream, **more}
    await bursar.post("/v1/chat/completions", body)
    return bursar.replay.requests[0].json


THINKING = [
    start(0, "thinking", thinking="", signature=""),
    piece(0, "thinking_delta", thinking="hm"),
    piece(0, "signature_delta", signature="sig-1"),
    stop(0),
]
CLAUDE_STREAM = claude(*THINKING, *tool(1, "toolu_1", "f", "{}"), reason="tool_use")
CLAUDE_WHOLE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "sig-1"},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
    ],
    "stop_reason": "tool_use", "usage": {"input_tokens": 3, "output_tokens": 2},
}  # fmt: skip


@pytest.mark.parametrize("stream", [True, False])
async def test_claude_gets_its_signed_thoughts_back(bursar, stream):
    """wire 3.50"""
    model = "anthropic/claude-sonnet-4-5"
    body = CLAUDE_STREAM if stream else orjson.dumps(CLAUDE_WHOLE)
    said_before = await first_turn(
        bursar, model, whole(body, stream), [HELLO], stream, reasoning_effort="low", max_tokens=4000
    )
    sent = await second_turn(bursar, model, [HELLO], said_before, reasoning_effort="low", max_tokens=4000)
    assert sent["thinking"]["type"] == "enabled"
    assert sent["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "sig-1"},
        {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}},
    ]


async def test_where_claudes_thoughts_are_lost_the_turn_goes_on_without_thinking(bursar):
    """wire 3.50: as after a restart, or through another sidecar"""
    model = "anthropic/claude-sonnet-4-5"
    call_ = {"id": "toolu_unheard", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said_before = {"role": "assistant", "content": None, "tool_calls": [call_]}
    sent = await second_turn(bursar, model, [HELLO], said_before, reasoning_effort="low", max_tokens=4000)
    assert sent["thinking"] == {"type": "disabled"}
    assert [block["type"] for block in sent["messages"][1]["content"]] == ["tool_use"]


@pytest.mark.parametrize("stream", [True, False])
async def test_claude_on_bedrock_gets_its_signed_thoughts_back(bursar, stream):
    """wire 3.50"""
    model = "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0"
    frames = (
        BEGIN + said(0, reasoningContent={"text": "hm"}) + said(0, reasoningContent={"signature": "sig-1"}) + closed(0)
        + used(1, "tooluse_1", "f", "{}") + ended("tool_use")
    )  # fmt: skip
    thought = {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "sig-1"}}}
    use = {"toolUse": {"toolUseId": "tooluse_1", "name": "f", "input": {}}}
    answer = {"output": {"message": {"role": "assistant", "content": [thought, use]}}, "stopReason": "tool_use"}
    body = frames if stream else orjson.dumps(answer)
    said_before = await first_turn(
        bursar, model, whole(body, stream), [HELLO], stream, reasoning_effort="low", max_tokens=4000
    )
    sent = await second_turn(bursar, model, [HELLO], said_before, reasoning_effort="low", max_tokens=4000)
    assert sent["messages"][1]["content"] == [thought, use]


def whole(body, stream, mime="text/event-stream"):
    return Reply(body=body, headers={"content-type": mime if stream else "application/json"}, chunked=stream, size=7)


SIGNED = {"functionCall": {"name": "f", "args": {"x": 1}}, "thoughtSignature": "sig-1"}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("provider", ["gemini", "vertex"])
async def test_gemini_gets_the_signature_back_on_the_very_call(bursar, provider, stream):
    """wire 3.51"""
    model = f"{provider}/gemini-3-pro-preview"
    other = {"functionCall": {"name": "f", "args": {"x": 2}}}
    answer = google(SIGNED, other, finish="STOP")
    body = crlf(google(SIGNED), google(other), google(finish="STOP")) if stream else orjson.dumps(answer)
    said_before = await first_turn(bursar, model, whole(body, stream), [HELLO], stream)
    sent = await second_turn(bursar, model, [HELLO], said_before)
    assert sent["contents"][1]["parts"] == [SIGNED, other]
    assert [part["functionResponse"]["name"] for part in sent["contents"][2]["parts"]] == ["f", "f"]


async def test_a_signature_that_is_lost_is_replaced_by_googles_own_word_for_it(bursar):
    """wire 3.51"""
    call_ = {"id": "unheard", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said_before = {"role": "assistant", "content": None, "tool_calls": [call_]}
    sent = await second_turn(bursar, "gemini/gemini-3-pro-preview", [HELLO], said_before)
    assert sent["contents"][1]["parts"][0]["thoughtSignature"] == "skip_thought_signature_validator"


def thinker(id_, stream, reasoning="hm", name="reasoning_content"):
    if stream:
        pieces = [chunk({name: letter}) for letter in reasoning]
        return whole(sse(ROLE, *pieces, call(0, id_, "f", "{}"), CALLED), True)
    calls = [{"id": id_, "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    message = {"role": "assistant", "content": None, name: reasoning, "tool_calls": calls}
    answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    return whole(json.dumps({**answer, "choices": [choice]}).encode(), False)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("provider", ["deepseek", "moonshotai"])
async def test_deepseek_and_kimi_get_their_reasoning_back(bursar, provider, name, stream):
    """wire 3.52"""
    model, asked = f"{provider}/m", [{"role": "user", "content": f"{provider} {name} {stream}"}]
    said_before = await first_turn(bursar, model, thinker("functions.f:0", stream, name=name), asked, stream)
    sent = await second_turn(bursar, model, asked, said_before)
    assert sent["messages"][1]["reasoning_content"] == "hm"


async def test_every_turn_of_a_longer_loop_gets_its_own_reasoning_back(bursar):
    """wire 3.52"""
    model, history = "deepseek/m", [{"role": "user", "content": "a longer loop"}]
    for number in range(3):
        turn = await first_turn(bursar, model, thinker("functions.f:0", True, f"thought {number}"), history, True)
        history += [turn, {"role": "tool", "tool_call_id": "functions.f:0", "content": f"result {number}"}]
    sent = await second_turn(bursar, model, history[:-2], history[-2])
    told = [m["reasoning_content"] for m in sent["messages"] if m["role"] == "assistant"]
    assert told == ["thought 0", "thought 1", "thought 2"]


async def test_reasoning_is_given_only_to_the_conversation_that_it_belongs_to(bursar):
    """Kimi's tool ids are the same in every conversation."""
    model = "moonshotai/kimi"
    mine, yours = ([{"role": "user", "content": f"a secret of {who}"}] for who in ("mine", "yours"))
    said_before = await first_turn(bursar, model, thinker("functions.f:0", True, "my secret"), mine, True)
    sent = await second_turn(bursar, model, yours, said_before)
    assert sent["messages"][1]["reasoning_content"] == ""


async def test_reasoning_that_the_client_echoes_goes_back_as_it_said_it(bursar):
    """wire 3.52"""
    model, asked = "deepseek/m", [{"role": "user", "content": "echo"}]
    said_before = await first_turn(bursar, model, thinker("a", True), asked, True)
    sent = await second_turn(bursar, model, asked, {**said_before, "reasoning_content": "mine"})
    assert sent["messages"][1]["reasoning_content"] == "mine"


async def test_other_providers_are_sent_no_reasoning_that_the_client_did_not_send(bursar):
    model, asked = "groq/m", [{"role": "user", "content": "none"}]
    said_before = await first_turn(bursar, model, thinker("a", True), asked, True)
    sent = await second_turn(bursar, model, asked, said_before)
    assert "reasoning_content" not in sent["messages"][1]
