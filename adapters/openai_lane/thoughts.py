"""Reasoning that led to tool calls, kept for the clients that drop it: DeepSeek and Kimi want it back with the next turn.

What a stranger would get wrong: Kimi's tool ids (`functions.f:0`) are the same in every conversation, so an id alone must
never be the key: the reasoning is kept under the whole conversation that led to it, which only who had it can repeat.
Sources: https://api-docs.deepseek.com/guides/thinking_mode, https://platform.moonshot.ai/docs
"""

import hashlib
from typing import Any

from adapters.base import JSON
from adapters.errors import InvalidRequestError
from adapters.exact import dumps_exact
from adapters.memory import Memory

CHARS_MAX = 256 * 1024  # of one choice's reasoning
CHOICES_MAX = 8


class Thoughts:
    """The memory as one call sees it. `recalled` is by the place of the message; what is heard is kept when its calls are."""

    def __init__(self, memory: Memory, messages: object) -> None:
        self._memory = memory
        self._reasoning: dict[int, list[str]] = {}
        self._chars: dict[int, int] = {}
        self._first_id: dict[int, str] = {}
        self.recalled: dict[int, str] = {}
        self._conversation = self._read(messages if isinstance(messages, list) else [])

    def completion(self, completion: JSON) -> None:
        """Hear a whole answer."""
        self.chunk(completion, part="message")

    def chunk(self, chunk: JSON, part: str = "delta") -> None:
        """Hear one chunk of a stream."""
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            said = choice.get(part) if isinstance(choice, dict) else None
            index = choice.get("index", 0) if isinstance(choice, dict) else None
            if isinstance(said, dict) and isinstance(index, int) and 0 <= index < CHOICES_MAX:
                self._hear(index, said)
                if choice.get("finish_reason") is not None:
                    self._keep(index)

    def _hear(self, index: int, said: JSON) -> None:
        text = said.get("reasoning_content", said.get("reasoning"))
        if isinstance(text, str) and text:
            size = self._chars[index] = self._chars.get(index, 0) + len(text)
            if size <= CHARS_MAX:
                self._reasoning.setdefault(index, []).append(text)
        if index not in self._first_id:
            first = _first_id(said)
            if first:
                self._first_id[index] = first

    def _keep(self, index: int) -> None:
        reasoning, first = self._reasoning.pop(index, None), self._first_id.get(index)
        if reasoning and first and self._chars[index] <= CHARS_MAX:
            self._memory.remember(_key(self._conversation, first), "".join(reasoning))

    def _read(self, messages: list[Any]) -> bytes:
        """Find what is remembered for each turn with calls that comes without; return the conversation's digest."""
        so_far = hashlib.sha256()
        for place, message in enumerate(messages):
            if isinstance(message, dict) and message.get("role") == "assistant":
                first = _first_id(message)
                found = self._memory.recall(_key(so_far.digest(), first)) if first else None
                if isinstance(found, str):
                    self.recalled[place] = found
            try:
                so_far.update(dumps_exact(_plain(message)) + b"\n")
            except InvalidRequestError:  # nested too deeply to be written; then nothing is found for what follows
                so_far.update(b"?\n")
        return so_far.digest()


def _plain(message: Any) -> Any:
    """Return a message without what some clients echo and others drop."""
    if not isinstance(message, dict):
        return message
    return {
        key: value for key, value in sorted(message.items()) if not key.startswith("reasoning") and value is not None
    }


def _first_id(message: JSON) -> str:
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        own = call.get("id") if isinstance(call, dict) else None
        if isinstance(own, str) and own:
            return own
    return ""


def _key(conversation: bytes, tool_id: str) -> str:
    return f"{conversation.hex()}/{tool_id}"
