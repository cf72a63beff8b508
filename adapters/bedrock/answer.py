"""A whole Converse answer as OpenAI's completion.

Converse gives an answer no id and no model: the id is made from Bursar's request id, the model is the one that was asked.
Calls of tools that run on Bedrock's side (`server_tool_use`) are not the client's and are left out.
Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html#API_runtime_Converse_ResponseSyntax
"""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from adapters.base import JSON, Call
from adapters.bedrock.models import model_of
from adapters.bedrock.usage import finish_reason, openai_usage, tier_of
from adapters.claude.thoughts import FORMAT, blocks_of, remember
from adapters.exact import dumps_exact
from adapters.memory import Memory
from adapters.messages import Reasoning


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Reading:
    """What reading an answer takes from its request."""

    call: Call
    json_tool: str | None  # the tool whose input is the answer's text
    legacy: bool  # the client speaks `function_call`
    memory: Memory

    @property
    def vendor(self) -> str:
        """Whose model answers, "" if that is not known."""
        return model_of(self.call.upstream_model).vendor

    @property
    def completion_id(self) -> str:
        """The id that every part of the answer has."""
        return f"chatcmpl-{self.call.call_id.removeprefix('req_')}"

    def remember(self, tool_ids: list[str], details: list[JSON]) -> None:
        """Keep the signed reasoning that led to these calls, for a client that does not echo it."""
        remember(self.memory, tool_ids, blocks_of(Reasoning(details=details, text="")))

    def tool_id(self, given: Any, number: int) -> str:
        """Return a call's id: the provider's, else one of our own that is always the same."""
        if isinstance(given, str) and given:
            return given
        digest = hashlib.sha256(f"{self.call.call_id}:{number}".encode()).hexdigest()
        return f"call_{digest[:24]}"


@dataclass(slots=True)
class _Message:
    """What the blocks of an answer say."""

    text: list[str] = field(default_factory=list)
    structured: list[str] = field(default_factory=list)  # input of the emulating tool
    calls: list[JSON] = field(default_factory=list)
    details: list[JSON] = field(default_factory=list)
    annotations: list[JSON] = field(default_factory=list)


def completion_of(answer: JSON, reading: Reading) -> JSON:
    """Return the completion; any JSON object is read, what is missing in it counts as not said."""
    call = reading.call
    read = _read(_blocks(answer), reading)
    reading.remember([made["id"] for made in read.calls], read.details)
    completion: JSON = {
        "id": reading.completion_id,
        "object": "chat.completion",
        "created": call.created,
        "model": call.upstream_model,
        "choices": [
            {
                "index": 0,
                "message": _message(read, reading),
                "logprobs": None,
                "finish_reason": _finish(answer, read, reading),
            }
        ],
    }
    usage = openai_usage(answer.get("usage"), vendor=reading.vendor)
    if usage is not None:
        completion["usage"] = usage
    tier = tier_of(answer)
    if tier is not None:
        completion["service_tier"] = tier
    return completion


def detail_of(block: JSON, index: int, vendor: str) -> JSON | None:
    """Return a reasoningContent block in the form that clients may echo; None when there is nothing in it."""
    made_by = {"format": FORMAT} if vendor == "anthropic" else {}  # its signatures hold wherever Claude is hosted
    inner = block.get("reasoningText")
    if isinstance(inner, dict) and isinstance(inner.get("text"), str):
        signature = inner.get("signature")
        signed = {"signature": signature} if isinstance(signature, str) and signature else {}
        return {"index": index, "type": "reasoning.text", "text": inner["text"], **signed, **made_by}
    data = block.get("redactedContent")
    if isinstance(data, str) and data:
        return {"index": index, "type": "reasoning.encrypted", "data": data, **made_by}
    return None


def annotation_of(citation: Any) -> JSON | None:
    """Return a citation of a web page as OpenAI's annotation; other sources have no form there."""
    location = citation.get("location") if isinstance(citation, dict) else None
    web = location.get("web") if isinstance(location, dict) else None
    url = web.get("url") if isinstance(web, dict) else None
    if not isinstance(url, str) or not url:
        return None
    title = citation.get("title")
    cited = {"start_index": 0, "end_index": 0, "title": title if isinstance(title, str) else "", "url": url}
    return {"type": "url_citation", "url_citation": cited}


def _blocks(answer: JSON) -> list[JSON]:
    output = answer.get("output")
    message = output.get("message") if isinstance(output, dict) else None
    content = message.get("content") if isinstance(message, dict) else None
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


def _read(blocks: list[JSON], reading: Reading) -> _Message:
    read = _Message()
    for block in blocks:
        text = block.get("text")
        if isinstance(text, str):
            read.text.append(text)
        for key, reader in (
            ("toolUse", _read_call),
            ("reasoningContent", _read_reasoning),
            ("citationsContent", _read_cited),
        ):
            inner = block.get(key)
            if isinstance(inner, dict):
                reader(inner, read, reading)
    return read


def _read_call(use: JSON, read: _Message, reading: Reading) -> None:
    if use.get("type") == "server_tool_use":
        return
    given, name = use.get("input"), use.get("name")
    arguments = given if isinstance(given, str) and given else dumps_exact(given or {}).decode()
    if reading.json_tool is not None and name == reading.json_tool:
        read.structured.append(arguments)
        return
    read.calls.append(
        {
            "id": reading.tool_id(use.get("toolUseId"), len(read.calls)),
            "type": "function",
            "function": {"name": name if isinstance(name, str) else "", "arguments": arguments},
        }
    )


def _read_reasoning(block: JSON, read: _Message, reading: Reading) -> None:
    detail = detail_of(block, len(read.details), reading.vendor)
    if detail is not None:
        read.details.append(detail)


def _read_cited(block: JSON, read: _Message, reading: Reading) -> None:
    del reading
    content, citations = block.get("content"), block.get("citations")
    for piece in content if isinstance(content, list) else []:
        if isinstance(piece, dict) and isinstance(piece.get("text"), str):
            read.text.append(piece["text"])
    for citation in citations if isinstance(citations, list) else []:
        annotation = annotation_of(citation)
        if annotation is not None:
            read.annotations.append(annotation)


def _message(read: _Message, reading: Reading) -> JSON:
    text = "".join(read.structured or read.text)
    message: JSON = {"role": "assistant", "content": text if text or not read.calls else None, "refusal": None}
    reasoning = "".join(detail.get("text", "") for detail in read.details)
    if reasoning:
        message["reasoning_content"] = reasoning
    if read.details:
        message["reasoning_details"] = read.details
    if read.annotations:
        message["annotations"] = read.annotations
    if read.calls and reading.legacy:
        message["function_call"] = read.calls[0]["function"]
    elif read.calls:
        message["tool_calls"] = read.calls
    return message


def _finish(answer: JSON, read: _Message, reading: Reading) -> str:
    reason = finish_reason(answer.get("stopReason"), calls=bool(read.calls))
    return "function_call" if reading.legacy and reason == "tool_calls" else reason
