"""The blocks of a stream, written down as they come: what kind each is, and what of it the client is told.

A tool's block is opened by its start frame and a fragment belongs to the block whose index it bears; reasoning goes out
as text at once, and whole with its signature when its block ends. Where a tool stands in for structured output its input
is the text, and what the model says beside it is held back, as a client could not parse both.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from adapters.base import JSON
from adapters.bedrock.answer import Reading, annotation_of, detail_of
from adapters.lenient import member, string
from adapters.writer import ChunkWriter

BLOCKS_MAX = 4096  # open blocks of one answer; more is no answer


@dataclass(slots=True)
class _Block:
    kind: Literal["tool", "json", "server", "reasoning", "text"]
    said: bool = False  # some input has come
    text: list[str] = field(default_factory=list)
    signature: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)


class Scribe:
    """Writes the blocks of one stream through `writer`."""

    def __init__(self, writer: ChunkWriter, reading: Reading) -> None:
        self._writer, self._reading = writer, reading
        self._open: dict[int, _Block] = {}
        self._held: list[str] = []  # text beside structured output
        self._structured = False
        self._details: list[JSON] = []
        self._annotations: list[JSON] = []
        self._ids: list[str] = []

    @property
    def calls(self) -> int:
        """How many tool calls the client got."""
        return len(self._ids)

    def start(self, key: int, start: JSON) -> None:
        """Open a block."""
        use = start.get("toolUse")
        if not isinstance(use, dict) or len(self._open) >= BLOCKS_MAX:
            if start.get("toolResult") is not None:
                self._open[key] = _Block("server")
            return
        self.stop(key)  # a block that was never ended
        if use.get("type") == "server_tool_use":
            self._open[key] = _Block("server")
        elif self._reading.json_tool is not None and use.get("name") == self._reading.json_tool:
            self._open[key] = _Block("json")
            self._structured = True
        else:
            self._open[key] = _Block("tool")
            self._call(key, use)

    def delta(self, key: int, delta: JSON) -> None:
        """Take a piece of a block."""
        if isinstance(text := delta.get("text"), str):
            self._text(text)
        if isinstance(use := delta.get("toolUse"), dict):
            self._input(key, string(use.get("input")))
        if isinstance(thought := delta.get("reasoningContent"), dict):
            self._reason(key, thought)
        annotation = annotation_of(member(delta, "citation"))
        if annotation is not None:
            self._annotations.append({"index": len(self._annotations), **annotation})

    def stop(self, key: int) -> None:
        """End a block; one that is not open has nothing to end."""
        block = self._open.pop(key, None)
        if block is None:
            return
        if block.kind in ("tool", "json") and not block.said:
            self._say(key, block, "{}")
        if block.kind == "reasoning":
            self._reasoned(block)

    def close(self) -> None:
        """End all that is open, and write what was held back."""
        for key in list(self._open):
            self.stop(key)
        if not self._structured:
            self._writer.text("".join(self._held))
        self._held.clear()
        if self._annotations:
            self._writer.extension({"annotations": self._annotations})
        self._reading.remember(self._ids, self._details)

    def cut(self) -> None:
        """Write what was held back, of an answer that ends before its end; partial arguments stay as they are."""
        if not self._structured:
            self._writer.text("".join(self._held))

    def _call(self, key: int, use: JSON) -> None:
        number = len(self._ids)
        name = string(use.get("name"))
        self._ids.append(self._reading.tool_id(use.get("toolUseId"), number))
        if not self._reading.legacy:
            self._writer.tool((key, number), id=self._ids[-1], name=name)
        elif number == 0:
            self._writer.extension({"function_call": {"name": name, "arguments": ""}})
        self._open[key].text = [str(number)]

    def _input(self, key: int, fragment: str) -> None:
        block = self._open.get(key)
        if block is not None and fragment and block.kind in ("tool", "json"):
            self._say(key, block, fragment)

    def _say(self, key: int, block: _Block, fragment: str) -> None:
        block.said = True
        if block.kind == "json":
            self._writer.text(fragment)
            return
        number = int(block.text[0])
        if not self._reading.legacy:
            self._writer.arguments((key, number), fragment)
        elif number == 0:
            self._writer.extension({"function_call": {"arguments": fragment}})

    def _text(self, text: str) -> None:
        if self._reading.json_tool is not None:
            self._held.append(text)
        else:
            self._writer.text(text)

    def _reason(self, key: int, thought: JSON) -> None:
        block = self._open.get(key)
        if block is None or block.kind != "reasoning":
            self.stop(key)
            block = self._open[key] = _Block("reasoning")
        inner: Any = thought.get("reasoningText") if isinstance(thought.get("reasoningText"), dict) else thought
        text = string(inner.get("text"))
        self._writer.reasoning(text)
        block.text.append(text)
        block.signature.append(string(inner.get("signature")))
        block.data.append(string(thought.get("redactedContent")))

    def _reasoned(self, block: _Block) -> None:
        text, signature, data = "".join(block.text), "".join(block.signature), "".join(block.data)
        content: JSON = {"redactedContent": data} if data and not text else {}
        if text or signature:
            content = {"reasoningText": {"text": text, "signature": signature}}
        detail = detail_of(content, len(self._details), self._reading.vendor)
        if detail is not None:
            self._details.append(detail)
            self._writer.extension({"reasoning_details": [detail]})
