"""Claude's event stream as OpenAI's chunks.

Nothing is told to the client before the first content block, so that an overload which Claude reports just after its
greeting can still be an HTTP status. The counts in a message_delta are totals. A stream that ends without message_stop
was cut off, whatever came before.
Source: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from collections.abc import Callable
from typing import Any

import orjson

from adapters.base import JSON, Call, StreamTranslator
from adapters.claude.answer import annotations_of, arguments_text, finish_reason, refusal_of
from adapters.claude.blocks import Block, Thought
from adapters.claude.errors import error_from_event
from adapters.claude.request import Built
from adapters.claude.thoughts import detail_of, remember
from adapters.claude.usage import merged, tier_of, usage_of
from adapters.error_text import error_text
from adapters.errors import UpstreamError, UpstreamProtocolError
from adapters.memory import Memory
from adapters.sse import Decoder, EventTooLargeError
from adapters.writer import ChunkWriter, usage_at_cut

BLOCKS_MAX = 10_000  # of one message; far above any, and what a provider can make us hold has an end
_HEAD_BYTES_MAX = 64 * 1024
_HELD_CHARS_MAX = 1024 * 1024
_ANNOTATIONS_MAX = 1000
_TRUNCATED = "upstream_stream_truncated"
_CHARS_PER_TOKEN = 3  # on the safe side of any language's


class ClaudeStream(StreamTranslator):
    """Translates one stream."""

    def __init__(self, call: Call, built: Built, memory: Memory) -> None:
        self._call, self._built, self._memory = call, built, memory
        self._decoder = Decoder()
        self._head = bytearray()  # of a body that is no event stream
        self._reset()

    def _reset(self) -> None:
        call = self._call
        self._writer = ChunkWriter(
            id=f"chatcmpl-{call.call_id}", model=call.upstream_model, created=call.created, show_usage=call.show_usage
        )
        self._greeted = False
        self._usage: JSON = {}
        self._stop: Any = None
        self._stop_details: Any = None
        self._open: dict[int, Block] = {}
        self._count = 0
        self._details = 0
        self._thoughts: list[JSON] = []
        self._thought_chars = 0
        self._tool_ids: list[str] = []
        self._annotations: list[JSON] = []
        self._chars = 0  # of the text, where annotations point to
        self._relayed_chars = 0  # of all that the model wrote
        self._answered = False  # the tool that stands in for the answer was called
        self._held: list[str] = []  # text beside that tool, told only if it is not called
        self._held_chars = 0
        self._legacy_key: int | None = None  # the one call that the old form has room for

    # the contract ------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> bytes:
        if self.finished:
            return b""
        if self._count == 0 and not self._greeted and len(self._head) < _HEAD_BYTES_MAX:
            self._head += data[: _HEAD_BYTES_MAX - len(self._head)]
        try:
            for event in self._decoder.feed(data):
                self._event(event.data)
        except EventTooLargeError:
            self._fail(UpstreamProtocolError("An event of the provider's stream is too large."))
        return self._out()

    def eof(self) -> bytes:
        if not self.finished:
            self._fail(self._ending())
        return self._out()

    def cut(self) -> bytes:
        if self.finished:
            return b""
        self.started = True
        self._release()
        self._writer.usage(self._usage_at_cut())
        self._writer.end(default_reason="length")
        self.finished = True
        return self._writer.drain()

    def take(self) -> list[JSON]:
        return self._writer.take() if self.started else []

    # events ------------------------------------------------------------------------------------------------------

    def _event(self, data: bytes) -> None:
        if self.finished or not data.strip() or data.strip() == b"[DONE]":
            return
        try:
            event = orjson.loads(data)
        except ValueError:
            self._fail(UpstreamProtocolError("An event of the provider's stream is not JSON."))
            return
        if not isinstance(event, dict):
            return
        kind = event.get("type")
        if kind == "error" or (kind is None and event.get("error")):
            self._fail(error_from_event(event))
            return
        handlers: dict[Any, Callable[[JSON], None]] = {
            "message_start": self._message_start,
            "content_block_start": self._block_start,
            "content_block_delta": self._block_delta,
            "content_block_stop": self._block_stop,
            "message_delta": self._message_delta,
            "message_stop": self._message_stop,
        }
        handler = handlers.get(kind) if isinstance(kind, str) else None
        if handler is not None:  # pings, and events that are not yet known, say nothing to a client
            handler(event)

    def _message_start(self, event: JSON) -> None:
        if self._greeted and self.started:
            self._fail(UpstreamProtocolError("The provider began a second message in one stream."))
            return
        if self._greeted:
            self._reset()
        self._greeted = True
        self._head.clear()
        message = event.get("message")
        if not isinstance(message, dict):
            return
        writer = self._writer
        if not self.started:  # one that comes late does not rename what was written
            writer.id = _text(message.get("id")) or writer.id
            writer.model = _text(message.get("model")) or writer.model
        self._usage = merged({}, message.get("usage"))
        tier = tier_of(self._usage)
        if tier:
            writer.also(service_tier=tier)
        writer.role()
        content = message.get("content")
        for block in content if isinstance(content, list) else []:  # relays that begin with what is there already
            self._whole_block(block)

    def _whole_block(self, block: Any) -> None:
        self._block_start({"index": -1, "content_block": block})
        self._block_stop({"index": -1})

    def _block_start(self, event: JSON) -> None:
        self.started = True
        given = event.get("content_block")
        block_event = given if isinstance(given, dict) else {}
        place = _index(event)
        if place in self._open:  # relays that number every block 0
            self._block_stop(event)
        self._count += 1
        if self._count > BLOCKS_MAX:
            self._fail(UpstreamProtocolError("The provider's message has too many blocks."))
            return
        block = self._open[place] = Block(key=self._count, given=block_event)
        if block.kind == "text":
            self._text(block, _text(block_event.get("text")))
            block.cite(block_event.get("citations"))
        elif block.kind == "thinking":
            self._think(block, _text(block_event.get("thinking")))
        elif block.kind == "tool_use":
            self._tool_start(block)

    def _tool_start(self, block: Block) -> None:
        name = _text(block.given.get("name")) or "unknown"
        if name == self._built.answer_tool:
            block.is_answer, block.mute = True, self._answered
            self._answered = True
            return
        call_id = _text(block.given.get("id")) or f"toolu_{self._call.call_id}_{block.key}"
        self._tool_ids.append(call_id)
        if not self._built.legacy:
            self._writer.tool(block.key, id=call_id, name=name)
        elif self._legacy_key is None:
            self._legacy_key = block.key
            self._writer.extension({"function_call": {"name": name, "arguments": ""}})

    def _block_delta(self, event: JSON) -> None:
        block, delta = self._open.get(_index(event)), event.get("delta")
        if block is None or not isinstance(delta, dict):
            return
        kind = delta.get("type")
        if kind == "text_delta" and block.kind == "text":
            self._text(block, _text(delta.get("text")))
        elif kind == "input_json_delta" and block.kind == "tool_use":
            self._arguments(block, _text(delta.get("partial_json")))
        elif kind == "thinking_delta" and block.kind == "thinking":
            self._think(block, _text(delta.get("thinking")))
        elif kind == "signature_delta" and block.kind == "thinking":
            block.thought.sign(_text(delta.get("signature")))
        elif kind == "citations_delta" and block.kind == "text":
            block.cite([delta.get("citation")])

    def _block_stop(self, event: JSON) -> None:
        block = self._open.pop(_index(event), None)
        if block is None:
            return
        if block.kind == "tool_use":
            if not block.written:
                self._arguments(block, arguments_text(block.given.get("input")))
        elif block.kind in ("thinking", "redacted_thinking"):
            self._thought(block.thought)
        elif block.citations and len(self._annotations) < _ANNOTATIONS_MAX:
            self._annotations += annotations_of(block.citations, block.start, self._chars)

    def _message_delta(self, event: JSON) -> None:
        self.started = True
        delta = event.get("delta")
        if isinstance(delta, dict):
            self._stop = delta.get("stop_reason") or self._stop
            self._stop_details = delta.get("stop_details") or self._stop_details
        self._usage = merged(self._usage, event.get("usage"))

    def _message_stop(self, _event: JSON) -> None:
        self.started = True
        for place in list(self._open):
            self._block_stop({"index": place})
        self._release()
        calls = bool(self._tool_ids)
        reason = finish_reason(self._stop, calls=calls, legacy=self._built.legacy)
        if reason == "content_filter":
            self._writer.refusal(refusal_of(self._stop_details) or "")
        if self._annotations and not self._answered:
            numbered = [{"index": index, **one} for index, one in enumerate(self._annotations)]
            self._writer.extension({"annotations": numbered})
        remember(self._memory, self._tool_ids, self._thoughts)
        self._writer.finish(reason)
        self._writer.usage(usage_of(self._usage))
        self._writer.end()
        self.finished = True

    # what is written ---------------------------------------------------------------------------------------------

    def _text(self, block: Block, text: str) -> None:
        if not text:
            return
        if block.start < 0:
            block.start = self._chars
        if self._built.answer_tool is not None:
            if self._held_chars < _HELD_CHARS_MAX:
                self._held.append(text)
                self._held_chars += len(text)
            self._relayed_chars += len(text)
            return
        self._chars += len(text)
        self._relayed_chars += len(text)
        self._writer.text(text)

    def _release(self) -> None:
        """Write the text that was held back for an answer which did not come."""
        if not self._answered:
            self._writer.text("".join(self._held))
        self._held.clear()

    def _think(self, block: Block, text: str) -> None:
        self._relayed_chars += len(text)
        block.thought.add(text)
        self._writer.reasoning(text)

    def _thought(self, thought: Thought) -> None:
        whole = thought.block()
        detail = detail_of(whole, self._details) if whole is not None else None
        if whole is None or detail is None or self._thought_chars > _HELD_CHARS_MAX:
            return
        self._thought_chars += thought.chars
        self._details += 1
        self._thoughts.append(whole)
        self._writer.extension({"reasoning_details": [detail]})

    def _arguments(self, block: Block, fragment: str) -> None:
        if not fragment or block.mute:
            return
        block.written = True
        self._relayed_chars += len(fragment)
        if block.is_answer:
            self._writer.text(fragment)
        elif not self._built.legacy:
            self._writer.arguments(block.key, fragment)
        elif block.key == self._legacy_key:
            self._writer.extension({"function_call": {"arguments": fragment}})

    def _usage_at_cut(self) -> JSON:
        """Return the usage of a stream that Bursar ends: the provider has told the input, the output is ours to say."""
        if self.usage_hint is not None:
            told = usage_of(self._usage) if self._usage else None
            return {**(usage_at_cut(told, self.usage_hint) or {}), "estimated": True}
        said = usage_of(self._usage)["completion_tokens"]
        limit = self._call.output_limit
        counted = limit if limit is not None else -(-self._relayed_chars // _CHARS_PER_TOKEN)
        return {**usage_of(merged(self._usage, {"output_tokens": max(said, counted)})), "estimated": True}

    # ends --------------------------------------------------------------------------------------------------------

    def _fail(self, error: UpstreamError) -> None:
        self.error, self.finished = error, True

    def _ending(self) -> UpstreamError:
        if self._greeted or self.started:
            return UpstreamProtocolError("The provider's stream ended before its end.", code=_TRUNCATED)
        head = bytes(self._head).strip()
        if not head:
            return UpstreamProtocolError("The provider's stream is empty.", code=_TRUNCATED)
        try:
            value = orjson.loads(head)
        except ValueError:
            return UpstreamProtocolError("The provider's stream holds no message.", code=_TRUNCATED)
        if isinstance(value, dict) and (value.get("error") or value.get("type") == "error"):
            return error_from_event(value)
        return UpstreamProtocolError(error_text(head, 200).message)

    def _out(self) -> bytes:
        return self._writer.drain() if self.started else b""


def _index(event: JSON) -> int:
    index = event.get("index")
    return index if isinstance(index, int) else 0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
