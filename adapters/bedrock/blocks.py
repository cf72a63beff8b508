"""The turns of a conversation as Converse's messages: blocks in the order that its models insist on.

Converse wants user and assistant to alternate, no blank text, all results of one turn's calls together and first, a text
beside every document, and document names that are unique and of few characters. Pictures come as bytes, never as URLs.
Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html
"""

import re
from collections.abc import Iterable, Mapping

from adapters.base import JSON, Call
from adapters.bedrock.documents import Names, media_block, reference_block
from adapters.bedrock.models import Model
from adapters.claude.thoughts import blocks_of
from adapters.errors import InvalidRequestError, UnsupportedParameterError
from adapters.exact import loads_exact
from adapters.media import Inline, inline, parse_data_url, parse_file_data, url_kind
from adapters.messages import (
    Audio,
    Conversation,
    File,
    Image,
    Part,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    sanitise_tool_id,
)

CACHE_POINTS_MAX = 4
TOOL_ID = re.compile(r"[a-zA-Z0-9_.:-]{1,64}")
_NOT_NAME = re.compile(r"[^a-zA-Z0-9_-]")
_EMPTY_TURN = "."
_EMPTY_RESULT = "(empty)"  # a result's text may not be blank
_BESIDE_DOCUMENT = "See the attached document."


class Blocks:
    """Writes the messages of one request. `remembered` is signed reasoning by the place of its turn."""

    def __init__(self, call: Call, model: Model, remembered: Mapping[int, list[JSON]]) -> None:
        self._call, self._model, self._remembered = call, model, remembered
        self._names = Names()
        self._cache_points = 0
        self.dropped: list[str] = []

    def cache_point(self, cache: JSON | None, place: str) -> list[JSON]:
        """Return the cache point asked for, as one block or none; `place` is tools, system or messages."""
        if cache is None:
            return []
        if place not in self._model.cache or self._cache_points >= CACHE_POINTS_MAX:
            self._drop("cache_control")
            return []
        self._cache_points += 1
        point: JSON = {"type": "default"}
        if self._model.cache_ttl and cache.get("ttl") == "1h":
            point["ttl"] = "1h"
        return [{"cachePoint": point}]

    def system(self, texts: Iterable[Text]) -> list[JSON]:
        """Return the system blocks; blank text is left out."""
        blocks: list[JSON] = []
        for text in texts:
            if text.text.strip():
                blocks += [{"text": text.text}, *self.cache_point(text.cache, "system")]
        return blocks

    def messages(self, conversation: Conversation) -> list[JSON]:
        """Return the messages. Raises InvalidRequestError and UnsupportedParameterError."""
        messages: list[JSON] = []
        for index, turn in enumerate(conversation.turns):
            role = "assistant" if turn.role == "assistant" else "user"  # a later system message keeps its place
            blocks = reasoning_blocks(self._remembered.get(index, []))
            for part in turn.parts:
                blocks += self._part(part)
            if messages and messages[-1]["role"] == role:
                messages[-1]["content"] += blocks
            elif blocks or role == "user":
                messages.append({"role": role, "content": blocks})
        if not messages or (self._model.starts_with_user and messages[0]["role"] == "assistant"):
            messages.insert(0, {"role": "user", "content": []})
        finished: list[JSON] = []
        for message in messages:
            finished += self._finished(message)
        _strip_prefill(finished)
        return finished

    def _part(self, part: Part) -> list[JSON]:
        match part:
            case Text():
                point = self.cache_point(part.cache, "messages") if part.text.strip() else []
                return [*_text(part.text), *point]
            case Refusal():
                return _text(part.text)
            case Image() | File() | Audio():
                return [self._media(part), *self.cache_point(getattr(part, "cache", None), "messages")]
            case Reasoning():
                return self._reasoning(part)
            case ToolCall():
                return [_tool_use(part), *self.cache_point(part.extra.get("cache_control"), "messages")]
            case ToolResult():
                return self._tool_result(part)

    def _reasoning(self, part: Reasoning) -> list[JSON]:
        blocks = reasoning_blocks(blocks_of(part)) if self._model.keeps_reasoning else []
        if not blocks:
            self._drop("messages.reasoning")
        return blocks

    def _tool_result(self, part: ToolResult) -> list[JSON]:
        content: list[JSON] = []
        cache = part.cache
        for inner in part.parts:
            cache = getattr(inner, "cache", None) or cache
            if isinstance(inner, Text | Refusal):
                content += self._result_text(inner.text)
            elif isinstance(inner, Image | File):
                content.append(self._media(inner))
            else:
                raise UnsupportedParameterError(
                    part.source, "A tool's result can hold text, pictures and documents only."
                )
        content = content or self._result_text(_EMPTY_RESULT)
        result = {"toolUseId": sanitise_tool_id(part.id, TOOL_ID), "content": content}
        return [{"toolResult": result}, *self.cache_point(cache, "messages")]

    def _result_text(self, text: str) -> list[JSON]:
        if self._model.tool_results == "text":
            return _text(text)
        try:
            value = loads_exact(text)
        except ValueError:
            value = text
        return [{"json": value if isinstance(value, dict) else {"result": value}}]

    def _media(self, part: Image | File | Audio) -> JSON:
        if isinstance(part, Audio):
            if not self._model.audio:
                raise UnsupportedParameterError(part.source, "This model does not listen to audio.")
            file = parse_file_data(part.data, part.source)
            return {"audio": {"format": part.format, "source": {"bytes": file.base64}}}
        filename = part.filename if isinstance(part, File) else None
        url = part.url if isinstance(part, Image) else (part.data or part.file_id or "")
        if url_kind(url) == "s3":
            return reference_block(url, self._names, part.source)
        return media_block(self._bytes(part, url), filename, self._names, part.source)

    def _bytes(self, part: Image | File, url: str) -> Inline:
        if url_kind(url) in {"http", "https"}:
            media = self._call.media.get(url)
            if media is None:
                raise InvalidRequestError("This file could not be fetched.", param=part.source)
            return inline(media.data, media.mime, part.filename if isinstance(part, File) else None)
        if isinstance(part, Image):
            return parse_data_url(url, part.source)
        if part.data is None:
            raise UnsupportedParameterError(part.source, "This provider keeps no files: send the file's data.")
        return parse_file_data(part.data, part.source, part.filename)

    def _finished(self, message: JSON) -> list[JSON]:
        blocks: list[JSON] = message["content"]
        if message["role"] == "assistant":
            return [message]
        results, others = _split_results(blocks)
        if any("document" in block for block in others) and not any("text" in block for block in others):
            others.append({"text": _BESIDE_DOCUMENT})
        if not results and not any("cachePoint" not in block for block in others):
            others = [{"text": _EMPTY_TURN}]
        if results and others and self._model.tool_results_alone:  # a turn of the model keeps the two apart
            return [
                {"role": "user", "content": results},
                {"role": "assistant", "content": [{"text": _EMPTY_TURN}]},
                {"role": "user", "content": others},
            ]
        return [{"role": "user", "content": results + others}]

    def _drop(self, name: str) -> None:
        if name not in self.dropped:
            self.dropped.append(name)


def reasoning_blocks(thoughts: Iterable[JSON]) -> list[JSON]:
    """Return Claude's signed or encrypted thoughts, in its own form, as Converse's blocks."""
    blocks: list[JSON] = []
    for thought in thoughts:
        if thought.get("type") == "redacted_thinking":
            blocks.append({"reasoningContent": {"redactedContent": thought["data"]}})
        else:
            signed = {"text": thought["thinking"], "signature": thought["signature"]}
            blocks.append({"reasoningContent": {"reasoningText": signed}})
    return blocks


def urls_of(conversation: Conversation) -> tuple[str, ...]:
    """Return the URLs of pictures and files that must be fetched, each once, in their order."""
    urls: dict[str, None] = {}

    def collect(parts: Iterable[Part]) -> None:
        for part in parts:
            if isinstance(part, ToolResult):
                collect(part.parts)
            elif isinstance(part, Image | File):
                url = part.url if isinstance(part, Image) else (part.data or "")
                if url_kind(url) in {"http", "https"}:
                    urls[url] = None

    for turn in conversation.turns:
        collect(turn.parts)
    return tuple(urls)


def _text(text: str) -> list[JSON]:
    return [{"text": text}] if text.strip() else []


def _tool_use(part: ToolCall) -> JSON:
    name = _NOT_NAME.sub("_", part.name)[:64]
    return {"toolUse": {"toolUseId": sanitise_tool_id(part.id, TOOL_ID), "name": name, "input": part.arguments}}


def _split_results(blocks: list[JSON]) -> tuple[list[JSON], list[JSON]]:
    """Return the tool results with the cache points right behind them, and all else."""
    results: list[JSON] = []
    others: list[JSON] = []
    for block in blocks:
        if "toolResult" in block or ("cachePoint" in block and results and not others):
            results.append(block)
        else:
            others.append(block)
    return results, others


def _strip_prefill(messages: list[JSON]) -> None:
    """Cut white space from the end of a last turn that the model is to continue; Claude refuses it."""
    if messages and messages[-1]["role"] == "assistant" and messages[-1]["content"]:
        last = messages[-1]["content"][-1]
        if "text" in last:
            messages[-1]["content"][-1] = {"text": last["text"].rstrip()}
