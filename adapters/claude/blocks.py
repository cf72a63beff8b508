"""What is known of one open block of a streamed message."""

from dataclasses import dataclass, field
from typing import Any

from adapters.base import JSON

_THOUGHT_CHARS_MAX = 1024 * 1024
_CITATIONS_MAX = 100


@dataclass(slots=True)
class Thought:
    """A thinking block that is still being told; one that grows too large is not kept."""

    data: str | None = None  # of a redacted one
    _pieces: list[str] = field(default_factory=list)
    _signature: list[str] = field(default_factory=list)
    chars: int = 0

    def add(self, text: str) -> None:
        """Take a piece of the thought."""
        self._keep(self._pieces, text)

    def sign(self, signature: str) -> None:
        """Take the signature, or a piece of it."""
        self._keep(self._signature, signature)

    def block(self) -> JSON | None:
        """Return the whole block, None if it cannot be given back to Claude."""
        if self.data is not None:
            return {"type": "redacted_thinking", "data": self.data}
        if not self._signature or self.chars > _THOUGHT_CHARS_MAX:
            return None
        return {"type": "thinking", "thinking": "".join(self._pieces), "signature": "".join(self._signature)}

    def _keep(self, pieces: list[str], piece: str) -> None:
        self.chars += len(piece)
        if piece and self.chars <= _THOUGHT_CHARS_MAX:
            pieces.append(piece)


class Block:
    """One open block. `key` is its number in the message, `given` what its start said."""

    __slots__ = ("citations", "given", "is_answer", "key", "kind", "mute", "start", "thought", "written")

    def __init__(self, *, key: int, given: JSON) -> None:
        kind, data, signature = given.get("type"), given.get("data"), given.get("signature")
        self.key, self.given = key, given
        self.kind = kind if isinstance(kind, str) else ""
        self.start = -1  # where its text begins in the content
        self.citations: list[Any] = []
        self.is_answer = False  # its arguments are the answer's content
        self.mute = False  # a second answer: not told
        self.written = False  # some of its arguments were told
        self.thought = Thought(data=data if self.kind == "redacted_thinking" and isinstance(data, str) else None)
        if isinstance(signature, str):
            self.thought.sign(signature)

    def cite(self, citations: Any) -> None:
        """Note the citations of a text."""
        if isinstance(citations, list) and len(self.citations) < _CITATIONS_MAX:
            self.citations += citations
