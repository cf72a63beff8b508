"""ConverseStream as OpenAI's clients get it, and the laws that hold for any input."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from adapters.errors import UpstreamError, UpstreamProtocolError
from adapters.eventstream import encode
from tests.bedrock import (
    CLAUDE,
    CLAUDE_4,
    START,
    adapter,
    call,
    delta,
    event,
    exception,
    message_stop,
    metadata,
    stop,
    tool_start,
)
from tests.bedrock_answers import CITY, ONE_TOOL, run, streamed
from tests.recorded import chunks_of, pieces


def test_parallel_calls_after_text_have_indexes_of_their_own_and_their_bytes_unchanged():
    """wire 3.1, 3.5, 3.6, 3.7, 3.8, 3.9, 3.10."""
    frames = (
        delta(0, text="Two: ")
        + stop(0)
        + tool_start(1, "a", "f")
        + tool_start(2, "b", "g")
        + delta(2, toolUse={"input": '{"x": '})
        + delta(1, toolUse={"input": ""})
        + delta(2, toolUse={"input": '"é🙂"}'})
        + stop(1)
        + stop(2)
    )
    for size in (0, 1, 7):
        chunks, snapshot = streamed(START + frames + message_stop("tool_use") + metadata(), size=size)
        message = snapshot.choices[0].message
        calls = [(c.id, c.function.name, c.function.arguments) for c in message.tool_calls or []]
        assert calls == [("a", "f", "{}"), ("b", "g", '{"x": "é🙂"}')]
        assert (message.content, snapshot.choices[0].finish_reason) == ("Two: ", "tool_calls")
        assert sum("role" in c["choices"][0]["delta"] for c in chunks if c["choices"]) == 1


def test_usage_is_shown_only_to_those_who_asked_but_always_taken():
    """wire 3.12, 3.13, 3.33."""
    data = START + delta(0, text="x") + message_stop() + metadata()
    translator = adapter().exchange(call(stream=True, show_usage=False)).stream()
    chunks, done = chunks_of(run(translator, data))
    assert done
    assert all(c["choices"] for c in chunks)
    assert translator.take()[-1]["usage"]["total_tokens"] == 15


ORDERS = [
    ("metadata last", message_stop() + metadata(), True),
    ("metadata first", metadata() + message_stop(), True),
    ("no metadata", message_stop(), False),
    ("metadata without usage", message_stop() + event("metadata", {}), False),
]


@pytest.mark.parametrize(("end", "usage"), [row[1:] for row in ORDERS], ids=[row[0] for row in ORDERS])
def test_the_two_frames_of_the_end_may_come_in_any_order_or_alone(end, usage):
    chunks, snapshot = streamed(START + delta(0, text="Hi") + end)
    assert snapshot.choices[0].message.content == "Hi"
    assert snapshot.choices[0].finish_reason == "stop"
    assert bool(chunks[-1].get("usage")) is usage


def test_a_stream_is_finished_with_the_second_frame_of_its_end_and_not_before():
    """wire 3.33: the connection may stay open, and the usage comes after the reason."""
    translator = adapter().exchange(call(stream=True)).stream()
    assert b"[DONE]" not in translator.feed(START + delta(0, text="x") + message_stop())
    assert not translator.finished
    assert translator.feed(metadata()).endswith(b"data: [DONE]\n\n")
    assert translator.finished


EMPTY_INPUTS = [
    ({"functions": [{"name": "f"}]}, "f", CLAUDE),
    ({"response_format": CITY}, "json", CLAUDE_4),
    ({"tools": ONE_TOOL}, "f", CLAUDE),
]


@pytest.mark.parametrize(("request_body", "name", "model"), EMPTY_INPUTS)
def test_an_input_that_never_came_is_an_empty_object_in_every_form(request_body, name, model):
    """wire 3.8."""
    data = START + tool_start(0, "t", name) + stop(0) + message_stop("tool_use") + metadata()
    _, snapshot = streamed(data, request_body, model)
    message = snapshot.choices[0].message
    old, calls = message.function_call, message.tool_calls
    assert [message.content or None, old and old.arguments, calls and calls[0].function.arguments].count("{}") == 1


def test_a_stream_that_breaks_off_is_an_error_and_no_success():
    """wire 3.18."""
    for data in (
        START + delta(0, text="Hi"),
        START + delta(0, text="Hi") + message_stop()[:-3],
        START,
        b"",
        metadata(),
    ):
        translator = adapter().exchange(call(stream=True)).stream()
        out = run(translator, data)
        assert translator.error is not None
        assert translator.finished
        assert b"[DONE]" not in out
        assert b'"finish_reason":"' not in out


EXCEPTIONS = [
    ("throttlingException", 429, "rate_limit_error"),
    ("validationException", 400, "invalid_request_error"),
    ("internalServerException", 500, "server_error"),
    ("serviceUnavailableException", 503, "server_error"),
    ("modelStreamErrorException", 502, "server_error"),
    ("modelTimeoutException", 504, "upstream_error"),
    ("anExceptionOfNextYear", 502, "server_error"),
]


@pytest.mark.parametrize(("name", "status", "type_"), EXCEPTIONS)
def test_an_exception_before_any_content_is_a_status_and_later_ends_the_stream(name, status, type_):
    """wire 3.17, 3.20, 3.21."""
    frame = exception(name, b'{"message":"Told by Amazon","originalMessage":"boom"}')
    for before in (b"", START):
        translator = adapter().exchange(call(stream=True)).stream()
        out = run(translator, before + frame)
        assert (out, translator.started, translator.finished) == (b"", False, True)
        assert translator.error is not None
        assert (translator.error.status, translator.error.type) == (status, type_)
        assert "Told by Amazon" in translator.error.message
        assert "boom" in translator.error.message
    translator = adapter().exchange(call(stream=True)).stream()
    out = run(translator, START + delta(0, text="Hi") + frame + delta(0, text="never"))
    assert translator.started
    assert translator.error is not None
    assert b"Hi" in out
    assert b"never" not in out
    assert b"[DONE]" not in out
    assert b'"finish_reason":"' not in out


def test_an_error_frame_without_a_body_is_told_by_its_headers():
    frame = encode({":message-type": "error", ":error-code": "InternalFailure", ":error-message": "Sorry."}, b"")
    translator = adapter().exchange(call(stream=True)).stream()
    run(translator, frame)
    assert translator.error is not None
    assert (translator.error.status, translator.error.message) == (500, "Sorry.")


def test_a_broken_frame_ends_the_stream_with_a_protocol_error_after_what_came_before():
    good = START + delta(0, text="Hi")
    translator = adapter().exchange(call(stream=True)).stream()
    out = run(translator, good + good[:-1] + b"\0" + good)
    assert isinstance(translator.error, UpstreamProtocolError)
    assert b"Hi" in out


def test_a_body_that_is_json_instead_of_a_stream_is_read_as_the_error_it_is():
    """wire 3.22."""
    for size in (0, 1, 7):
        translator = adapter().exchange(call(stream=True)).stream()
        run(translator, b'{"message":"The security token included in the request is expired"}', size)
        assert translator.error is not None
        assert "security token" in translator.error.message


def test_unknown_frames_and_deltas_are_passed_over():
    frames = event("somethingNew", {"a": 1}) + delta(0, hologram={"x": 1}) + delta(0, text="Hi")
    noise = encode({":message-type": "event", ":event-type": "contentBlockDelta"}, b"[1,2]")
    _, snapshot = streamed(START + frames + noise + message_stop() + metadata())
    assert snapshot.choices[0].message.content == "Hi"


def test_half_of_a_surrogate_pair_does_not_break_the_stream():
    frame = encode(
        {":message-type": "event", ":event-type": "contentBlockDelta"},
        b'{"contentBlockIndex":0,"delta":{"text":"a\\ud83d"}}',
    )
    chunks, _ = streamed(START + frame + message_stop() + metadata())
    assert any(c["choices"] and c["choices"][0]["delta"].get("content", "").startswith("a") for c in chunks)


CUTS = [
    ("before anything", b""),
    ("after the role", START),
    ("in text", START + delta(0, text="Hi")),
    ("in a call", START + tool_start(0, "t", "f") + delta(0, toolUse={"input": '{"a'})),
    ("in reasoning", START + delta(0, reasoningContent={"text": "Hm"})),
]


@pytest.mark.parametrize("data", [row[1] for row in CUTS], ids=[row[0] for row in CUTS])
def test_a_stream_that_bursar_ends_at_the_grant_ends_as_openai_would(data):
    translator = adapter().exchange(call(stream=True)).stream()
    out = translator.feed(data) + translator.cut()
    chunks, done = chunks_of(out)
    assert done
    assert translator.finished
    assert translator.started
    assert translator.error is None
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert translator.cut() == b""
    assert translator.feed(data) == b""
    assert translator.eof() == b""
    assert b'"{}"' not in out  # partial arguments stay partial


def test_a_cut_shows_the_text_that_was_held_back_for_structured_output():
    translator = adapter().exchange(call({"response_format": CITY}, CLAUDE_4, stream=True)).stream()
    out = translator.feed(START + delta(0, text="Hello")) + translator.cut()
    assert b"Hello" in out


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
WORDS = st.sampled_from(
    ["output", "message", "content", "text", "toolUse", "toolUseId", "name", "input", "reasoningContent", "usage",
     "reasoningText", "redactedContent", "signature", "citationsContent", "citations", "citation", "location", "web",
     "url", "stopReason", "inputTokens", "outputTokens", "totalTokens", "cacheDetails", "start", "delta", "type",
     "contentBlockIndex", "serviceTier", "error", "__type", "Output", "originalMessage"]
)  # fmt: skip
SHAPED = st.recursive(
    JSON_VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=12,
)
CONTENT = st.lists(SHAPED, max_size=4)
EVENTS = st.sampled_from(
    ["messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata", "", "x",
     "throttlingException"]
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(SHAPED, CONTENT, SHAPED)
def test_any_json_is_a_completion_or_one_of_the_documented_errors(anything, content, usage):
    shaped = {"output": {"message": {"content": content}}, "usage": usage, "stopReason": anything, "serviceTier": usage}
    for value in (anything, {"output": anything}, shaped):
        exchange = adapter().exchange(call({"tools": ONE_TOOL, "response_format": CITY}, CLAUDE_4))
        try:
            given_answer = exchange.completion(json.dumps(value).encode(), {})
        except UpstreamError as error:
            message = error.message
            assert message
        else:
            ChatCompletion.model_validate(given_answer.completion)
        assert exchange.error(400, {}, json.dumps(value).encode()).message


FRAME = st.tuples(st.sampled_from(["event", "event", "event", "exception", "error"]), EVENTS, SHAPED | CONTENT)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.lists(FRAME, max_size=8), st.booleans(), st.sampled_from([1, 5, 0]))
def test_any_frames_give_a_stream_that_the_sdk_reads_however_they_are_cut(frames, cut, size):
    data = b"".join(
        encode({":message-type": kind, ":event-type": name, ":exception-type": name}, json.dumps(value).encode())
        for kind, name, value in frames
    )
    outs = []
    for step in (0, size):
        translator = adapter().exchange(call({"tools": ONE_TOOL}, stream=True)).stream()
        out = b""
        for piece in pieces(data, step):
            out += translator.feed(piece)
        out += translator.cut() if cut else translator.eof()
        assert translator.finished
        assert (translator.error is None) == out.endswith(b"data: [DONE]\n\n")
        chunks, _ = chunks_of(out)
        state = ChatCompletionStreamState()
        for chunk in chunks:
            list(state.handle_chunk(ChatCompletionChunk.model_validate(chunk)))
        outs.append(out)
    assert outs[0] == outs[1]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_end_in_an_error_and_never_in_an_exception(noise):
    exchange = adapter().exchange(call(stream=True))
    translator = exchange.stream()
    run(translator, noise)
    assert translator.error is not None
    assert translator.finished
    assert exchange.error(500, {}, noise).message
    with pytest.raises(UpstreamError):
        exchange.completion(noise, {})


def test_what_was_taken_is_not_kept():
    translator = adapter().exchange(call(stream=True)).stream()
    translator.feed(START)
    for _ in range(1000):
        translator.feed(delta(0, text="x" * 100))
        translator.take()
    assert translator.take() == []
    assert translator.feed(message_stop() + metadata()).count(b"xxx") == 0
