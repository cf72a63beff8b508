"""Calls, answers and streams for the tests of Bedrock."""

import json
from typing import Any

import orjson

from adapters.base import Call, Endpoint
from adapters.eventstream import encode
from adapters.exact import dumps_exact
from adapters.providers.bedrock import BedrockAdapter

CLAUDE = "us.anthropic.claude-sonnet-4-5-20250929-v1:0"
CLAUDE_4 = "us.anthropic.claude-sonnet-4-20250514-v1:0"
CLAUDE_46 = "global.anthropic.claude-opus-4-6-v1"
CLAUDE_47 = "us.anthropic.claude-opus-4-7-v1:0"
NOVA = "us.amazon.nova-pro-v1:0"
NOVA_2 = "us.amazon.nova-2-lite-v1:0"
LLAMA = "us.meta.llama4-maverick-17b-instruct-v1:0"
MISTRAL = "mistral.mistral-large-2407-v1:0"
UNKNOWN = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123def456"
HELLO = [{"role": "user", "content": "Hello"}]
BASE_URL = "https://bedrock-runtime.us-east-1.amazonaws.com"


def adapter() -> BedrockAdapter:
    return BedrockAdapter(Endpoint(name="aws", kind="bedrock", base_url=BASE_URL, options={"region": "us-east-1"}))


def call(body: dict[str, Any] | None = None, model: str = CLAUDE, **changes: Any) -> Call:
    body = {"model": "m", "messages": HELLO, **(body or {})}
    fields: dict[str, Any] = {
        "raw": dumps_exact(body),
        "body": body,
        "upstream_model": model,
        "stream": bool(body.get("stream")),
        "call_id": "req_0123456789abcdef",
        "created": 1_700_000_000,
    }
    return Call(**{**fields, **changes})


def sent(body: dict[str, Any] | None = None, model: str = CLAUDE, **changes: Any) -> dict[str, Any]:
    native: dict[str, Any] = json.loads(adapter().exchange(call(body, model, **changes)).request.body)
    return native


def event(name: str, payload: dict[str, Any]) -> bytes:
    return encode({":message-type": "event", ":event-type": name}, orjson.dumps({**payload, "p": "abcdef"}))


def exception(name: str, payload: bytes) -> bytes:
    return encode({":message-type": "exception", ":exception-type": name}, payload)


def delta(index: int, **content: Any) -> bytes:
    return event("contentBlockDelta", {"contentBlockIndex": index, "delta": content})


def tool_start(index: int, tool_id: str, name: str, **more: Any) -> bytes:
    use = {"toolUseId": tool_id, "name": name, **more}
    return event("contentBlockStart", {"contentBlockIndex": index, "start": {"toolUse": use}})


def stop(index: int) -> bytes:
    return event("contentBlockStop", {"contentBlockIndex": index})


START = event("messageStart", {"role": "assistant"})


def message_stop(reason: str = "end_turn") -> bytes:
    return event("messageStop", {"stopReason": reason})


def metadata(**usage: Any) -> bytes:
    numbers = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15, **usage}
    return event("metadata", {"usage": numbers, "metrics": {"latencyMs": 1}})


def answer(*blocks: dict[str, Any], reason: str = "end_turn", **more: Any) -> bytes:
    usage = {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}
    message = {"role": "assistant", "content": list(blocks)}
    return dumps_exact({"output": {"message": message}, "stopReason": reason, "usage": usage, **more})
