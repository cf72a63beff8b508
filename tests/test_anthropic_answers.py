"""What the client gets of Claude: completions, streams and errors, against the tables of wire 2.1."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from accounting.usage import usage_from_openai
from adapters.base import Call, Endpoint
from adapters.errors import UpstreamAuthError, UpstreamError, UpstreamProtocolError
from adapters.providers.anthropic import AnthropicAdapter
from tests import recorded

MODEL = "claude-sonnet-4-5"
TOOL = {"type": "function", "function": {"name": "f"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "r", "schema": SCHEMA}}
FORMED = {"model": "claude-sonnet-4-0", "response_format": FORMAT}
OLD_FORM = {"functions": [{"name": "f"}]}
KNOWN_EXCEPTION = "anthropic-msg-non-stream-error-007"  # our key is refused: a 502 for the client, and not its 401


def adapter() -> AnthropicAdapter:
    return AnthropicAdapter(Endpoint(name="claude", kind="anthropic", base_url="https://api.anthropic.com"))


def call_of(body: dict[str, Any] | None = None, **changes: Any) -> Call:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **(body or {})}
    fields: dict[str, Any] = {
        "raw": b"",
        "body": body,
        "upstream_model": body["model"],
        "stream": bool(body.get("stream")),
        "call_id": "req_1",
        "created": 1_700_000_000,
    }
    return Call(**{**fields, **changes})


def answer(message: dict[str, Any], body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Translate a whole message; the official SDK accepts it strictly, and the bytes say the same as the dict."""
    whole = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "content": [], **message}
    made = adapter().exchange(call_of(body)).completion(json.dumps(whole).encode(), {})
    assert json.loads(made.body) == made.completion
    ChatCompletion.model_validate(made.completion, strict=True)
    return made.completion


def event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def start(index: int = 0, **block: Any) -> bytes:
    return event("content_block_start", index=index, content_block=block)


def delta(index: int = 0, **fields: Any) -> bytes:
    return event("content_block_delta", index=index, delta=fields)


def stop(index: int = 0) -> bytes:
    return event("content_block_stop", index=index)


def ended(reason: str | None = "end_turn", usage: Any = None, **more: Any) -> bytes:
    return event("message_delta", delta={"stop_reason": reason, **more}, usage=usage or {"output_tokens": 9}) + event(
        "message_stop"
    )


GREETING = event(
    "message_start", message={"id": "msg_1", "model": MODEL, "usage": {"input_tokens": 5, "output_tokens": 1}}
)
HELLO = (
    start(type="text", text="") + delta(type="text_delta", text="Hel") + delta(type="text_delta", text="lo") + stop()
)


def tool(index: int, *fragments: str, call_id: str = "a", name: str = "f", given: Any = None) -> bytes:
    opened = start(index, type="tool_use", id=call_id, name=name, input=given or {})
    return opened + b"".join(delta(index, type="input_json_delta", partial_json=f) for f in fragments) + stop(index)


def run(data: bytes, body: dict[str, Any] | None = None, size: int = 0, **changes: Any) -> tuple[bytes, Any]:
    translator = adapter().exchange(call_of({"stream": True, **(body or {})}, **changes)).stream()
    out = [translator.feed(piece) for piece in recorded.pieces(data, size)]
    out.append(b"" if translator.finished else translator.eof())
    return b"".join(out), translator


def read(data: bytes, body: dict[str, Any] | None = None, **changes: Any) -> Any:
    """Translate a stream that ends well; the official SDK's accumulator reads it, and every chunk is strictly valid."""
    out, translator = run(data, body, **changes)
    assert translator.error is None
    return accumulated(out)


def accumulated(out: bytes) -> Any:
    chunks, done = recorded.chunks_of(out)
    assert done
    state: Any = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk, strict=True))
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks}) == 1
    return state.current_completion_snapshot


# whole answers ---------------------------------------------------------------------------------------------------

TEXT = {"type": "text", "text": "Hello"}
USE = {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}

REASONS = [
    ("end_turn", [TEXT], "stop"),
    ("stop_sequence", [TEXT], "stop"),
    ("max_tokens", [TEXT], "length"),
    ("max_tokens", [USE], "length"),
    ("model_context_window_exceeded", [TEXT], "length"),
    ("refusal", [TEXT], "content_filter"),
    ("refusal", [], "content_filter"),
    ("pause_turn", [TEXT], "stop"),
    ("tool_use", [USE], "tool_calls"),
    ("end_turn", [USE], "tool_calls"),
    ("tool_use", [TEXT], "stop"),
    ("unheard_of", [TEXT], "stop"),
    (None, [TEXT], "stop"),
    (7, [USE], "tool_calls"),
]


@pytest.mark.parametrize(("native", "content", "reason"), REASONS)
def test_every_reason_becomes_one_of_openais_in_both_lanes(native, content, reason):
    """wire 3.41, wire 3.42"""
    assert answer({"content": content, "stop_reason": native})["choices"][0]["finish_reason"] == reason
    blocks = b"".join(
        tool(n, '{"x":1}') if block is USE else start(n, **block) + stop(n) for n, block in enumerate(content)
    )
    assert read(GREETING + blocks + ended(native)).choices[0].finish_reason == reason


CONTENTS = [
    ([TEXT, TEXT], "HelloHello", None),
    ([], "", None),
    ([USE], None, ["a"]),
    ([TEXT, USE], "Hello", ["a"]),
    (["junk", 3, {"type": "text"}, {"type": "text", "text": 4}], "", None),
    (
        [
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
            {"type": "web_search_tool_result"},
            TEXT,
        ],
        "Hello",
        None,
    ),
    (
        [
            {"type": "mcp_tool_use", "id": "m", "name": "x", "input": {}},
            {"type": "compaction"},
            {"type": "container_upload"},
        ],
        "",
        None,
    ),
]


@pytest.mark.parametrize(("content", "text", "ids"), CONTENTS)
def test_text_is_joined_and_only_the_clients_own_tools_are_calls(content, text, ids):
    """wire 3.10, wire 3.83"""
    message = answer({"content": content, "stop_reason": "end_turn"})["choices"][0]["message"]
    assert message["content"] == text
    assert [call["id"] for call in message["tool_calls"]] == ids if ids else "tool_calls" not in message


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({}, "{}"),
        (None, "{}"),
        ({"b": "ü🦩", "a": [1, 2.5, None]}, '{"b":"ü🦩","a":[1,2.5,null]}'),
        (
            {"n": 9007199254740993, "m": 123456789012345678901234567890},
            '{"n":9007199254740993,"m":123456789012345678901234567890}',
        ),
    ],
)
def test_arguments_are_a_string_of_what_the_model_wrote(given, arguments):
    """wire 3.8, wire 3.89"""
    call = answer({"content": [{**USE, "input": given}]})["choices"][0]["message"]["tool_calls"][0]
    assert call == {"id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}


USAGES = [
    ({"input_tokens": 5, "output_tokens": 7}, (5, 7, 12, 0, 0, 0)),
    (
        {
            "input_tokens": 5,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 20,
            "output_tokens": 7,
            "output_tokens_details": {"thinking_tokens": 3},
        },
        (125, 7, 132, 100, 20, 3),
    ),
    (
        {
            "input_tokens": 1,
            "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 4},
            "output_tokens": 1,
        },
        (7, 1, 8, 0, 6, 0),
    ),
    ({"input_tokens": None, "output_tokens": -3, "cache_read_input_tokens": "x"}, (0, 0, 0, 0, 0, 0)),
    ({"input_tokens": 1e30, "output_tokens": True}, (0, 0, 0, 0, 0, 0)),
]


@pytest.mark.parametrize(("native", "expected"), USAGES)
def test_usage_is_in_openais_arithmetic_in_both_lanes(native, expected):
    """wire 3.35, wire 3.36, wire 3.40"""
    whole = answer({"content": [TEXT], "usage": native})["usage"]
    streamed = read(
        GREETING.replace(b'{"input_tokens": 5, "output_tokens": 1}', json.dumps(native).encode())
        + HELLO
        + ended(usage=native)
    )
    for usage in (whole, json.loads(streamed.usage.model_dump_json())):
        assert (
            usage["prompt_tokens"],
            usage["completion_tokens"],
            usage["total_tokens"],
            usage["prompt_tokens_details"]["cached_tokens"],
            usage["prompt_tokens_details"]["cache_write_tokens"],
            usage["completion_tokens_details"]["reasoning_tokens"],
        ) == expected


def test_what_was_written_to_the_cache_for_an_hour_is_priced_apart():
    native = {
        "input_tokens": 1,
        "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 4},
        "output_tokens": 1,
    }
    usage = usage_from_openai(answer({"content": [TEXT], "usage": native})["usage"])
    assert (usage.input, usage.cache_write, usage.cache_write_1h) == (7, 2, 4)


@pytest.mark.parametrize(
    ("native", "tier"), [("standard", "default"), ("priority", "priority"), ("batch", None), (3, None)]
)
def test_the_service_tier_is_openais_or_absent(native, tier):
    """wire 3.85"""
    assert answer({"content": [TEXT], "usage": {"service_tier": native}}).get("service_tier") == tier


def test_a_refusal_says_why():
    """wire 3.41"""
    details = {"type": "refusal", "category": "cyber", "explanation": "Not this."}
    message = answer({"content": [TEXT], "stop_reason": "refusal", "stop_details": details})["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == ("Hello", "Not this.")
    streamed = read(GREETING + HELLO + ended("refusal", stop_details=details))
    assert (streamed.choices[0].message.content, streamed.choices[0].message.refusal) == ("Hello", "Not this.")


def test_citations_of_pages_become_annotations_of_the_text_that_they_support():
    """wire 3.68"""
    cited = {"type": "web_search_result_location", "url": "https://x", "title": "X", "cited_text": "…"}
    expected = [
        {"type": "url_citation", "url_citation": {"url": "https://x", "title": "X", "start_index": 5, "end_index": 10}}
    ]
    message = answer({"content": [TEXT, {**TEXT, "citations": [cited, {"type": "page_location"}]}]})["choices"][0][
        "message"
    ]
    assert message["annotations"] == expected
    second = (
        start(1, type="text", text="")
        + delta(1, type="citations_delta", citation=cited)
        + delta(1, type="text_delta", text="Hello")
        + stop(1)
    )
    streamed = read(GREETING + HELLO + second + ended())
    told = [one.model_dump() for one in streamed.choices[0].message.annotations]
    assert told == [{"index": 0, **expected[0]}]


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', 529, UpstreamError),
        (b'{"error":{"message":"odd"}}', 500, UpstreamError),
        (b'{"error":"odd"}', 500, UpstreamError),
        (b"", 502, UpstreamProtocolError),
        (b"<html>", 502, UpstreamProtocolError),
        (b"[]", 502, UpstreamProtocolError),
        (b'{"type":"message"}', 502, UpstreamProtocolError),
        (
            b'{"content":[{"type":"tool_use","name":"f","input":' + b'{"a":' * 400 + b"1" + b"}" * 400 + b"}]}",
            None,
            None,
        ),
        (b'{"content":' * 3000, 502, UpstreamProtocolError),
    ],
)
def test_a_200_that_is_no_answer_becomes_an_error(body, status, kind):
    """wire 3.22"""
    if kind is None:
        assert adapter().exchange(call_of()).completion(body, {}).body
        return
    with pytest.raises(kind) as caught:
        adapter().exchange(call_of()).completion(body, {})
    assert caught.value.status == status
    assert caught.value.body()["error"]["message"]


# streams ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 7])
def test_text_then_two_calls_arrive_whole_however_the_bytes_are_cut(size):
    """wire 3.1, wire 3.5, wire 3.6, wire 3.7, wire 3.9, wire 3.25, wire 3.26"""
    data = GREETING + HELLO + tool(1, "", '{"x": "🦩', 'ü"}') + tool(2, call_id="b", name="g") + ended("tool_use")
    data = data.decode().encode().replace(b"\\ud83e\\udda9", "🦩".encode()).replace(b"\\u00fc", "ü".encode())
    out, translator = run(data, size=size)
    assert translator.error is None
    choice = accumulated(out).choices[0]
    assert choice.message.content == "Hello"
    calls = [
        (call.index, call.id, call.type, call.function.name, call.function.arguments)
        for call in choice.message.tool_calls
    ]
    assert calls == [(0, "a", "function", "f", '{"x": "🦩ü"}'), (1, "b", "function", "g", "{}")]
    chunks, _ = recorded.chunks_of(out)
    assert sum("role" in choice["delta"] for chunk in chunks for choice in chunk["choices"]) == 1


@pytest.mark.parametrize(
    ("block", "arguments"),
    [
        (tool(0), "{}"),
        (tool(0, ""), "{}"),
        (tool(0, given={"x": 1}), '{"x":1}'),
        (tool(0, '{"y":2}', given={"x": 1}), '{"y":2}'),
        (tool(0, '{"y": ', " 2 }"), '{"y":  2 }'),
    ],
)
def test_arguments_are_the_fragments_as_sent_or_an_empty_object(block, arguments):
    """wire 3.8, wire 3.9"""
    made = read(GREETING + block + ended("tool_use"))
    assert made.choices[0].message.tool_calls[0].function.arguments == arguments


def test_a_call_that_was_cut_off_keeps_its_partial_arguments():
    """wire 3.43"""
    made = read(GREETING + tool(0, '{"x": [1,') + ended("max_tokens"))
    assert made.choices[0].finish_reason == "length"
    assert made.choices[0].message.tool_calls[0].function.arguments == '{"x": [1,'


def test_pings_unknown_events_and_server_tools_say_nothing():
    """wire 3.82, wire 3.83"""
    server = (
        start(0, type="server_tool_use", id="s", name="web_search", input={})
        + delta(0, type="input_json_delta", partial_json='{"q":1}')
        + stop(0)
    )
    noise = (
        b": comment\n\n"
        + event("ping")
        + event("news", index=0)
        + b"data: \n\ndata: [DONE]\n\n"
        + event("content_block_delta", index=9, delta=3)
    )
    plain, _ = run(GREETING + HELLO + ended())
    noisy, _ = run(noise + GREETING + noise + server + HELLO.replace(b'"index": 0', b'"index": 1') + noise + ended())
    assert noisy == plain


def test_the_usage_chunk_is_last_and_hidden_from_a_client_that_did_not_ask():
    """wire 3.12, wire 3.13, wire 3.14"""
    data = GREETING + HELLO + ended(usage={"output_tokens": 9, "input_tokens": None})
    shown, _ = recorded.chunks_of(run(data, show_usage=True)[0])
    out, translator = run(data, show_usage=False)
    hidden, _ = recorded.chunks_of(out)
    assert [chunk["usage"]["total_tokens"] for chunk in shown if chunk["usage"]] == [14]
    assert shown[-1]["choices"] == []
    assert all("usage" not in chunk and chunk["choices"] for chunk in hidden)
    assert translator.take()[-1]["usage"]["total_tokens"] == 14


def test_broken_relays_are_read_as_they_meant():
    """Text in the block's start, every block numbered 0 and never closed, tool input in the block's start."""
    data = (
        GREETING
        + start(type="text", text="Hello")
        + start(type="tool_use", id="a", name="f", input={"x": 1})
        + ended("tool_use")
    )
    choice = read(data).choices[0]
    assert (choice.message.content, choice.message.tool_calls[0].function.arguments) == ("Hello", '{"x":1}')


def test_a_second_greeting_begins_anew_until_something_was_told():
    other = GREETING.replace(b"msg_1", b"msg_2")
    assert read(GREETING + other + HELLO + ended()).id == "msg_2"
    _, translator = run(GREETING + HELLO + other + HELLO + ended())
    assert isinstance(translator.error, UpstreamProtocolError)


ERROR = event("error", error={"type": "overloaded_error", "message": "Overloaded"})


@pytest.mark.parametrize("before", [b"", event("ping"), GREETING, GREETING + event("ping")])
def test_an_error_before_any_content_can_still_be_a_status(before):
    """wire 3.21"""
    out, translator = run(before + ERROR)
    assert (out, translator.started, translator.finished) == (b"", False, True)
    assert (translator.error.status, translator.error.code, translator.error.message) == (
        529,
        "overloaded",
        "Overloaded",
    )


def test_an_error_after_content_ends_the_stream_without_a_reason():
    """wire 3.17"""
    out, translator = run(GREETING + HELLO + ERROR + HELLO + ended())
    chunks, done = recorded.chunks_of(out)
    assert translator.started
    assert translator.error.message == "Overloaded"
    assert not done
    assert all(choice["finish_reason"] is None for chunk in chunks for choice in chunk["choices"])
    assert translator.feed(ended()) == b""


@pytest.mark.parametrize(
    ("data", "started", "status"),
    [
        (b"", False, 502),
        (event("ping"), False, 502),
        (GREETING, False, 502),
        (GREETING + HELLO, True, 502),
        (GREETING + HELLO + ended()[:-40], True, 502),
        (GREETING + start(type="tool_use", id="a", name="f"), True, 502),
        (b"<html>502 Bad Gateway</html>", False, 502),
        (b'{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}', False, 429),
        (GREETING + b"data: {not json\n\n", False, 502),
        (GREETING + HELLO + b"data: " + b"x" * (5 * 1024 * 1024), True, 502),
    ],
)
def test_a_stream_without_its_end_is_an_error(data, started, status):
    """wire 3.18, wire 3.22"""
    out, translator = run(data, size=60_000)
    assert b"[DONE]" not in out
    assert (translator.started, translator.finished) == (started, True)
    assert translator.error.status == status
    assert translator.error.code


def test_a_stream_that_ended_properly_without_a_reason_gets_one():
    """wire 3.19"""
    assert read(GREETING + HELLO + event("message_stop")).choices[0].finish_reason == "stop"
    assert read(GREETING + tool(0) + event("message_stop")).choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(("limit", "completion"), [(3, 3), (None, 2)])
def test_a_stream_that_bursar_ends_is_whole_for_the_client(limit, completion):
    translator = adapter().exchange(call_of({"stream": True}, output_limit=limit)).stream()
    out = translator.feed(GREETING + HELLO[:-30]) + translator.cut()
    made = accumulated(out)
    assert (made.choices[0].finish_reason, made.choices[0].message.content) == ("length", "Hello")
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (5, completion)
    assert translator.finished
    assert translator.error is None
    assert translator.feed(ended()) + translator.eof() + translator.cut() == b""


# emulations ------------------------------------------------------------------------------------------------------


def test_an_answer_by_tool_comes_back_as_content_with_stop():
    """wire 3.84"""
    block = {**USE, "name": "json_answer"}
    choice = answer({"content": [TEXT, block, block], "stop_reason": "tool_use"}, FORMED)["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("stop", '{"x":1}')
    assert "tool_calls" not in choice["message"]
    data = (
        GREETING
        + HELLO
        + tool(1, '{"x"', ":1}", name="json_answer")
        + tool(2, "{}", name="json_answer")
        + ended("tool_use")
    )
    streamed = read(data, FORMED).choices[0]
    assert (streamed.finish_reason, streamed.message.content, streamed.message.tool_calls) == ("stop", '{"x":1}', None)


def test_where_the_model_does_not_answer_by_tool_its_text_is_told_after_all():
    assert answer({"content": [TEXT]}, FORMED)["choices"][0]["message"]["content"] == "Hello"
    assert read(GREETING + HELLO + ended(), FORMED).choices[0].message.content == "Hello"


def test_the_clients_own_tools_still_are_calls_beside_an_emulated_answer():
    body = {**FORMED, "tools": [TOOL]}
    choice = read(GREETING + tool(0, "{}") + ended("tool_use"), body).choices[0]
    assert (choice.finish_reason, choice.message.tool_calls[0].function.name) == ("tool_calls", "f")


def test_a_client_of_the_old_form_is_answered_in_the_old_form():
    choice = answer({"content": [USE], "stop_reason": "tool_use"}, OLD_FORM)["choices"][0]
    assert (choice["finish_reason"], choice["message"]["function_call"]) == (
        "function_call",
        {"name": "f", "arguments": '{"x":1}'},
    )
    out, _ = run(GREETING + tool(0, '{"x"', ":1}") + tool(1, "{}") + ended("tool_use"), OLD_FORM)
    deltas = [
        chunk["choices"][0]["delta"].get("function_call") for chunk in recorded.chunks_of(out)[0] if chunk["choices"]
    ]
    told = [delta for delta in deltas if delta]
    assert told[0] == {"name": "f", "arguments": ""}
    assert "".join(delta["arguments"] for delta in told) == '{"x":1}'
    assert accumulated(out).choices[0].finish_reason == "function_call"


# thoughts --------------------------------------------------------------------------------------------------------

THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "sig"}
SECRET = {"type": "redacted_thinking", "data": "enc"}
THINKING = (
    start(0, type="thinking", thinking="", signature="")
    + delta(0, type="thinking_delta", thinking="Hm")
    + delta(0, type="thinking_delta", thinking=".")
    + delta(0, type="signature_delta", signature="sig")
    + stop(0)
    + start(1, **SECRET)
    + stop(1)
)
DETAILS = [
    {"index": 0, "type": "reasoning.text", "text": "Hm.", "signature": "sig", "format": "anthropic-claude-v1"},
    {"index": 1, "type": "reasoning.encrypted", "data": "enc", "format": "anthropic-claude-v1"},
]


def test_thoughts_are_told_with_their_signatures_in_both_lanes():
    """wire 3.87"""
    message = answer({"content": [THOUGHT, SECRET, TEXT]})["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"], message["reasoning_details"]) == ("Hello", "Hm.", DETAILS)
    streamed = read(GREETING + THINKING + HELLO.replace(b'"index": 0', b'"index": 2') + ended()).choices[0].message
    assert (streamed.content, streamed.reasoning_content, streamed.reasoning_details) == ("Hello", "Hm.", DETAILS)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("echo", [False, True])
def test_a_tool_loop_keeps_its_thoughts_through_a_client_that_drops_them(streaming, echo):
    """wire 3.50"""
    provider = adapter()
    first = provider.exchange(call_of({"reasoning_effort": "low", "tools": [TOOL]}))
    if streaming:
        first.stream().feed(GREETING + THINKING + tool(2, '{"x":1}') + ended("tool_use"))
    else:
        body = {"id": "m", "model": MODEL, "content": [THOUGHT, SECRET, USE], "stop_reason": "tool_use"}
        first.completion(json.dumps(body).encode(), {})
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
    said: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": [call]}
    if echo:
        said["reasoning_details"] = DETAILS
        provider = adapter()  # another process: only the echo helps
    history = [{"role": "user", "content": "hi"}, said, {"role": "tool", "tool_call_id": "a", "content": "1"}]
    second = provider.exchange(call_of({"reasoning_effort": "low", "tools": [TOOL], "messages": history}))
    made = json.loads(second.request.body)
    assert made["messages"][1]["content"] == [THOUGHT, SECRET, USE]
    assert made["thinking"]["type"] == "enabled"


# errors ----------------------------------------------------------------------------------------------------------


def native(kind: str, message: str = "because") -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "r"}).encode()


ERRORS = [
    (400, native("invalid_request_error"), 400, "invalid_request_error", None, None),
    (
        400,
        native("invalid_request_error", "prompt is too long: 9 > 8"),
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "messages",
    ),
    (
        400,
        native("invalid_request_error", "Your credit balance is too low"),
        400,
        "insufficient_quota",
        "insufficient_quota",
        None,
    ),
    (402, native("billing_error"), 402, "insufficient_quota", "insufficient_quota", None),
    (401, native("authentication_error"), 502, "upstream_error", "upstream_auth_error", None),
    (401, b"", 502, "upstream_error", "upstream_auth_error", None),
    (403, native("permission_error"), 403, "permission_error", None, None),
    (404, native("not_found_error", "model: x"), 404, "invalid_request_error", "model_not_found", "model"),
    (404, native("not_found_error", "no such file"), 404, "invalid_request_error", None, None),
    (409, b"{}", 409, "invalid_request_error", None, None),
    (413, native("request_too_large"), 413, "invalid_request_error", "request_too_large", None),
    (429, native("rate_limit_error"), 429, "rate_limit_error", "rate_limit_exceeded", None),
    (500, native("api_error"), 500, "server_error", None, None),
    (504, native("timeout_error"), 504, "server_error", None, None),
    (529, native("overloaded_error"), 529, "server_error", "overloaded", None),
    (503, b"<html><style>x</style><h1>Down</h1></html>", 503, "server_error", None, None),
    (302, b"", 502, "invalid_request_error", None, None),
]


@pytest.mark.parametrize(("status", "body", "own_status", "kind", "code", "param"), ERRORS)
def test_an_error_keeps_its_status_and_says_openais_words(status, body, own_status, kind, code, param):
    """wire 3.20, wire 3.72"""
    error = adapter().exchange(call_of()).error(status, {}, body)
    assert error.status == own_status
    assert (error.body()["error"]["type"], error.code, error.param) == (kind, code, param)
    assert set(error.body()["error"]) == {"message", "type", "param", "code"}
    assert isinstance(error, UpstreamAuthError) == (code == "upstream_auth_error")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"m","code":7}}', "m"),
        (b'{"error":"m"}', "m"),
        (b'{"message":"m"}', "m"),
        (b'{"detail":"m"}', "m"),
        (b'{"detail":[{"msg":"m"}]}', "m"),
        (b'[{"error":{"message":"m"}}]', "m"),
        (b'"m"', "m"),
        (b"m\n", "m"),
        (b"<html><head><title>502</title></head><body>Bad <b>Gateway</b></body></html>", "502 Bad Gateway"),
        (b"", "The provider answered with status 400."),
        (b"{}", "The provider answered with status 400."),
        (b"null", "The provider answered with status 400."),
        (b'{"error":null}', "The provider answered with status 400."),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_every_form_of_an_errors_body_keeps_its_text(body, message):
    """wire 3.80"""
    error = adapter().exchange(call_of()).error(400, {}, body)
    assert error.message == message
    assert isinstance(error.code, str | None)


def test_the_headers_that_clients_act_on_are_kept():
    """wire 3.69, wire 3.72"""
    headers = {
        "retry-after": "7",
        "x-should-retry": "true",
        "request-id": "req_9",
        "date": "Fri, 20 Nov 2026 12:00:00 GMT",
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-reset": "2026-11-20T12:06:00Z",
        "anthropic-ratelimit-tokens-reset": "soon",
        "set-cookie": "secret",
    }
    assert adapter().exchange(call_of()).error(429, headers, b"").headers == {
        "retry-after": "7",
        "x-should-retry": "true",
        "x-request-id": "req_9",
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-reset": "2026-11-20T12:06:00Z",
        "anthropic-ratelimit-tokens-reset": "soon",
        "x-ratelimit-limit-requests": "50",
        "x-ratelimit-reset-requests": "6m0s",
    }


# recordings and chance -------------------------------------------------------------------------------------------

CASES = [case_id for case_id in recorded.case_ids("anthropic-messages") if case_id != KNOWN_EXCEPTION]


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
@pytest.mark.parametrize("case_id", CASES)
def test_a_recorded_answer_keeps_its_facts_however_it_is_cut(case_id):
    """wire 3.1, wire 3.10, wire 3.25, wire 3.35, wire 3.41, wire 3.83, wire 3.86"""
    case = recorded.load(case_id)
    for size in (0, 1, 7, 1000) if case["request"]["openai"].get("stream") else (0,):
        assert recorded.problems(adapter(), case, size) == []


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
@pytest.mark.parametrize(
    "case_id",
    [case_id for case_id in CASES if "-stream-" in case_id and "non-stream" not in case_id and "error" not in case_id],
)
def test_openais_own_accumulator_reads_a_recorded_stream(case_id):
    """wire 3.85, wire 3.87"""
    case = recorded.load(case_id)
    translator = adapter().exchange(recorded.call_for(case, show_usage=True)).stream()
    made = accumulated(translator.feed(recorded.response_bytes(case)))
    expected = case["expected"]["choices"][0]
    assert (made.choices[0].message.content or "") == (expected["text"] or "")
    assert made.usage is not None


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "error", "index", "id"]) | st.text(max_size=4), inner, max_size=3
        )
    ),
    max_leaves=8,
)
EVENTS = st.sampled_from(
    [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "ping",
        "error",
    ]
)
FIELDS = st.dictionaries(
    st.sampled_from(["message", "content_block", "delta", "usage", "error", "index"]), JSONS, max_size=3
)
GOOD = [GREETING, HELLO, THINKING, tool(1, '{"x":1}'), tool(0, name="json_answer"), ended(), ERROR, event("ping")]
ODD = st.tuples(EVENTS, FIELDS).map(lambda pair: event(pair[0], **pair[1]))


@given(
    st.lists(st.sampled_from(GOOD) | ODD | st.binary(max_size=30), max_size=10),
    st.sampled_from([0, 1, 7]),
    st.sampled_from([{}, FORMED, OLD_FORM]),
)
@settings(max_examples=100, deadline=None)
def test_any_stream_ends_as_a_valid_one_or_in_a_clean_error(parts, size, body):
    out, translator = run(b"".join(parts), body, size=size)
    assert translator.finished
    if translator.error is None:
        accumulated(out)
    else:
        assert translator.error.body()["error"]["message"]
        assert b"[DONE]" not in out
        assert translator.started or not out


@given(st.lists(st.sampled_from(GOOD) | ODD, max_size=6), st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_a_stream_reads_the_same_however_it_is_cut(parts, size):
    data = b"".join(parts)
    whole, one = run(data)
    pieces, other = run(data, size=size)
    assert whole == pieces
    assert (one.error and one.error.body()) == (other.error and other.error.body())


@given(
    JSONS
    | st.dictionaries(
        st.sampled_from(["content", "usage", "stop_reason", "id", "model", "stop_details", "type"]), JSONS, max_size=4
    )
    | st.lists(JSONS, max_size=3).map(lambda blocks: {"content": blocks})
)
@settings(max_examples=100, deadline=None)
def test_any_json_is_a_valid_completion_or_a_clean_error(value):
    try:
        made = adapter().exchange(call_of()).completion(json.dumps(value).encode(), {})
    except UpstreamError as error:
        failed: UpstreamError | None = error
    else:
        failed = None
        ChatCompletion.model_validate(json.loads(made.body), strict=True)
    assert failed is None or failed.body()["error"]["message"]


@given(st.binary(max_size=60), st.integers(300, 599))
@settings(max_examples=50, deadline=None)
def test_any_bytes_are_an_error_with_a_message(body, status):
    error = adapter().exchange(call_of()).error(status, {}, body)
    assert error.message
    assert 400 <= error.status <= 599
