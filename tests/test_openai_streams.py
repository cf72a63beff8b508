"""Streams of the pass-through lane: relayed as received, started late, ended truthfully."""

import hashlib
import json
import random

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.errors import UpstreamProtocolError
from adapters.openai_lane.frames import Frames, events
from adapters.sse import EVENT_BYTES_MAX
from tests import recorded
from tests.lane import DONE, ROLE, STOP, TEXT, USAGE, USED, accumulate, adapter, call, chunk, relay

# streams --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_every_cut_of_a_stream_gives_the_same_bytes_as_came(repair, line_end):
    """wire 3.25, 3.26."""
    data = (b": hello\n\n" + ROLE + TEXT + b": ping\n" + STOP + USED + DONE).replace(b"\n", line_end)
    endpoint = adapter(base_url="http://x", repair=repair)
    for cut in range(len(data) + 1):
        out, translator, chunks = relay(endpoint, [data[:cut], data[cut:]] if cut else [data], show_usage=True)
        assert out == data
        assert translator.finished
        assert translator.error is None
        assert len(chunks) == 4
        assert chunks[-1]["usage"] == USAGE


@pytest.mark.parametrize("repair", [False, True])
def test_a_usage_chunk_that_was_not_asked_for_is_hidden_but_metered(repair):
    """wire 3.13."""
    data = b"".join([ROLE, TEXT, STOP, USED, DONE])
    for size in range(len(data) + 1):
        out, _, chunks = relay(adapter(base_url="http://x", repair=repair), data, size, show_usage=False)
        assert out == data.replace(USED, b"")
        assert chunks[-1]["usage"] == USAGE


@pytest.mark.parametrize("repair", [False, True])
def test_an_event_leaves_as_soon_as_it_is_whole(repair):
    """wire 3.23."""
    translator = adapter(base_url="http://x", repair=repair).exchange(call({"stream": True})).stream()
    for event in (ROLE, TEXT, STOP):
        assert translator.feed(event[:-1]) == b""
        assert translator.feed(event[-1:]) == event
    assert translator.started


@pytest.mark.parametrize("repair", [False, True])
def test_nothing_is_sent_before_the_first_event_that_means_something(repair):
    translator = adapter(base_url="http://x", repair=repair).exchange(call({"stream": True})).stream()
    assert translator.feed(b": waiting\n\n") == b""
    assert not translator.started
    assert translator.feed(chunk(choices=[])) == b""
    assert not translator.started
    assert translator.feed(ROLE) == b": waiting\n\n" + chunk(choices=[]) + ROLE
    assert translator.started


def test_comments_without_end_do_not_hold_the_start_for_ever():
    translator = adapter().exchange(call({"stream": True})).stream()
    out = b"".join(translator.feed(b": waiting\n\n") for _ in range(2000))
    assert translator.started
    assert out == b": waiting\n\n" * 2000


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error":{"message":"full","code":503}}\n\n',
        b'event: error\ndata: {"error":{"message":"full","code":503}}\n\n',
    ],
)
def test_an_error_that_comes_first_can_be_a_status(repair, event):
    """wire 3.21."""
    out, translator, _ = relay(adapter(base_url="http://x", repair=repair), b": hi\n\n" + event)
    assert (out, translator.started, translator.finished) == (b"", False, True)
    assert (translator.error.status, translator.error.message) == (503, "full")


@pytest.mark.parametrize("repair", [False, True])
def test_an_error_after_content_ends_the_stream_without_a_false_finish(repair):
    """wire 3.17."""
    bad = (
        b'event: error\ndata: {"error":{"message":"tool failed","code":"tool_use_failed","failed_generation":"{x"}}\n\n'
    )
    for size in (0, 1, 7):
        out, translator, _ = relay(adapter(base_url="http://x", repair=repair), ROLE + TEXT + bad + STOP + DONE, size)
        assert out == ROLE + TEXT
        said = translator.error.body()["error"]
        assert (said["message"], said["code"], said["failed_generation"]) == ("tool failed", "tool_use_failed", "{x")


@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize(
    ("data", "out", "error"),
    [
        (ROLE + TEXT, ROLE + TEXT, "broke off"),
        (ROLE + TEXT + STOP, ROLE + TEXT + STOP + DONE, None),
        (ROLE + STOP + b"data: [DONE]", ROLE + STOP + DONE, None),
        (ROLE + STOP + b"data: [DONE]\n", ROLE + STOP + DONE, None),
        (ROLE + STOP[:-2], ROLE + STOP + DONE, None),
        (ROLE + STOP[:-5], ROLE, "broke off"),
        (ROLE + STOP + DONE + TEXT, ROLE + STOP + DONE, None),
        (ROLE + STOP + b'data: {"cho', ROLE + STOP + DONE, None),
        (b"", b"", "before its first"),
        (b": only\n\n", b"", "before its first"),
        (b'{"error":{"message":"no such model","code":404}}', b"", "no such model"),
        (b"<html>busy</html>", b"", "before its first"),
    ],
)
def test_how_a_stream_ends(repair, data, out, error):
    """wire 3.18, 3.19: without [DONE] and without finish_reason it was cut, whatever closed it."""
    for size in (0, 1, 5):
        got, translator, _ = relay(adapter(base_url="http://x", repair=repair), data, size)
        assert got == out
        assert translator.finished
        assert (translator.error is None) == (error is None)
        assert error is None or error in translator.error.message


@pytest.mark.parametrize("repair", [False, True])
def test_a_stream_that_is_cut_ends_as_openai_ends_one_at_its_limit(repair):
    translator = adapter(base_url="http://x", repair=repair).exchange(call({"stream": True}, show_usage=True)).stream()
    first = translator.feed(ROLE + TEXT + TEXT[:9])
    translator.usage_hint = USAGE
    out = translator.cut()
    assert first == ROLE + TEXT
    assert translator.finished
    assert translator.error is None
    assert translator.feed(STOP) == b""
    assert translator.eof() == b""
    assert translator.cut() == b""
    chunks, done = recorded.chunks_of(first + out)
    assert done
    assert {(c["id"], c["created"], c["model"]) for c in chunks} == {("c1", 5, "m")}
    assert [c["finish_reason"] for c in chunks[-2]["choices"]] == ["length"]
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], USAGE)
    assert accumulate(chunks).choices[0].message.content == "hé [DONE]"


def test_a_cut_ends_every_choice_that_is_open():
    both = [{"index": i, "delta": {"role": "assistant", "content": "x"}, "finish_reason": None} for i in (0, 1)]
    translator = adapter().exchange(call({"stream": True})).stream()
    out = translator.feed(chunk(choices=both) + STOP) + translator.cut()
    chunks, _ = recorded.chunks_of(out)
    assert [(c["choices"][0]["index"], c["choices"][0]["finish_reason"]) for c in chunks[1:]] == [
        (0, "stop"),
        (1, "length"),
    ]


@pytest.mark.parametrize("repair", [False, True])
def test_azures_first_chunk_gets_the_streams_own_id(repair):
    """wire 3.15, 3.86; 3.68: its filter results stay."""
    first = b'data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0}]}\n\n'
    for size in (0, 1, 50):
        out, _, _ = relay(adapter("azure", "https://r", repair=repair), first + ROLE + STOP + DONE, size)
        chunks, _ = recorded.chunks_of(out)
        assert {(c["id"], c["object"], c["created"], c["model"]) for c in chunks} == {
            ("c1", "chat.completion.chunk", 5, "m")
        }
        assert chunks[0]["prompt_filter_results"] == [{"prompt_index": 0}]
        assert out.endswith(ROLE + STOP + DONE)


def test_xai_counts_reasoning_as_openai_does():
    usage = {
        "prompt_tokens": 12,
        "completion_tokens": 1,
        "total_tokens": 303,
        "completion_tokens_details": {"reasoning_tokens": 290},
    }
    data = ROLE + STOP + chunk(choices=[], usage=usage) + DONE
    out, _, chunks = relay(adapter("xai", "https://api.x.ai/v1"), data, show_usage=True)
    assert out == data
    assert chunks[-1]["usage"]["completion_tokens"] == 291
    out, _, chunks = relay(adapter("xai", "https://api.x.ai/v1", repair=True), data, show_usage=True)
    told = recorded.chunks_of(out)[0][-1]["usage"]
    assert (
        (told["completion_tokens"], told["total_tokens"])
        == (291, 303)
        == (chunks[-1]["usage"]["completion_tokens"], 303)
    )


def test_an_event_without_end_is_refused():
    translator = adapter().exchange(call({"stream": True})).stream()
    piece = b"data: " + b"x" * 1_000_000
    for _ in range(EVENT_BYTES_MAX // len(piece) + 2):
        translator.feed(piece)
    assert isinstance(translator.error, UpstreamProtocolError)
    assert translator.finished


def event(kind, **more):
    return b"event: %s\ndata: " % kind.encode() + orjson.dumps({"type": kind, **more}) + b"\n\n"


CREATED = event(
    "response.created",
    sequence_number=0,
    response={"id": "r1", "object": "response", "status": "in_progress", "model": "m", "error": None},
)
DELTA = event("response.output_text.delta", sequence_number=1, delta="response.completed")
COMPLETED = event(
    "response.completed", sequence_number=2, response={"id": "r1", "status": "completed", "usage": {"input_tokens": 1}}
)


def test_a_response_stream_keeps_its_event_lines_and_has_no_done():
    data = CREATED + DELTA + COMPLETED
    for size in range(len(data)):
        out, translator, chunks = relay(adapter(), data, size, operation="responses")
        assert out == data
        assert translator.finished
        assert translator.error is None
        assert chunks[-1]["response"]["usage"] == {"input_tokens": 1}


def test_a_response_stream_that_breaks_off_is_an_error():
    out, translator, _ = relay(adapter(), CREATED + DELTA, operation="responses")
    assert out == CREATED + DELTA
    assert "broke off" in translator.error.message


@pytest.mark.parametrize(
    "first",
    [
        event("error", code="rate_limit_exceeded", message="slow", param=None),
        event("response.failed", response={"error": {"code": "rate_limit_exceeded", "message": "slow"}}),
        b'data: {"error":{"code":"rate_limit_exceeded","message":"slow"}}\n\n',
    ],
)
def test_a_response_that_fails_at_once_is_a_status_and_later_an_event(first):
    out, translator, _ = relay(adapter(), first, operation="responses")
    assert out == b""
    assert not translator.started
    assert (translator.error.message, translator.error.code) == ("slow", "rate_limit_exceeded")
    if first.startswith(b"event:"):
        out, translator, _ = relay(adapter(), CREATED + first + DELTA, operation="responses")
        assert out == CREATED + first + DELTA
        assert translator.error is None
        assert translator.finished


def test_a_response_that_is_cut_is_incomplete():
    translator = adapter().exchange(call({"stream": True}, operation="responses")).stream()
    out = translator.feed(CREATED + DELTA) + translator.cut()
    last = json.loads(out.rpartition(b"data: ")[2])
    assert (last["type"], last["sequence_number"]) == ("response.incomplete", 2)
    assert (last["response"]["id"], last["response"]["status"]) == ("r1", "incomplete")
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


# any bytes --------------------------------------------------------------------------------------------------------------

EVENTS = st.sampled_from([
    ROLE, TEXT, STOP, USED, DONE, DELTA, CREATED, COMPLETED, b": c\n\n", b"\n", b"data:\n\n", b"event: x\n\n", b"data: {}\n\n", b"id: 1\n",
    b"data: [1]\n\n", b"data: nul\n\n", b"\r\n\r\n", b"\r", b"retry: 1\n\n", b'data: {"choices":[{}]}\n\n', b'data: {"choices":[null,{"delta":[]}]}\n\n',
    b'data: {"choices":[{"index":3,"delta":{"tool_calls":[{"id":1,"function":[]},5]}}]}\n\n', b'data: {"error":0,"usage":{}}\n\n', b'data: {"type":"error"}\n\n',
    b'data: {"choices":{},"usage":{"prompt_tokens":-1}}\n\n', b'data: {"error":[]}\n\n', b'data: {"choices":[{"index":true,"delta":{"content":[[]]}}],"created":1e400}\n\n',
])  # fmt: skip


@settings(deadline=None)
@given(
    st.lists(EVENTS | st.binary(max_size=30), max_size=12).map(b"".join), st.integers(1, 60), st.booleans(), st.booleans(),
    st.sampled_from(["chat", "completions", "responses"]), st.integers(0, 14),
)  # fmt: skip
def test_any_bytes_in_any_pieces_give_a_stream_or_an_error(data, size, repair, show, operation, cut_after):
    endpoint = adapter(base_url="http://x", repair=repair)
    whole, translator, _ = relay(endpoint, data, 0, show_usage=show, operation=operation)
    assert translator.finished
    parts, other, _ = relay(endpoint, data, size, show_usage=show, operation=operation)
    assert parts == whole
    assert repr(other.error) == repr(translator.error)
    assert other.started == translator.started
    cut = endpoint.exchange(call({"stream": True}, show_usage=show, operation=operation)).stream()
    for piece in list(recorded.pieces(data, size))[:cut_after]:
        cut.feed(piece)
    cut.cut()
    assert cut.finished
    json.dumps(cut.take())


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([b"\r", b"\n", b"a", b"data: x\n\n", b"\r\n"]), max_size=20).map(b"".join),
    st.integers(1, 5),
)
def test_frames_lose_nothing_and_cut_only_between_events(data, size):
    frames = Frames()
    blocks = [frames.feed(piece) for piece in recorded.pieces(data, size)]
    assert b"".join(blocks) + frames.flush() == data
    assert [b"".join(events(block)) for block in blocks] == blocks


def test_long_events_in_small_pieces_take_time_that_grows_with_their_length():
    noise = random.Random(7).randbytes(150_000).hex().encode()
    data = ROLE + chunk({"content": noise.decode()}) + STOP + DONE
    out, _, _ = relay(adapter(), data, 3)
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()
