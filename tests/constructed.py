"""Provider streams as providers could send them, written from their documentation and from what is known of their faults.

One row of a table: the body, and what a client must make of it (`constructed_openai.Expected`).
"""

import json
from typing import Any

from adapters.eventstream import encode
from tests.constructed_openai import OPENAI, TWO, Expected, sse
from tests.replay import Reply


def start(index: int, kind: str, **more: Any) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **more}}


def piece(index: int, kind: str, **more: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **more}}


def stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def greeting(**usage: Any) -> dict[str, Any]:
    counts = {"input_tokens": 3, "output_tokens": 1, **usage}
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [],
        "stop_reason": None,
        "usage": counts,
    }
    return {"type": "message_start", "message": message}


def ending(reason: Any = "end_turn", **more: Any) -> list[dict[str, Any]]:
    delta = {"stop_reason": reason, "stop_sequence": None, **more}
    return [{"type": "message_delta", "delta": delta, "usage": {"output_tokens": 2}}, {"type": "message_stop"}]


def claude(*events: Any, reason: Any = "end_turn", **more: Any) -> bytes:
    return sse(greeting(), {"type": "ping"}, *events, *ending(reason, **more), done=False, name=True)


TEXT = [start(0, "text", text=""), piece(0, "text_delta", text="h"), piece(0, "text_delta", text="i"), stop(0)]


def tool(index: int, id_: str, name: str, *fragments: str, **more: Any) -> list[dict[str, Any]]:
    return [
        start(index, "tool_use", id=id_, name=name, input={}, **more),
        *(piece(index, "input_json_delta", partial_json=fragment) for fragment in fragments),
        stop(index),
    ]


ANTHROPIC: dict[str, tuple[bytes, Expected]] = {
    "a plain answer": (claude(*TEXT), Expected(text="hi")),
    "text in the start of its block": (claude(start(0, "text", text="hi"), stop(0)), Expected(text="hi")),
    "text and two calls": (
        claude(*TEXT, *tool(1, "t1", "f", "", '{"x"', ":1}"), *tool(2, "t2", "g"), reason="tool_use"),
        Expected(text="hi", calls=TWO, finish="tool_calls"),
    ),
    "interleaved blocks": (
        claude(start(0, "tool_use", id="t1", name="f", input={}), start(1, "tool_use", id="t2", name="g", input={}), piece(1, "input_json_delta", partial_json="{}"), piece(0, "input_json_delta", partial_json='{"x":1}'), stop(1), stop(0), reason="tool_use"),
        Expected(calls=TWO, finish="tool_calls"),
    ),
    "arguments in the start of the block": (
        claude(start(0, "tool_use", id="t", name="f", input={"x": 1}), stop(0), reason="tool_use"),
        Expected(calls=(("f", '{"x":1}'),), finish="tool_calls"),
    ),
    "arguments cut off by the limit": (
        claude(start(0, "tool_use", id="t", name="f", input={}), piece(0, "input_json_delta", partial_json='{"x": "ab'), stop(0), reason="max_tokens"),
        Expected(calls=(("f", '{"x": "ab'),), finish="length"),
    ),
    "thinking": (
        claude(start(0, "thinking", thinking="", signature=""), piece(0, "thinking_delta", thinking="hm"), piece(0, "signature_delta", signature="sig"), stop(0), start(1, "text", text=""), piece(1, "text_delta", text="hi"), stop(1)),
        Expected(text="hi", reasoning="hm"),
    ),
    "redacted thinking": (claude(start(0, "redacted_thinking", data="xyz"), stop(0), *[{**e, "index": 1} for e in TEXT]), Expected(text="hi")),
    "tools of the server": (
        claude(start(0, "server_tool_use", id="s", name="web_search", input={}), piece(0, "input_json_delta", partial_json='{"query":"x"}'), stop(0), start(1, "web_search_tool_result", tool_use_id="s", content=[{"type": "web_search_result", "url": "u", "title": "t"}]), stop(1), start(2, "text", text="", citations=[]), piece(2, "text_delta", text="hi"), piece(2, "citations_delta", citation={"type": "web_search_result_location", "url": "https://a", "title": "A", "cited_text": "x"}), stop(2), start(3, "text", text=""), piece(3, "citations_delta", citation={"type": "char_location"}), stop(3)),
        Expected(text="hi"),
    ),
    "unknown blocks and events": (
        claude({"type": "content_block_telepathy"}, start(0, "mcp_tool_use", id="m", name="x", server_name="s", input={}), stop(0), start(1, "compaction", content=None), piece(1, "compaction_delta", content="x"), stop(1), *[{**e, "index": 2} for e in TEXT]),
        Expected(text="hi"),
    ),
    "refusal": (claude(*TEXT, reason="refusal", stop_details={"type": "refusal", "explanation": "no"}), Expected(text="hi", finish="content_filter", refusal="no")),
    "refusal at once": (claude(reason="refusal"), Expected(finish="content_filter")),
    "context window": (claude(*TEXT, reason="model_context_window_exceeded"), Expected(text="hi", finish="length")),
    "paused": (claude(*TEXT, reason="pause_turn"), Expected(text="hi")),
    "unknown reason": (claude(*TEXT, reason="bored"), Expected(text="hi")),
    "no reason": (claude(*TEXT, reason=None), Expected(text="hi")),
    "tool_use without a call": (claude(*TEXT, reason="tool_use"), Expected(text="hi")),
    "the cache": (
        sse(greeting(cache_read_input_tokens=10, cache_creation_input_tokens=5), *TEXT, *ending(), done=False, name=True), Expected(text="hi", usage=(18, 2, 20))
    ),
    "input corrected": (
        sse(greeting(input_tokens=0), *TEXT, {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"input_tokens": 3, "output_tokens": 2, "cache_read_input_tokens": None}}, {"type": "message_stop"}, done=False),
        Expected(text="hi"),
    ),
    "CRLF, spaces and no names": (claude(*TEXT).replace(b"\n\n", b"  \r\n\r\n"), Expected(text="hi")),
    "a tier": (sse(greeting(service_tier="standard"), *TEXT, *ending(), done=False), Expected(text="hi")),
    "overloaded in the middle": (
        sse(greeting(), *TEXT[:2], {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, done=False, name=True), Expected(error=True)
    ),
    "overloaded first": (sse({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, done=False, name=True), Expected(status=529)),
    "overloaded after the greeting": (sse(greeting(), {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, done=False, name=True), Expected(status=529)),
    "closed in a block": (sse(greeting(), *TEXT[:2], done=False), Expected(error=True)),
    "closed before its last event": (sse(greeting(), *TEXT, ending()[0], done=False), Expected(error=True)),
    "nothing": (b"", Expected(status=502)),
}  # fmt: skip


def google(*parts: Any, finish: Any = None, **more: Any) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": list(parts)}} if parts else {}
    usage = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
    return {
        "candidates": [{**candidate, **({"finishReason": finish} if finish else {})}],
        "usageMetadata": usage, "modelVersion": "gemini", "responseId": "r1", **more,
    }  # fmt: skip


def crlf(*events: Any) -> bytes:
    return sse(*events, done=False).replace(b"\n\n", b"\r\n\r\n")


def gcall(name: str, **args: Any) -> dict[str, Any]:
    return {"functionCall": {"name": name, "args": args}}


GOOGLE: dict[str, tuple[bytes, Expected]] = {
    "a plain answer": (crlf(google({"text": "h"}), google({"text": "i"}, finish="STOP")), Expected(text="hi")),
    "a reason alone": (crlf(google({"text": "hi"}), google(finish="STOP")), Expected(text="hi")),
    "calls one per chunk": (
        crlf(google(gcall("f", x=1)), google(gcall("f", x=2)), google({"text": "", "thoughtSignature": "s"}, finish="STOP")),
        Expected(calls=(("f", '{"x":1}'), ("f", '{"x":2}')), finish="tool_calls"),
    ),
    "calls in one chunk": (crlf(google({"text": "hi"}, gcall("f", x=1), gcall("g"), finish="STOP")), Expected(text="hi", calls=TWO, finish="tool_calls")),
    "a call without arguments": (crlf(google({"functionCall": {"name": "f"}}, finish="STOP")), Expected(calls=(("f", "{}"),), finish="tool_calls")),
    "calls with ids": (
        crlf(google({"functionCall": {"name": "f", "id": "i1", "args": {"x": 1}}, "thoughtSignature": "sig"}), google({"functionCall": {"name": "g", "id": "i2"}}, finish="STOP")),
        Expected(calls=TWO, finish="tool_calls"),
    ),
    "calls that share an id": (
        crlf(google({"functionCall": {"name": "f", "id": "i", "args": {"x": 1}}}), google({"functionCall": {"name": "g", "id": "i"}}, finish="STOP")),
        Expected(calls=TWO, finish="tool_calls"),
    ),
    "thoughts": (crlf(google({"text": "hm", "thought": True}), google({"text": "hi"}, finish="STOP")), Expected(text="hi", reasoning="hm")),
    "code that the server ran": (
        crlf(google({"executableCode": {"language": "PYTHON", "code": "1"}}), google({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}}), google({"toolCall": {"id": "x"}}, {"text": "hi"}, finish="STOP")),
        Expected(text="hi"),
    ),
    "a picture": (crlf(google({"inlineData": {"mimeType": "image/png", "data": "AAAA"}}), google({"inlineData": {"mimeType": "image/png", "data": "BBBB"}}, finish="STOP")), Expected()),
    "the limit without text": (crlf(google(finish="MAX_TOKENS")), Expected(finish="length")),
    "safety": (crlf(google({"text": "hi"}), google(finish="SAFETY")), Expected(text="hi", finish="content_filter")),
    "malformed call": (crlf(google(finish="MALFORMED_FUNCTION_CALL")), Expected()),
    "unknown reason": (crlf(google({"text": "hi"}, finish="BORED")), Expected(text="hi")),
    "a blocked prompt": (
        crlf({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 5, "totalTokenCount": 5}}),
        Expected(finish="content_filter", usage=(5, 0, 5), refusal="The provider blocked the prompt: PROHIBITED_CONTENT."),
    ),
    "traffic type alone in the end": (
        crlf(google({"text": "hi"}, finish="STOP"), {"candidates": [], "usageMetadata": {"trafficType": "ON_DEMAND"}}), Expected(text="hi")
    ),
    "thinking counted": (
        crlf(google({"text": "hi"}, finish="STOP", usageMetadata={"promptTokenCount": 3, "candidatesTokenCount": 2, "thoughtsTokenCount": 7, "totalTokenCount": 12})), Expected(text="hi", usage=(3, 9, 12))
    ),
    "two candidates, the second first": (
        crlf({"candidates": [{"index": 1, "content": {"parts": [{"text": "b"}]}}]}, {"candidates": [{"index": 0, "content": {"parts": [{"text": "hi"}]}, "finishReason": "STOP"}, {"index": 1, "finishReason": "STOP"}]}),
        Expected(text="hi", usage=None, body={"n": 2}),
    ),
    "arguments in pieces": (
        crlf(google({"functionCall": {"name": "f", "willContinue": True}}), google({"functionCall": {"partialArgs": [{"jsonPath": "$.x", "numberValue": 1}], "willContinue": True}}), google({"functionCall": {}}), google(finish="STOP")),
        Expected(calls=(("f", '{"x":1}'),), finish="tool_calls"),
    ),
    "an error in the middle": (crlf(google({"text": "hi"}), {"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}), Expected(error=True)),
    "an error first": (crlf({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}}), Expected(status=503)),
    "an error that is no event": (b'[{"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED"}}]', Expected(status=429)),
    "closed without a reason": (crlf(google({"text": "hi"})), Expected(error=True)),
    "nothing": (b"", Expected(status=502)),
}  # fmt: skip


def frame(name: str, **payload: Any) -> bytes:
    return encode(
        {":message-type": "event", ":event-type": name, ":content-type": "application/json"},
        json.dumps({**payload, "p": "abc"}).encode(),
    )


def fault(name: str, **payload: Any) -> bytes:
    return encode({":message-type": "exception", ":exception-type": name}, json.dumps(payload).encode())


def said(index: int, **content: Any) -> bytes:
    return frame("contentBlockDelta", contentBlockIndex=index, delta=content)


def used(index: int, id_: str, name: str, *fragments: str, **more: Any) -> bytes:
    use = {"toolUseId": id_, "name": name, **more}
    pieces = b"".join(said(index, toolUse={"input": fragment}) for fragment in fragments)
    return frame("contentBlockStart", contentBlockIndex=index, start={"toolUse": use}) + pieces + closed(index)


def closed(index: int) -> bytes:
    return frame("contentBlockStop", contentBlockIndex=index)


BEGIN = frame("messageStart", role="assistant")
WORDS = said(0, text="h") + said(0, text="i") + closed(0)


def ended(reason: str = "end_turn", **usage: Any) -> bytes:
    return frame("messageStop", stopReason=reason) + measured(**usage)


def measured(**usage: Any) -> bytes:
    return frame(
        "metadata", usage={"inputTokens": 3, "outputTokens": 2, "totalTokens": 5, **usage}, metrics={"latencyMs": 1}
    )


BEDROCK: dict[str, tuple[bytes, Expected]] = {
    "a plain answer": (BEGIN + WORDS + ended(), Expected(text="hi")),
    "text and two calls": (
        BEGIN + WORDS + used(1, "a", "f", '{"x"', ":1}") + used(2, "b", "g") + ended("tool_use"), Expected(text="hi", calls=TWO, finish="tool_calls")
    ),
    "reasoning": (
        BEGIN + said(0, reasoningContent={"text": "hm"}) + said(0, reasoningContent={"signature": "s"}) + closed(0) + said(1, text="hi") + closed(1) + ended(),
        Expected(text="hi", reasoning="hm"),
    ),
    "reasoning hidden": (BEGIN + said(0, reasoningContent={"redactedContent": "eHl6"}) + closed(0) + said(1, text="hi") + closed(1) + ended(), Expected(text="hi")),
    "metadata first": (BEGIN + WORDS + measured() + frame("messageStop", stopReason="end_turn"), Expected(text="hi")),
    "no metadata": (BEGIN + WORDS + frame("messageStop", stopReason="end_turn"), Expected(text="hi", usage=None)),
    "the cache": (
        BEGIN + WORDS + ended(cacheReadInputTokens=10, cacheWriteInputTokens=5, totalTokens=20), Expected(text="hi", usage=(18, 2, 20))
    ),
    "a guardrail": (BEGIN + WORDS + ended("guardrail_intervened"), Expected(text="hi", finish="content_filter")),
    "the limit in a call": (BEGIN + used(0, "a", "f", '{"x": "a') + ended("max_tokens"), Expected(calls=(("f", '{"x": "a'),), finish="length")),
    "malformed": (BEGIN + WORDS + ended("malformed_model_output"), Expected(text="hi")),
    "a server's tool": (
        BEGIN + used(0, "a", "nova_grounding", "{}", type="server_tool_use") + said(1, text="hi") + said(1, citation={"location": {"web": {"url": "https://a"}}}) + closed(1) + ended(), Expected(text="hi")
    ),
    "unknown frames": (BEGIN + frame("telepathy", x=1) + WORDS + ended(), Expected(text="hi")),
    "throttled first": (fault("throttlingException", message="slow"), Expected(status=429)),
    "throttled after the greeting": (BEGIN + fault("throttlingException", message="slow"), Expected(status=429)),
    "throttled in the middle": (BEGIN + said(0, text="h") + fault("throttlingException", message="slow"), Expected(error=True)),
    "a model's error": (BEGIN + said(0, text="h") + fault("modelStreamErrorException", message="bad", originalStatusCode=500), Expected(error=True)),
    "an error frame": (
        BEGIN + said(0, text="h") + encode({":message-type": "error", ":error-code": "InternalError", ":error-message": "bad"}, b""), Expected(error=True)
    ),
    "closed in a block": (BEGIN + said(0, text="h"), Expected(error=True)),
    "a broken checksum": (BEGIN + said(0, text="h") + WORDS[:-1] + b"\0", Expected(error=True)),
    "nothing": (b"", Expected(status=502)),
    "a page": (b"<html>no</html>", Expected(status=502)),
}  # fmt: skip

TABLES = {
    "openai": OPENAI,
    "xai": OPENAI,
    "anthropic": ANTHROPIC,
    "gemini": GOOGLE,
    "vertex": GOOGLE,
    "bedrock": BEDROCK,
}
STREAMS = [(provider, name) for provider, table in TABLES.items() for name in table]


def reply(provider: str, name: str, size: int = 0) -> Reply:
    mime = "application/vnd.amazon.eventstream" if provider == "bedrock" else "text/event-stream"
    return Reply(body=TABLES[provider][name][0], headers={"content-type": mime}, size=size)


def expected(provider: str, name: str) -> Expected:
    return TABLES[provider][name][1]


MODELS = {
    "openai": "gpt-4o", "xai": "grok-4", "anthropic": "claude-sonnet-4-5", "gemini": "gemini-3-pro", "vertex": "gemini-2.5-flash",
    "bedrock": "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
}  # fmt: skip


def asking(provider: str, **more: Any) -> dict[str, Any]:
    """Return a client's streaming request for a provider."""
    tools = [
        {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {}}}}
        for name in "fg"
    ]
    return {
        "model": f"{provider}/{MODELS[provider]}", "messages": [{"role": "user", "content": "hi"}], "stream": True,
        "stream_options": {"include_usage": True}, **({} if "functions" in more else {"tools": tools}), **more,
    }  # fmt: skip
