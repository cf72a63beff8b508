"""Knows events again that differ from one read before in nothing but their text, and joins the texts of many.

Almost all events of a stream do. Their JSON is read once; of each that follows only the text is kept, and a run of them is read
as one event with all their texts. What a stranger would get wrong: texts may be joined only if each is a whole number of
characters, so half a surrogate pair, or what is no UTF-8 by itself, is no part of a run.
"""

import re
from typing import Any

from adapters.base import JSON
from adapters.openai_lane.parsing import parse

_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")
# One JSON string's inside, from its first quote to its last: no control characters, no surrogates.
INNER = re.compile(rb'[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+')
_NOISE = re.compile(rb'"obfuscation":"([A-Za-z0-9]*)')  # OpenAI's padding, another in each event
_PADDING = re.compile(rb"[A-Za-z0-9]*+")
_PROBE = b"\\u2042"


class Shape:
    """All of an event but its text: `before`, the text, `after`; then, where there is padding, that and `behind`."""

    __slots__ = ("after", "before", "behind")

    def __init__(self, before: bytes, after: bytes, behind: bytes = b"") -> None:
        self.before, self.after, self.behind = before, after, behind

    def read(self, text: bytes) -> Any:
        """Return the chunk of an event of this shape with that text."""
        return parse(b"".join((self.before, text, self.after, self.behind))[6:-2])


class Run:
    """Texts of events of one shape, one behind another. `size` is no less than their bytes, and than their number."""

    __slots__ = ("shape", "size", "texts")

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.texts: list[bytes] = []
        self.size = 0

    def take_in(self, block: bytes, at: int) -> int:
        """Take the events of this shape that begin in `block` at `at`; return where the first other begins."""
        before, after, behind = self.shape.before, self.shape.after, self.shape.behind
        while block.startswith(before, at):
            start = at + len(before)
            inner = INNER.match(block, start)
            assert inner is not None
            text, end = inner[0], inner.end()
            if not (block.startswith(after, end) and (text.isascii() or is_text(text))):
                break
            end += len(after)
            if behind:
                padding = _PADDING.match(block, end)
                assert padding is not None
                end = padding.end()
                if not block.startswith(behind, end):
                    break
                end += len(behind)
            self.texts.append(text)
            self.size += len(text) or 1
            at = end
        return at

    def take_all(self, block: bytes, size_max: int) -> bool:
        """Take what are all events of this shape, unless that would make this larger than that; else do nothing."""
        count, size = len(self.texts), self.size
        if self.take_in(block, 0) == len(block) and self.size <= size_max:
            return True
        del self.texts[count:]
        self.size = size
        return False

    def chunks(self) -> list[JSON]:
        """Return a chunk for each event."""
        return [self.shape.read(text) for text in self.texts]

    def joined(self) -> list[JSON]:
        """Return one chunk with all the text, then an empty one for each other event."""
        nothing: JSON = {}
        return [self.shape.read(b"".join(self.texts)), *([nothing] * (len(self.texts) - 1))]


def shape_of(event: bytes, chunk: JSON | None = None) -> Shape | None:
    """Return the shape of an event whose chunk says one text and nothing else that adds up; None for any other.

    `chunk` is what the event says, where that was read before.
    """
    if not (event.startswith(b"data: {") and event.find(b"\n") == len(event) - 2 and b"\r" not in event):
        return None
    if b'"error"' in event:
        return None
    if chunk is None:
        chunk = parse(event[6:-2])
    key = _text_key(chunk) if isinstance(chunk, dict) else None
    if chunk is None or key is None:
        return None
    start = re.search(rb'"%b"\s*:\s*"' % key.encode(), event)
    if start is None:
        return None
    inner = INNER.match(event, start.end())
    assert inner is not None
    shape = _shape(event[: start.end()], event[inner.end() :])
    other = shape.read(
        _PROBE
    )  # the text that was found must be the one that counts: keys may be written in other ways, or twice
    return shape if isinstance(other, dict) and _with(chunk, key, "\u2042") == other else None


def is_text(text: bytes) -> bool:
    """Tell whether it is UTF-8 by itself."""
    if text.isascii():
        return True
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _shape(before: bytes, after: bytes) -> Shape:
    noise = _NOISE.search(after)
    return Shape(before, after) if noise is None else Shape(before, after[: noise.start(1)], after[noise.end(1) :])


def _text_key(chunk: JSON) -> str | None:
    """Return the key of the only text of a chunk's only choice."""
    choices = chunk.get("choices")
    if chunk.get("usage") is not None or not isinstance(choices, list) or len(choices) != 1:
        return None
    choice = choices[0]
    if not isinstance(choice, dict) or choice.get("finish_reason") is not None or "text" in choice:
        return None
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return None
    said = [key for key, value in delta.items() if value not in (None, "", []) and key != "role"]
    return said[0] if len(said) == 1 and said[0] in _TEXTS and isinstance(delta[said[0]], str) else None


def _with(chunk: JSON, key: str, text: str) -> JSON:
    choice = chunk["choices"][0]
    new = {**chunk, "choices": [{**choice, "delta": {**choice["delta"], key: text}}]}
    return {**new, "obfuscation": ""} if "obfuscation" in new else new
