"""Streams in OpenAI's format, healthy and with every fault that servers of that format are known for.

The text, the names and arguments of calls and the reason of an `Expected` are `accumulated`'s words; `error` means that
the stream must end in an error event; `status` that there must be no stream at all.
"""

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a client must make of a stream."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    finish: str = "stop"
    reasoning: str | None = None
    refusal: str | None = None
    error: bool = False
    status: int = 200
    usage: tuple[int, int, int] | None = (3, 2, 5)
    body: dict[str, Any] = field(default_factory=dict)  # what the client asks beside the usual


def sse(*events: Any, done: bool = True, name: bool = False) -> bytes:
    """Write events; a dict is JSON, bytes are written as they are."""
    out = []
    for event in events:
        if isinstance(event, bytes):
            out.append(event)
            continue
        named = f"event: {event['type']}\n".encode() if name else b""
        out.append(named + b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\n")
    return b"".join(out) + (b"data: [DONE]\n\n" if done else b"")


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def chunk(delta: Any = None, finish: Any = None, *, index: Any = 0, **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": {} if delta is None else delta, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "created": 5, "model": "m", "choices": [choice], **more}


def bare(**more: Any) -> dict[str, Any]:
    return {**chunk(), "choices": [], **more}


_RESULTS = {"type": "moderation_results", "model": "omni", "results": []}
MODERATION = {"input": _RESULTS, "output": _RESULTS}
ROLE, STOP, USED = chunk({"role": "assistant", "content": ""}), chunk(finish="stop"), bare(usage=USAGE)
CALLED = chunk(finish="tool_calls")


def call(index: Any = 0, id_: Any = "a", name: Any = "f", arguments: Any = "", **more: Any) -> dict[str, Any]:
    function = {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not ...}
    made = {"index": index, "id": id_, "type": "function", "function": function, **more}
    return chunk({"tool_calls": [{k: v for k, v in made.items() if v is not ...}]})


def more_of(index: Any, arguments: str, **more: Any) -> dict[str, Any]:
    return chunk({"tool_calls": [{"index": index, "function": {"arguments": arguments, **more}}]})


HI = chunk({"content": "hi"})
TWO = (("f", '{"x":1}'), ("g", "{}"))

OPENAI: dict[str, tuple[bytes, Expected]] = {
    "a plain answer": (sse(ROLE, HI, STOP, USED), Expected(text="hi")),
    "role on every delta": (
        sse(ROLE, chunk({"role": "assistant", "content": "h"}), chunk({"role": "assistant", "content": "i"}), STOP, USED),
        Expected(text="hi"),
    ),
    "role never": (sse(HI, STOP, USED), Expected(text="hi")),
    "role empty": (sse(chunk({"role": "", "content": "hi"}), STOP, USED), Expected(text="hi")),
    "role null": (sse(chunk({"role": None, "content": "hi"}), STOP, USED), Expected(text="hi")),
    "id and name repeated": (
        sse(ROLE, call(arguments='{"x"'), call(arguments=":1}"), CALLED, USED),
        Expected(calls=(("f", '{"x":1}'),), finish="tool_calls"),
    ),
    "type null in a continuation": (
        sse(ROLE, call(), chunk({"tool_calls": [{"index": 0, "type": None, "id": None, "function": {"name": None, "arguments": '{"x":1}'}}]}), CALLED, USED),
        Expected(calls=(("f", '{"x":1}'),), finish="tool_calls"),
    ),
    "no type in the first delta": (
        sse(ROLE, call(type=...), more_of(0, "{}"), CALLED, USED),
        Expected(calls=(("f", "{}"),), finish="tool_calls"),
    ),
    "index from 1": (
        sse(ROLE, HI, call(1), more_of(1, '{"x":1}'), call(2, "b", "g"), more_of(2, "{}"), CALLED, USED),
        Expected(text="hi", calls=TWO, finish="tool_calls"),
    ),
    "index null": (
        sse(ROLE, call(None, arguments='{"x":1}'), call(None, "b", "g", "{}"), CALLED, USED),
        Expected(calls=TWO, finish="tool_calls"),
    ),
    "index missing": (
        sse(ROLE, call(..., arguments='{"x":1}'), call(..., "b", "g", "{}"), CALLED, USED),
        Expected(calls=TWO, finish="tool_calls"),
    ),
    "index 0 for all": (
        sse(ROLE, call(), more_of(0, '{"x":1}'), call(0, "b", "g"), more_of(0, "{}"), CALLED, USED),
        Expected(calls=TWO, finish="tool_calls"),
    ),
    "both calls in one delta with index 0": (
        sse(ROLE, chunk({"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}, {"index": 0, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}]}), CALLED, USED),
        Expected(calls=TWO, finish="tool_calls"),
    ),
    "interleaved calls": (
        sse(ROLE, call(), call(1, "b", "g"), more_of(0, '{"x"'), more_of(1, "{"), more_of(0, ":1}"), more_of(1, "}"), CALLED, USED),
        Expected(calls=TWO, finish="tool_calls"),
    ),
    "no ids at all": (
        sse(ROLE, call(0, "", "f", '{"x":1}'), call(0, "", "g", "{}"), CALLED, USED),
        Expected(calls=TWO, finish="tool_calls"),
    ),
    "two calls of one function without ids": (
        sse(ROLE, call(0, ..., "f", '{"x":1}'), call(1, ..., "f", '{"x":2}'), CALLED, USED),
        Expected(calls=(("f", '{"x":1}'), ("f", '{"x":2}')), finish="tool_calls"),
    ),
    "arguments null, then none": (
        sse(ROLE, call(arguments=None), CALLED, USED), Expected(calls=(("f", "{}"),), finish="tool_calls")
    ),
    "arguments an object": (
        sse(ROLE, call(arguments={"x": 1}), CALLED, USED), Expected(calls=(("f", '{"x":1}'),), finish="tool_calls")
    ),
    "entries that say nothing of any call": (sse(ROLE, chunk({"tool_calls": [{}, {"index": 0, "type": "function"}]}), HI, chunk({"tool_calls": []}), chunk({"tool_calls": None}), STOP, USED), Expected(text="hi")),
    "stop after a call is passed on": (
        sse(ROLE, call(arguments="{}"), STOP, USED), Expected(calls=(("f", "{}"),), finish="stop")
    ),
    "finish reason of others": (sse(ROLE, HI, chunk(finish="eos"), USED), Expected(text="hi")),
    "finish reason empty until the end": (
        sse(chunk({"role": "assistant", "content": "hi"}, ""), chunk({}, ""), chunk({"content": ""}, "stop"), USED), Expected(text="hi")
    ),
    "no finish at all": (sse(ROLE, HI, USED), Expected(text="hi")),
    "no finish after a call": (sse(ROLE, call(), USED), Expected(calls=(("f", "{}"),), finish="tool_calls")),
    "a second finish": (sse(ROLE, HI, STOP, STOP, USED), Expected(text="hi")),
    "usage in the finish chunk": (sse(ROLE, HI, chunk(finish="stop", usage=USAGE)), Expected(text="hi")),
    "usage on every chunk": (
        sse(chunk({"role": "assistant", "content": "h"}, usage={**USAGE, "completion_tokens": 1, "total_tokens": 4}), chunk({"content": "i"}, "stop", usage=USAGE)),
        Expected(text="hi"),
    ),
    "usage of groq": (sse(ROLE, HI, chunk(finish="stop", x_groq={"id": "r", "usage": USAGE})), Expected(text="hi")),
    "usage with null choices": (sse(ROLE, HI, STOP, {**USED, "choices": None}), Expected(text="hi")),
    "moderation after usage": (sse(ROLE, HI, STOP, USED, bare(usage=None, moderation=MODERATION)), Expected(text="hi")),
    "no usage": (sse(ROLE, HI, STOP), Expected(text="hi", usage=None)),
    "choices null": (sse(ROLE, {**bare(), "choices": None}, HI, STOP, USED), Expected(text="hi")),
    "choices missing": (sse(ROLE, {k: v for k, v in bare().items() if k != "choices"}, HI, STOP, USED), Expected(text="hi")),
    "delta null": (sse(ROLE, HI, {**chunk(), "choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]}, USED), Expected(text="hi")),
    "delta missing": (sse(ROLE, HI, {**chunk(), "choices": [{"index": 0, "finish_reason": "stop"}]}, USED), Expected(text="hi")),
    "an empty chunk first": (
        sse({"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": []}, ROLE, HI, STOP, USED),
        Expected(text="hi"),
    ),
    "heads that change": (
        sse({**ROLE, "id": "a"}, {**HI, "id": "b", "created": 9.5, "model": ""}, {**STOP, "object": "chat.completion.done"}, {**USED, "id": ""}),
        Expected(text="hi"),
    ),
    "created null": (sse(*({**c, "created": None, "model": None} for c in (ROLE, HI, STOP, USED))), Expected(text="hi")),
    "content parts": (
        sse(ROLE, chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}), chunk({"content": [{"type": "text", "text": "hi"}]}), STOP, USED),
        Expected(text="hi", reasoning="hm"),
    ),
    "reasoning by its other name": (
        sse(ROLE, chunk({"reasoning": "h", "content": ""}), chunk({"reasoning": "m"}), HI, STOP, USED), Expected(text="hi", reasoning="hm")
    ),
    "annotations without index": (
        sse(ROLE, HI, chunk({"annotations": [{"type": "url_citation"}]}), chunk({"annotations": [{"type": "url_citation"}]}), STOP, USED),
        Expected(text="hi"),
    ),
    "thinking blocks": (
        sse(ROLE, chunk({"thinking_blocks": [{"type": "thinking"}]}), chunk({"thinking_blocks": [{"type": "thinking"}]}), HI, STOP, USED),
        Expected(text="hi"),
    ),
    "a refusal": (
        sse(chunk({"role": "assistant", "content": "", "refusal": None}), chunk({"refusal": "I "}), chunk({"refusal": "won't"}), STOP, USED),
        Expected(refusal="I won't"),
    ),
    "logprobs": (
        sse(ROLE, {**HI, "choices": [{**HI["choices"][0], "logprobs": {"content": [{"token": "hi", "logprob": -0.5, "bytes": [104, 105], "top_logprobs": []}], "refusal": None}}]}, STOP, USED),
        Expected(text="hi"),
    ),
    "logprobs of another shape": (
        sse(ROLE, {**HI, "choices": [{**HI["choices"][0], "logprobs": [1]}]}, STOP, USED), Expected(text="hi")
    ),
    "a legacy call": (
        sse(chunk({"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": ""}}), chunk({"function_call": {"arguments": "{}"}}), chunk(finish="function_call"), USED),
        Expected(finish="function_call", body={"functions": [{"name": "f"}]}),
    ),
    "speech": (
        sse(ROLE, chunk({"audio": {"id": "au", "transcript": "h"}}), chunk({"audio": {"transcript": "i", "data": "AAA="}}), chunk({"audio": {"expires_at": 9}}), STOP, USED),
        Expected(),
    ),
    "comments, CRLF and no space": (
        b": hello\r\n\r\n" + sse(ROLE, HI, STOP, USED).replace(b"data: ", b"data:").replace(b"\n\n", b"\r\n\r\n"), Expected(text="hi")
    ),
    "pings and names": (
        b'event: ping\ndata: {"type":"ping"}\n\nid: 7\n' + sse(ROLE, done=False) + b"retry: 5\n\ndata: \n\nevent: x\n\n" + sse(HI, STOP, USED), Expected(text="hi")
    ),
    "no [DONE]": (sse(ROLE, HI, STOP, USED, done=False), Expected(text="hi")),
    "[DONE] without its blank line": (sse(ROLE, HI, STOP, USED, done=False) + b"data: [DONE]", Expected(text="hi")),
    "a BOM": (b"\xef\xbb\xbf" + sse(ROLE, HI, STOP, USED), Expected(text="hi")),
    "text after the finish of a filter": (
        sse(ROLE, HI, STOP, {**chunk(), "choices": [{"index": 0, "delta": {}, "finish_reason": None, "content_filter_offsets": {"check_offset": 1}}]}, USED),
        Expected(text="hi"),
    ),
    "obfuscation": (sse({**ROLE, "obfuscation": "x"}, {**HI, "obfuscation": "yy"}, STOP, USED), Expected(text="hi")),
    "a null error": (sse({**ROLE, "error": None}, HI, STOP, USED), Expected(text="hi")),
    "a service tier of others": (sse(*({**c, "service_tier": "on_demand"} for c in (ROLE, HI, STOP, USED))), Expected(text="hi")),
    "an error in the middle": (sse(ROLE, HI, {"error": {"message": "broke", "code": 500}}), Expected(error=True)),
    "an error as text": (sse(ROLE, HI, {"error": "broke"}), Expected(error=True)),
    "an error by name": (sse(ROLE, HI, done=False) + b'event: error\ndata: {"message":"broke","code":"x"}\n\n', Expected(error=True)),
    "an error beside choices": (sse(ROLE, HI, {**chunk(finish="error"), "error": {"message": "broke", "code": 502}}), Expected(error=True)),
    "an error in x_groq": (sse(ROLE, HI, {"error": {"message": "Failed to call a function.", "type": "invalid_request_error", "code": "tool_use_failed", "failed_generation": "x", "status_code": 400}}), Expected(error=True)),
    "cut in the middle": (sse(ROLE, HI, done=False), Expected(error=True)),
    "cut in an event": (sse(ROLE, HI, done=False) + b'data: {"id"', Expected(error=True)),
    "no JSON": (sse(ROLE, HI, done=False) + b"data: {oops\n\n", Expected(error=True)),
    "an error first": (sse({"error": {"message": "full", "code": 429}}), Expected(status=429)),
    "nothing": (b"", Expected(status=502)),
    "only [DONE]": (sse(), Expected(status=502)),
    "a page": (b"<html><body>no</body></html>", Expected(status=502)),
}  # fmt: skip
