"""A whole message of Claude's as OpenAI's completion.

Calls of Claude's own server tools are not calls of the client's and are left out; the finish reason follows the content
where the two contradict each other.
Source: https://platform.claude.com/docs/en/api/messages/create
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from adapters.base import JSON, Answer, Call
from adapters.claude.errors import error_from_event
from adapters.claude.request import Built
from adapters.claude.thoughts import detail_of, remember
from adapters.claude.usage import merged, tier_of, usage_of
from adapters.errors import InvalidRequestError, UpstreamProtocolError
from adapters.exact import dumps_exact, loads_exact
from adapters.memory import Memory

_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "refusal": "content_filter",
    "pause_turn": "stop",
}


def finish_reason(native: Any, *, calls: bool, legacy: bool) -> str:
    """Return OpenAI's reason for one of Claude's; `calls`: the client's tools are called."""
    reason = _REASONS.get(native, "stop") if isinstance(native, str) else "stop"
    if reason in ("stop", "tool_calls"):
        reason = "tool_calls" if calls else "stop"
    return "function_call" if legacy and reason == "tool_calls" else reason


def refusal_of(details: Any) -> str | None:
    """Return what Claude says of why it stopped, if it refused and says something."""
    explanation = details.get("explanation") if isinstance(details, dict) else None
    return explanation if isinstance(explanation, str) and explanation else None


def annotations_of(citations: Any, start: int, end: int) -> list[JSON]:
    """Return OpenAI's annotations for the citations of a text that stands from `start` to `end` in the content."""
    found: list[JSON] = []
    for citation in citations if isinstance(citations, list) else []:
        if isinstance(citation, dict) and isinstance(citation.get("url"), str):
            title = citation.get("title")
            place = {"start_index": start, "end_index": end}
            url = {"url": citation["url"], "title": title if isinstance(title, str) else "", **place}
            found.append({"type": "url_citation", "url_citation": url})
    return found


def arguments_text(value: Any) -> str:
    """Return a call's input as OpenAI's string of arguments."""
    if value is None or value in ({}, ""):
        return "{}"
    return value if isinstance(value, str) else dumps_exact(value).decode()


def completion(body: bytes, headers: Mapping[str, str], call: Call, built: Built, memory: Memory) -> Answer:
    """Translate a whole answer. Raises UpstreamError (an error with status 200) and UpstreamProtocolError."""
    try:
        return _completion(_parsed(body, headers), call, built, memory)
    except InvalidRequestError as error:  # what cannot be written again
        raise UpstreamProtocolError("The provider's answer is nested too deeply.") from error


def _completion(message: JSON, call: Call, built: Built, memory: Memory) -> Answer:
    read = _Read(built)
    for block in message["content"]:
        if isinstance(block, dict):
            read.block(block)
    remember(memory, [tool["id"] for tool in read.calls], read.thoughts)
    usage = merged({}, message.get("usage"))
    reason = finish_reason(message.get("stop_reason"), calls=bool(read.calls), legacy=built.legacy)
    choice = {"index": 0, "message": read.message(message, reason), "logprobs": None, "finish_reason": reason}
    made: JSON = {
        "id": _text(message.get("id")) or f"chatcmpl-{call.call_id}",
        "object": "chat.completion",
        "created": call.created,
        "model": _text(message.get("model")) or call.upstream_model,
        "choices": [choice],
        "usage": usage_of(usage),
    }
    tier = tier_of(usage)
    made |= {"service_tier": tier} if tier else {}
    return Answer(body=dumps_exact(made), completion=made)


@dataclass(slots=True)
class _Read:
    """What the blocks of a message said so far."""

    built: Built
    text: str = ""
    answer: str | None = None  # of the tool that stands in for a structured answer
    reasoning: str = ""
    calls: list[JSON] = field(default_factory=list)
    details: list[JSON] = field(default_factory=list)
    thoughts: list[JSON] = field(default_factory=list)
    annotations: list[JSON] = field(default_factory=list)

    def block(self, block: JSON) -> None:
        kind = block.get("type")
        if kind == "text":
            start = len(self.text)
            self.text += _text(block.get("text"))
            self.annotations += annotations_of(block.get("citations"), start, len(self.text))
        elif kind in ("thinking", "redacted_thinking"):
            self._thought(block)
        elif kind == "tool_use":
            self._call(block)

    def message(self, message: JSON, reason: str) -> JSON:
        """Return OpenAI's message."""
        content = self.text if self.answer is None else self.answer
        refusal = refusal_of(message.get("stop_details")) if reason == "content_filter" else None
        made: JSON = {"role": "assistant", "content": content or (None if self.calls else ""), "refusal": refusal}
        if self.calls and self.built.legacy:
            made["function_call"] = self.calls[0]["function"]
        elif self.calls:
            made["tool_calls"] = self.calls
        made |= {"annotations": self.annotations} if self.annotations and self.answer is None else {}
        made |= {"reasoning_content": self.reasoning} if self.reasoning else {}
        return made | ({"reasoning_details": self.details} if self.details else {})

    def _thought(self, block: JSON) -> None:
        self.reasoning += _text(block.get("thinking"))
        detail = detail_of(block, len(self.details))
        if detail is not None:
            self.details.append(detail)
            self.thoughts.append(block)

    def _call(self, block: JSON) -> None:
        name = _text(block.get("name"))
        arguments = arguments_text(block.get("input"))
        if name and name == self.built.answer_tool:
            self.answer = arguments if self.answer is None else self.answer
            return
        call_id = _text(block.get("id")) or f"toolu_{len(self.calls)}"
        function = {"name": name or "unknown", "arguments": arguments}
        self.calls.append({"id": call_id, "type": "function", "function": function})


def _parsed(body: bytes, headers: Mapping[str, str]) -> JSON:
    try:
        message = orjson.loads(body)
        if b"tool_use" in body:
            message = loads_exact(body)  # a call's arguments may hold integers beyond 64 bits
    except ValueError as error:
        raise UpstreamProtocolError("The provider's answer is not JSON.") from error
    if isinstance(message, dict) and (message.get("type") == "error" or message.get("error")):
        raise error_from_event(message, headers)
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        raise UpstreamProtocolError("The provider's answer is not a message.")
    return message


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
