"""Repairs of whole answers, and of anything at all."""

import copy
import json

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion

from adapters.errors import UpstreamError
from adapters.repair import is_plain, mend_completion
from tests import lane, recorded
from tests.test_repair import MINTED, USAGE, exchange, stream_of

# whole answers --------------------------------------------------------------------------------------------------------

WHOLE = {"id": "c1", "object": "chat.completion", "created": 5, "model": "m", "usage": USAGE}


def whole(body):
    answer = exchange().completion(orjson.dumps(body), {})
    assert json.loads(answer.body) == answer.completion
    return ChatCompletion.model_validate(answer.completion, strict=True)


def says(msg, finish="stop", **more):
    return {
        **WHOLE,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": None, **msg}, "finish_reason": finish}],
        **more,
    }


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"id": "", "type": "function", "function": {"name": "f", "arguments": "{}"}}, (MINTED[0], "f", "{}")),
        ({"function": {"name": "f", "arguments": {"a": 1}}}, (MINTED[0], "f", '{"a":1}')),
        ({"id": "a", "type": "function", "function": {"name": "f"}}, ("a", "f", "{}")),
        ({"id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}, ("a", "f", "{}")),
        ({"id": "a", "function": {"name": "f", "arguments": None}}, ("a", "f", "{}")),
        ({"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x'}}, ("a", "f", '{"x')),
    ],
)
def test_whole_tool_calls_are_mended(entry, expected):
    """wire 3.8, 3.43."""
    got = whole(says({"tool_calls": [entry]}, ""))
    found = got.choices[0].message.tool_calls[0]
    assert (found.id, found.function.name, found.function.arguments) == expected
    assert got.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "body",
    [
        says({"content": "a"}, None),
        says({"content": "a"}, "eos"),
        says({"content": "a", "role": ""}),
        says({"content": "a", "tool_calls": []}),
        says(
            {
                "content": "a",
                "tool_calls": None,
                "function_call": {"name": "", "arguments": ""},
                "audio": {"id": "", "data": ""},
            }
        ),
        says({"content": [{"type": "text", "text": "a"}]}),
        says({"content": "a"}, id="", model="", object="", service_tier=""),
        says({"content": "a"}, created=5.5),
        says({"content": "a"}, usage={"prompt_tokens": 1.0, "completion_tokens": 2}),
        {**WHOLE, "choices": [{"message": {"content": "a"}}]},
        {
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "a"}, "logprobs": [], "finish_reason": "stop"}
            ]
        },
    ],
)
def test_whole_answers_satisfy_the_strict_sdk(body):
    """wire 3.85."""
    got = whole(body)
    assert got.choices[0].message.content == "a"
    assert got.choices[0].finish_reason == "stop"
    assert not got.choices[0].message.tool_calls
    assert got.choices[0].message.function_call is None


def test_a_mended_answer_keeps_the_bytes_of_what_was_right():
    raw = b'{ "id":"", "big":123456789012345678901234567890, "created":5 ,"object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}]}'
    assert exchange().completion(raw, {}).body == raw.replace(b'"id":""', b'"id":"chatcmpl-req_1"')


# anything -------------------------------------------------------------------------------------------------------------

ODD = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | st.sampled_from(["", "a", "assistant", "stop", "function"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["id", "index", "delta", "message", "content", "role", "tool_calls", "function", "name", "arguments", "type", "text", "usage",
             "finish_reason", "prompt_tokens", "total_tokens", "completion_tokens_details", "reasoning_tokens", "logprobs", "x_groq", "annotations"]
        ),
        inner,
        max_size=5,
    ),
    max_leaves=12,
)  # fmt: skip
CHOICES = st.fixed_dictionaries(
    {}, optional={"index": ODD | st.integers(0, 2), "delta": ODD, "message": ODD, "finish_reason": ODD}
)
CHUNKS = st.fixed_dictionaries(
    {"choices": ODD | st.lists(CHOICES, max_size=3)},
    optional={"id": ODD, "created": ODD, "model": ODD, "object": ODD, "usage": ODD, "service_tier": ODD},
)


def strict_enough(chunk, where="delta"):
    assert isinstance(chunk["id"], str)
    assert isinstance(chunk["created"], int)
    assert chunk["object"] in ("chat.completion.chunk", "chat.completion")
    for one in chunk["choices"]:
        said = one[where]
        assert isinstance(one["index"], int)
        assert one["finish_reason"] is None or one["finish_reason"] in (
            "stop",
            "length",
            "tool_calls",
            "content_filter",
            "function_call",
        )
        assert isinstance(said.get("content"), str | None)
        assert all(isinstance(c["id"], str) for c in said.get("tool_calls") or [] if "message" in one)


@settings(deadline=None, max_examples=60)
@given(st.lists(CHUNKS, max_size=5))
@example([{"choices": [{"delta": {"content": {"text": False}}}]}])
def test_any_chunks_become_openais_or_an_error(chunks):
    translator = exchange().stream()
    out = translator.feed(stream_of(chunks).replace(b"Infinity", b"1e999"))
    assert translator.finished
    got, _ = recorded.chunks_of(out)
    for one in got:
        strict_enough({"choices": [], **one} | {"choices": [{"finish_reason": None, **c} for c in one["choices"]]})
    assert len({c["id"] for c in got}) <= 1
    json.dumps(translator.take())


@settings(deadline=None, max_examples=60)
@given(CHUNKS)
def test_any_answer_becomes_openais_or_an_error(body):
    try:
        answer = exchange().completion(json.dumps(body).encode(), {})
    except UpstreamError:
        return
    strict_enough(answer.completion, "message")
    json.loads(answer.body)


PLAIN = says({"content": "a"}, service_tier="default") | {"created": 5}
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 2**60), st.floats(), st.text(max_size=3), st.just([]), st.just({}),
    st.sampled_from(["chat.completion", "assistant", "stop", "eos", "default", "on_demand"]), st.just({"text": "x"}),
)  # fmt: skip
PLACES = [
    *((key,) for key in (*PLAIN, "new")), *(("usage", key) for key in (*USAGE, "new")),
    *(("choices", 0, key) for key in ("index", "message", "finish_reason", "logprobs", "delta")),
    *(("choices", 0, "message", key) for key in ("role", "content", "reasoning", "reasoning_content", "tool_calls", "function_call", "audio")),
]  # fmt: skip


@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), ODD, st.booleans()), max_size=3))
def test_an_answer_that_looks_plain_has_nothing_to_mend(changes):
    body = copy.deepcopy(PLAIN)
    for place, value, gone in changes:
        holder = body
        for key in place[:-1]:
            whole = isinstance(holder, list) and len(holder) > 0
            holder = holder[key] if whole else holder.get(key) if isinstance(holder, dict) else None
        if isinstance(holder, dict):
            holder.pop(place[-1], None) if gone else holder.update({place[-1]: value})
    if isinstance(body.get("choices"), list) and is_plain(body):
        before = copy.deepcopy(body)
        assert mend_completion(body, lane.call()) == set()
        assert repr(body) == repr(before)


def test_a_plain_answer_is_known_at_a_glance():
    assert is_plain(PLAIN)
