"""Turns of a conversation as Claude's messages: blocks, and the order that Claude insists on.

Claude refuses blocks without visible text, two turns of one side in a row, and a tool result behind other content.
Source: https://platform.claude.com/docs/en/api/messages/create
"""

import re
from collections.abc import Mapping
from typing import Any

from adapters.base import JSON, Media
from adapters.claude.models import Traits
from adapters.claude.thoughts import blocks_of
from adapters.conversation import (
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
    Turn,
    cache_of,
)
from adapters.errors import InvalidRequestError, UnsupportedParameterError
from adapters.media import Inline, inline, parse_data_url, parse_file_data, text_of, url_kind
from adapters.tools import sanitise_tool_id

_TOOL_ID = re.compile(r"[a-zA-Z0-9_-]+")
_IMAGES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
_EMPTY: JSON = {"type": "text", "text": "."}


def wanted_urls(conversation: Conversation, *, fetch_https: bool) -> tuple[str, ...]:
    """Return the URLs in a conversation that this host of Claude cannot fetch by itself, each once."""
    urls: dict[str, None] = {}
    parts = [part for turn in conversation.turns for part in turn.parts]
    inner = [part for result in parts if isinstance(result, ToolResult) for part in result.parts]
    for part in [*parts, *inner]:
        url = part.url if isinstance(part, Image) else (part.data or "") if isinstance(part, File) else ""
        kind = url_kind(url)
        if kind == "http" or (kind == "https" and fetch_https):
            urls[url] = None
    return tuple(urls)


class Blocks:
    """Makes the messages of one call. `fetch_https`: this host takes no URLs, so they must be in `media`."""

    def __init__(self, traits: Traits, media: Mapping[str, Media], *, fetch_https: bool) -> None:
        self._traits, self._media, self._fetch_https = traits, media, fetch_https

    def system(self, texts: list[Text]) -> list[JSON]:
        """Return the blocks of the system slot."""
        return [_text(text.text, text.cache) for text in texts if text.text.strip()]

    def messages(self, turns: list[Turn], thoughts: Mapping[int, list[JSON]], *, thinking: bool) -> list[JSON]:
        """Return the messages; `thoughts` are those remembered by the turn's place, for turns without their own.

        Raises InvalidRequestError and UnsupportedParameterError.
        """
        messages: list[JSON] = []
        for index, turn in enumerate(turns):
            role, blocks = turn.role, self._blocks(turn)
            if role == "system" and not self._system_fits(turns, index, messages):
                role = "user"
            if role == "assistant" and thinking and blocks:
                blocks = [*thoughts.get(index, []), *blocks]
            elif role == "assistant":
                blocks = [block for block in blocks if block["type"] not in ("thinking", "redacted_thinking")]
            if not blocks and not (role == "user" and turn.role == "user"):
                continue
            if messages and messages[-1]["role"] == role:
                messages[-1]["content"] = _in_order([*messages[-1]["content"], *blocks])
            else:
                messages.append({"role": role, "content": blocks})
        return _finished(messages)

    def _system_fits(self, turns: list[Turn], index: int, messages: list[JSON]) -> bool:
        if not self._traits.system_turns or not messages or messages[-1]["role"] != "user":
            return False
        return index + 1 == len(turns) or turns[index + 1].role == "assistant"

    def _blocks(self, turn: Turn) -> list[JSON]:
        blocks: list[JSON] = []
        for part in turn.parts:
            if isinstance(part, Reasoning):
                blocks += blocks_of(part)
            elif isinstance(part, ToolCall):
                blocks.append(_tool_use(part))
            elif isinstance(part, ToolResult):
                blocks.append(self._tool_result(part))
            else:
                block = self._block(part)
                blocks += [block] if block is not None else []
        return blocks

    def _block(self, part: Part) -> JSON | None:
        if isinstance(part, Text):
            return _text(part.text, part.cache) if part.text.strip() else None
        if isinstance(part, Refusal):
            return _text(part.text, None) if part.text.strip() else None
        if isinstance(part, Image):
            return self._image(part)
        if isinstance(part, File):
            return self._file(part)
        if isinstance(part, Audio):
            raise UnsupportedParameterError(part.source, "Claude takes no audio.")
        return None

    def _tool_result(self, part: ToolResult) -> JSON:
        block: JSON = {"type": "tool_result", "tool_use_id": sanitise_tool_id(part.id, _TOOL_ID)}
        inner = [made for item in part.parts if (made := self._block(item)) is not None]
        if len(inner) == 1 and inner[0].keys() == {"type", "text"}:
            block["content"] = inner[0]["text"]
        elif inner:
            block["content"] = inner
        return _cached(block, part.cache)

    def _image(self, part: Image) -> JSON:
        if url_kind(part.url) == "data":
            return _cached(_inline_block(parse_data_url(part.url, part.source), None, part.source), part.cache)
        return _cached(self._url(part.url, "image", None, part.source), part.cache)

    def _file(self, part: File) -> JSON:
        if part.data is None:
            if part.file_id is None or not part.file_id.startswith("file_"):
                raise UnsupportedParameterError(part.source, "This is not the id of a file at this provider.")
            return _cached(_document({"type": "file", "file_id": part.file_id}, part.filename), part.cache)
        if url_kind(part.data) in ("https", "http"):
            return _cached(self._url(part.data, "document", part.filename, part.source), part.cache)
        file = parse_file_data(part.data, part.source, part.filename)
        return _cached(_inline_block(file, part.filename, part.source), part.cache)

    def _url(self, url: str, kind: str, filename: str | None, source: str) -> JSON:
        fetched = self._media.get(url)
        if fetched is not None:
            return _inline_block(inline(fetched.data, fetched.mime, filename), filename, source)
        if url_kind(url) != "https" or self._fetch_https:
            raise InvalidRequestError("This URL cannot be given to the provider.", param=source)
        where: JSON = {"type": "url", "url": url}
        return {"type": "image", "source": where} if kind == "image" else _document(where, filename)


def _finished(messages: list[JSON]) -> list[JSON]:
    """Mend the two ends and the empty turns: a user begins, and a prefill does not end in white space."""
    if messages and messages[-1]["role"] == "assistant":
        blocks = messages[-1]["content"]
        if blocks and blocks[-1]["type"] == "text":
            blocks[-1] = {**blocks[-1], "text": blocks[-1]["text"].rstrip()}
    for message in messages:
        message["content"] = message["content"] or [dict(_EMPTY)]
    if not messages or messages[0]["role"] != "user":
        messages.insert(0, {"role": "user", "content": [dict(_EMPTY)]})
    return messages


def _in_order(blocks: list[JSON]) -> list[JSON]:
    results = [block for block in blocks if block["type"] == "tool_result"]
    return [*results, *(block for block in blocks if block["type"] != "tool_result")] if results else blocks


def _tool_use(part: ToolCall) -> JSON:
    block = {
        "type": "tool_use",
        "id": sanitise_tool_id(part.id, _TOOL_ID),
        "name": part.name,
        "input": part.arguments,
    }
    return _cached(block, cache_of(part.extra))


def _inline_block(file: Inline, filename: str | None, source: str) -> JSON:
    if file.mime in _IMAGES:
        return {"type": "image", "source": {"type": "base64", "media_type": file.mime, "data": file.base64}}
    if file.mime == "application/pdf":
        return _document({"type": "base64", "media_type": file.mime, "data": file.base64}, filename)
    if file.textual:
        text = text_of(file, source)
        return _document({"type": "text", "media_type": "text/plain", "data": text}, filename)
    raise UnsupportedParameterError(source, "Claude takes JPEG, PNG, GIF and WEBP images, PDF and text.")


def _document(source: JSON, filename: str | None) -> JSON:
    return {"type": "document", "source": source, **({"title": filename} if filename else {})}


def _text(text: str, cache: JSON | None) -> JSON:
    return _cached({"type": "text", "text": text}, cache)


def _cached(block: dict[str, Any], cache: JSON | None) -> JSON:
    return {**block, "cache_control": cache} if cache else block
