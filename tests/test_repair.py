"""Every named repair (wire 2.7's table), judged by what OpenAI's own accumulator makes of the result."""

import json

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from adapters.base import Call, Endpoint
from adapters.registry import make_adapter
from adapters.repair import known_reason
from tests import recorded

BODY = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": True}
ENDPOINT = Endpoint(name="p", kind="openai", base_url="http://x/v1", repair=True)
HEAD = {"id": "c1", "object": "chat.completion.chunk", "created": 5, "model": "m"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
DONE = b"data: [DONE]\n\n"


def exchange(show_usage=True):
    call = Call(
        raw=orjson.dumps(BODY),
        body=BODY,
        upstream_model="m",
        stream=True,
        show_usage=show_usage,
        call_id="req_1",
        created=9,
    )
    return make_adapter(ENDPOINT).exchange(call)


def choice(delta, finish=None, index=0, **more):
    return {**HEAD, "choices": [{"index": index, "delta": delta, "finish_reason": finish}], **more}


def tool(index=0, own_id=None, name=None, arguments=None, **more):
    function = {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not None}
    entry = {
        "index": index,
        "id": own_id,
        "type": "function" if own_id is not None else None,
        "function": function,
        **more,
    }
    return {k: v for k, v in entry.items() if v is not None}


def tools(*entries, finish=None):
    return choice({"tool_calls": list(entries)}, finish)


ROLE, STOP, TOOLS_STOP = choice({"role": "assistant", "content": ""}), choice({}, "stop"), choice({}, "tool_calls")


def stream_of(chunks):
    return b"".join(b"data: " + json.dumps(c).encode() + b"\n\n" for c in chunks) + DONE


def mend(chunks, show_usage=True):
    """Return the chunks a client gets, and the SDK's own reading of them."""
    translator = exchange(show_usage).stream()
    out = translator.feed(stream_of(chunks) if isinstance(chunks, list) else chunks)
    assert translator.finished
    assert translator.error is None
    got, done = recorded.chunks_of(out)
    assert done
    state = ChatCompletionStreamState()
    for one in got:
        state.handle_chunk(ChatCompletionChunk.model_validate(one, strict=True))
    return got, state.current_completion_snapshot


def message(chunks):
    return mend(chunks)[1].choices[0].message


def calls(chunks):
    return [(c.id, c.function.name, c.function.arguments) for c in message(chunks).tool_calls]


MINTED = [f"call_req_1_0_{n}" for n in range(3)]
TOOL_CASES = {
    "already right": ([tool(0, "a", "f", "")], [tool(0, arguments="{}")], [("a", "f", "{}")]),
    "index null": ([{**tool(0, "a", "f", "{}"), "index": None}], [{**tool(0, "b", "g", "[]"), "index": None}], [("a", "f", "{}"), ("b", "g", "[]")]),
    "index missing, fragments": ([{"id": "a", "function": {"name": "f", "arguments": "{"}}], [{"function": {"arguments": "}"}}], [("a", "f", "{}")]),
    "all index 0": ([tool(0, "a", "f", "{}")], [tool(0, "b", "f", "{}")], [("a", "f", "{}"), ("b", "f", "{}")]),
    "all index 0, at once": ([tool(0, "a", "f", "{}"), tool(0, "b", "g", "{")], [tool(0, arguments="}")], [("a", "f", "{}"), ("b", "g", "{}")]),
    "starts at 1": ([tool(1, "a", "f", "")], [tool(1, arguments="{}")], [("a", "f", "{}")]),
    "skips": ([tool(0, "a", "f", "{}")], [tool(4, "b", "g", "{}")], [("a", "f", "{}"), ("b", "g", "{}")]),
    "name and id repeated": ([tool(0, "a", "f", "")], [tool(0, "a", "f", "{}")], [("a", "f", "{}")]),
    "id empty, type repeated": ([tool(0, "a", "f", "{")], [tool(0, "", None, "}", type="function")], [("a", "f", "{}")]),
    "type null": ([tool(0, "a", "f", "{")], [{"index": 0, "type": None, "id": None, "function": {"name": None, "arguments": "}"}}], [("a", "f", "{}")]),
    "no id": ([tool(0, None, "f", "{}")], [], [(MINTED[0], "f", "{}")]),
    "no id, two calls at index 0": ([tool(0, None, "f", '{"a":1}')], [tool(0, None, "f", '{"a":2}')], [(MINTED[0], "f", '{"a":1}'), (MINTED[1], "f", '{"a":2}')]),
    "no id, name repeated": ([tool(0, None, "f", "{")], [tool(0, None, "f", "}")], [(MINTED[0], "f", "{}")]),
    "another id in each fragment": ([tool(0, "a", "f", "{")], [tool(0, "zz", None, "}")], [("a", "f", "{}")]),
    "arguments absent": ([tool(0, "a", "f")], [], [("a", "f", "{}")]),
    "arguments empty": ([tool(0, "a", "f", "")], [tool(0, arguments="")], [("a", "f", "{}")]),
    "arguments as object": ([tool(0, "a", "f", {"x": 9007199254740993})], [], [("a", "f", '{"x":9007199254740993}')]),
    "first without type": ([{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}], [], [("a", "f", "{}")]),
    "name after id": ([tool(0, "a")], [tool(0, None, "f", "{}")], [("a", "f", "{}")]),
    "calls as one object": (tool(0, "a", "f", "{}"), [], [("a", "f", "{}")]),
}  # fmt: skip


@pytest.mark.parametrize("name", TOOL_CASES)
def test_tool_calls_arrive_once_each_and_whole(name):
    """wire 3.4 to 3.9."""
    first, second, expected = TOOL_CASES[name]
    chunks = [ROLE, choice({"tool_calls": first}), choice({"tool_calls": second}), TOOLS_STOP]
    assert calls(chunks) == expected
    assert [c["choices"][0]["delta"] for c in mend(chunks)[0] if c["choices"][0]["delta"].get("tool_calls") == []] in (
        [],
        [{"tool_calls": []}],
    )


def test_a_call_that_was_cut_off_keeps_its_partial_arguments():
    """wire 3.43."""
    assert calls([ROLE, tools(tool(0, "a", "f", '{"x')), choice({}, "length")]) == [("a", "f", '{"x')]
    assert calls([ROLE, tools(tool(0, "a", "f", "")), choice({}, "length")]) == [("a", "f", "")]


def content(chunks):
    got = message(chunks)
    return got.content, got.model_extra.get("reasoning_content"), got.role


THINKING = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "hi"}]
CONTENT_CASES = {
    "role on every delta": ([choice({"role": "assistant", "content": c}) for c in "abc"], ("abc", None)),
    "role never": ([choice({"content": c}) for c in "abc"], ("abc", None)),
    "role empty": ([choice({"role": "", "content": "a"})], ("a", None)),
    "role of another": ([choice({"role": "model", "content": "a"})], ("a", None)),
    "content as parts": ([choice({"role": "assistant", "content": THINKING})], ("hi", "hm")),
    "content as text part": ([choice({"role": "assistant", "content": {"type": "text", "text": "a"}})], ("a", None)),
    "only thinking": ([ROLE, choice({"content": THINKING[:1]}), choice({"content": "x"})], ("x", "hm")),
    "reasoning": ([ROLE, choice({"reasoning": "h"}), choice({"reasoning": "m"}), choice({"content": "x"})], ("x", "hm")),
    "both names": ([ROLE, choice({"reasoning": "hm", "reasoning_content": "hm"})], ("", "hm")),
    "message for delta": ([{**HEAD, "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}}]}], ("a", None)),
    "delta null": ([ROLE, {**HEAD, "choices": [{"index": 0, "delta": None}]}, choice({"content": "a"})], ("a", None)),
    "index missing": ([{**HEAD, "choices": [{"delta": {"role": "assistant", "content": "a"}}]}], ("a", None)),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTENT_CASES)
def test_content_and_role_are_said_once(name):
    """wire 3.7."""
    chunks, expected = CONTENT_CASES[name]
    assert content([*chunks, STOP]) == (*expected, "assistant")


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([choice({"content": "x"})], "stop"),
        ([choice({"content": "x"}), choice({}, "")], "stop"),
        ([choice({"content": "x"}), choice({}, "eos")], "stop"),
        ([choice({"content": "x"}), choice({}, "end_turn")], "stop"),
        ([choice({"content": "x"}), choice({}, "max_tokens")], "length"),
        ([choice({"content": "x"}), choice({}, "SAFETY")], "content_filter"),
        ([choice({"content": "x"}), choice({}, "odd")], "stop"),
        ([tools(tool(0, "a", "f", "{}"))], "tool_calls"),
        ([tools(tool(0, "a", "f", "{}")), choice({}, "")], "tool_calls"),
        ([tools(tool(0, "a", "f", "{}")), choice({}, "stop")], "stop"),
        ([choice({"content": "x"}), choice({}, "stop"), choice({}, "length")], "stop"),
    ],
)
def test_every_choice_ends_once_in_openais_words(chunks, expected):
    """wire 3.19, 3.42."""
    got, sdk = mend([ROLE, *chunks])
    assert sdk.choices[0].finish_reason == expected
    assert [c["choices"][0]["finish_reason"] for c in got if c["choices"] and c["choices"][0]["finish_reason"]] == [
        expected
    ]


@pytest.mark.parametrize("reason", ["", None])
def test_no_reason_is_no_reason(reason):
    assert known_reason(reason, tools=False) is None


HEADS = {
    "id differs": [{**ROLE, "id": "a"}, {**STOP, "id": "b"}],
    "id empty": [{**ROLE, "id": ""}, {**STOP, "id": ""}],
    "id missing": [{k: v for k, v in c.items() if k != "id"} for c in (ROLE, STOP)],
    "object odd": [{**ROLE, "object": ""}, {**STOP, "object": "chat.completion.done"}],
    "model empty": [{**ROLE, "model": ""}, STOP],
    "created float": [{**ROLE, "created": 5.7}, {**STOP, "created": 6}],
    "created missing": [{k: v for k, v in c.items() if k != "created"} for c in (ROLE, STOP)],
    "service tier empty": [{**ROLE, "service_tier": ""}, STOP],
    "choices null": [ROLE, {**HEAD, "choices": None}, STOP],
    "choices missing": [ROLE, HEAD, STOP],
    "logprobs odd": [ROLE, {**HEAD, "choices": [{"index": 0, "delta": {}, "logprobs": []}]}, STOP],
}


@pytest.mark.parametrize("name", HEADS)
def test_a_stream_has_one_head(name):
    """wire 3.86."""
    got, _ = mend(HEADS[name])
    heads = {(c["id"], c["object"], c["created"], c["model"]) for c in got}
    assert len(heads) == 1
    own_id, own_object, created, model = heads.pop()
    assert own_id
    assert own_object == "chat.completion.chunk"
    assert isinstance(created, int)
    assert model == "m"


USED = {**HEAD, "choices": [], "usage": USAGE}
USAGE_CASES = {
    "openai": [ROLE, STOP, USED],
    "in the finish chunk": [ROLE, choice({}, "stop", usage=USAGE)],
    "on every chunk, growing": [{**ROLE, "usage": {**USAGE, "completion_tokens": 1, "total_tokens": 4}}, choice({}, "stop", usage=USAGE)],
    "before another chunk": [ROLE, STOP, USED, {**HEAD, "choices": [], "x_moderation": {"flagged": False}}],
    "in x_groq": [ROLE, choice({}, "stop", x_groq={"id": "r", "usage": USAGE})],
    "choices null": [ROLE, STOP, {**USED, "choices": None}],
    "after finish, with an empty delta": [ROLE, STOP, choice({"role": "assistant", "content": ""}, usage=USAGE)],
    "total missing": [ROLE, STOP, {**USED, "usage": {"prompt_tokens": 3, "completion_tokens": 2}}],
    "floats": [ROLE, STOP, {**USED, "usage": {k: float(v) for k, v in USAGE.items()}}],
}  # fmt: skip


@pytest.mark.parametrize("name", USAGE_CASES)
def test_usage_is_told_once_and_last_if_asked_for(name):
    """wire 3.12, 3.13, 3.14."""
    got, sdk = mend(USAGE_CASES[name])
    assert [bool(c.get("usage")) for c in got] == [False] * (len(got) - 1) + [True]
    assert (got[-1]["choices"], got[-1]["usage"]) == ([], USAGE)
    assert sdk.usage.total_tokens == 5
    hidden, _ = mend(USAGE_CASES[name], show_usage=False)
    assert not any(c.get("usage") for c in hidden)


def test_the_meter_sees_usage_as_soon_as_it_is_told():
    """A stream that breaks off was used all the same."""
    translator = exchange(show_usage=False).stream()
    translator.feed(stream_of([{**ROLE, "usage": USAGE}])[: -len(DONE)])
    assert translator.take()[-1]["usage"] == USAGE


def test_extras_inside_usage_stay():
    """wire 3.39."""
    usage = {**USAGE, "cost": 0.00007, "server_tool_use": {"n": 1}}
    assert mend([ROLE, choice({}, "stop", usage=usage)])[0][-1]["usage"] == usage


def test_lists_of_objects_in_deltas_get_an_index():
    """wire 3.87."""
    notes = [choice({"annotations": [{"type": "url_citation", "n": n}]}) for n in range(3)]
    got, sdk = mend([ROLE, *notes, STOP])
    assert [c["choices"][0]["delta"]["annotations"][0]["index"] for c in got[1:4]] == [0, 1, 2]
    assert len(sdk.choices[0].message.annotations) == 3


def test_choice_0_is_introduced_first():
    """wire 3.88."""
    got, sdk = mend(
        [
            choice({"role": "assistant", "content": "b"}, index=1),
            choice({"role": "assistant", "content": "a"}),
            STOP,
            choice({}, "stop", index=1),
        ]
    )
    assert [c.message.content for c in sdk.choices] == ["a", "b"]
    assert got[0]["choices"][0]["index"] == 0


@pytest.mark.parametrize(
    "noise",
    [b'event: ping\ndata: {"type":"ping"}\n\n', b"data: \n\n", b"event: x\n\n", b"retry: 5\n\n", b"id: 7\n\n"],
)
def test_events_that_are_no_chunks_do_not_reach_the_client(noise):
    """wire 3.16, 3.82."""
    data = stream_of([ROLE, STOP])
    first, rest = data.split(b"\n\n", 1)
    got, _ = mend(first + b"\n\n" + noise + rest)
    assert len(got) == 2


def test_an_event_keeps_only_its_data_when_it_has_a_name():
    data = b"".join(b"event: message\nid: 4\n" + e + b"\n\n" for e in stream_of([ROLE, STOP]).split(b"\n\n")[:-1])
    translator = exchange().stream()
    out = translator.feed(data)
    assert b"event:" not in out
    assert b"id: 4" not in out
    assert out.endswith(DONE)


@pytest.mark.parametrize(
    "bad",
    [
        choice({"content": ""}, "error", error={"message": "overloaded", "code": 503}),
        choice({"content": ""}, "error"),
        {**HEAD, "choices": [{"index": 0, "delta": {}, "error": {"message": "overloaded", "code": 503}}]},
        {"error": "overloaded"},
        {"message": "overloaded", "code": 503},
        {"object": "error", "message": "overloaded"},
    ],
)
def test_an_error_in_any_clothes_ends_the_stream(bad):
    """wire 3.17."""
    translator = exchange().stream()
    translator.feed(stream_of([ROLE, choice({"content": "x"}), bad, STOP]))
    assert translator.error is not None
    assert translator.error.message
    assert translator.error.status in (502, 503)


def test_broken_json_in_a_stream_is_a_broken_provider():
    translator = exchange().stream()
    translator.feed(stream_of([ROLE])[: -len(DONE)] + b"data: {broken\n\n")
    assert translator.error.code == "upstream_protocol_error"


CONTENTS = st.text(max_size=12)


@settings(deadline=None)
@given(st.lists(CONTENTS, max_size=8), st.booleans(), st.booleans(), st.integers(0, 90))
def test_a_well_formed_stream_is_passed_on_byte_for_byte(texts, ascii_only, spaced, size):
    """Also where only the text differs from event to event, which is recognised without reading JSON."""
    chunks = [ROLE, *(choice({"content": t}) for t in texts), STOP, USED]
    gaps = (", ", ": ") if spaced else (",", ":")
    data = (
        b"".join(
            b"data: " + json.dumps(c, ensure_ascii=ascii_only, separators=gaps).encode("utf-8", "replace") + b"\n\n"
            for c in chunks
        )
        + DONE
    )
    translator = exchange().stream()
    out, seen = b"", []
    for piece in recorded.pieces(data, size):
        out += translator.feed(piece)
        seen += translator.take()
    assert out == data
    assert len(seen) == len(chunks)
    assert (
        "".join(c["choices"][0]["delta"].get("content") or "" for c in seen if c["choices"])
        == "".join(texts).encode("utf-8", "replace").decode()
    )


@pytest.mark.parametrize(
    "third",
    [
        choice({"content": "c", "role": "assistant"}),
        choice({"content": 'x","role":"assistant'}),
        {**choice({"content": "c"}), "id": "other"},
        choice({"content": ["c"]}),
        choice({"content": "c"}, "eos"),
    ],
)
def test_an_event_is_not_taken_for_well_formed_by_its_likeness(third):
    got, sdk = mend([ROLE, choice({"content": "a"}), choice({"content": "b"}), third, STOP])
    assert {c["id"] for c in got} == {"c1"}
    assert sdk.choices[0].message.role == "assistant"
    assert sdk.choices[0].message.content.startswith("ab")
