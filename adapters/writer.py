"""Writes OpenAI's chunk stream for translated providers, so that every rule of the format is kept in one place.

The rules (S1 to S11): role once and first; tool indexes 0, 1, 2 … in order of appearance; id, type and name once per
call; one finish chunk per choice, after its content; usage last and only if asked for; then [DONE]; constant id, created
and model. A translator says what it read (`text`, `tool`, `arguments`, `finish` …) and never builds a chunk itself.
Source: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from collections.abc import Hashable
from typing import Any

from adapters.base import JSON
from adapters.sse import DONE, encode


class _Choice:
    """What one choice has said so far."""

    __slots__ = ("arguments", "finish", "tools")

    def __init__(self) -> None:
        self.tools: dict[Hashable, int] = {}  # the translator's own key of a call -> its index
        self.arguments: list[bool] = []  # per index: has any argument text been written
        self.finish: str | None = None


class ChunkWriter:
    """Collects the bytes and the chunks of one stream. `id`, `model`, `created` are fixed by the first chunk."""

    def __init__(self, *, id: str, model: str, created: int, show_usage: bool) -> None:  # noqa: A002 - the wire's word
        self.id, self.model, self.created = id, model, created
        self._show_usage = show_usage
        self._choices: dict[int, _Choice] = {}
        self._usage: JSON | None = None
        self._out: list[bytes] = []
        self._chunks: list[JSON] = []
        self._extra: JSON = {}
        self.done = False

    # what the translator read ------------------------------------------------------------------------------------

    def role(self, choice: int = 0) -> None:
        """Introduce a choice; all lower ones are introduced before it."""
        for index in range(choice + 1):
            if index not in self._choices:
                self._choices[index] = _Choice()
                self._emit(index, {"role": "assistant", "content": ""})

    def text(self, text: str, choice: int = 0) -> None:
        """Write a piece of the answer's text; nothing if it is empty."""
        if text:
            self.role(choice)
            self._emit(choice, {"content": text})

    def refusal(self, text: str, choice: int = 0) -> None:
        """Write a piece of a refusal."""
        if text:
            self.role(choice)
            self._emit(choice, {"refusal": text})

    def reasoning(self, text: str, choice: int = 0) -> None:
        """Write a piece of the model's visible reasoning."""
        if text:
            self.role(choice)
            self._emit(choice, {"reasoning_content": text})

    def logprobs(self, content: list[JSON], choice: int = 0) -> None:
        """Write the log probabilities of tokens, in OpenAI's form, in a chunk of their own."""
        if content:
            self.role(choice)
            self._emit(choice, {}, logprobs={"content": content, "refusal": None})

    def extension(self, delta: JSON, choice: int = 0) -> None:
        """Write fields beyond OpenAI's; a list of objects in it must carry an integer `index` in each."""
        self.role(choice)
        self._emit(choice, delta)

    def tool(self, key: Hashable, *, id: str, name: str, choice: int = 0, extra: JSON | None = None) -> None:  # noqa: A002
        """Open a tool call; `key` is how the translator will name it in `arguments`."""
        self.role(choice)
        state = self._choices[choice]
        index = state.tools[key] = len(state.arguments)
        state.arguments.append(False)
        call = {
            "index": index,
            "id": id,
            "type": "function",
            "function": {"name": name, "arguments": ""},
            **(extra or {}),
        }
        self._emit(choice, {"tool_calls": [call]})

    def arguments(self, key: Hashable, fragment: str, choice: int = 0) -> None:
        """Write a fragment of a call's arguments, as the provider sent it."""
        if fragment:
            state = self._choices[choice]
            index = state.tools[key]
            state.arguments[index] = True
            self._emit(choice, {"tool_calls": [{"index": index, "function": {"arguments": fragment}}]})

    def close_tool(self, key: Hashable, choice: int = 0) -> None:
        """End a call; one that had no arguments gets `{}`, since clients parse them."""
        state = self._choices[choice]
        if not state.arguments[state.tools[key]]:
            self.arguments(key, "{}", choice)

    def has_tool(self, key: Hashable, choice: int = 0) -> bool:
        """Tell whether `tool` was called with this key."""
        return choice in self._choices and key in self._choices[choice].tools

    def tool_count(self, choice: int = 0) -> int:
        """Return how many calls the choice has opened."""
        return len(self._choices[choice].arguments) if choice in self._choices else 0

    def finish(self, reason: str, choice: int = 0) -> None:
        """Note why a choice ended; it is written by `end`, after all content. The first reason stays."""
        self.role(choice)
        self._choices[choice].finish = self._choices[choice].finish or reason

    def usage(self, usage: JSON) -> None:
        """Note the usage in OpenAI's form; the last one wins."""
        self._usage = usage

    def at_least(self, hint: JSON | None) -> None:
        """Let the usage be no less than `hint`, for a stream that ends before the provider could tell all of it."""
        self._usage = usage_at_cut(self._usage, hint)

    def also(self, **fields: Any) -> None:
        """Set top-level keys (`service_tier`, `system_fingerprint`) of all chunks from here on."""
        self._extra.update(fields)

    @property
    def finish_known(self) -> bool:
        """True when every choice that began has said why it ended."""
        return bool(self._choices) and all(c.finish for c in self._choices.values())

    # what leaves -------------------------------------------------------------------------------------------------

    def end(self, default_reason: str | None = None) -> None:
        """Write the finish chunks, the usage if it was asked for, and [DONE]; afterwards nothing is written."""
        if self.done:
            return
        self.role()
        for index in sorted(self._choices):
            choice = self._choices[index]
            for key in choice.tools:
                if default_reason is None:  # a stream that was cut keeps its partial arguments as they are
                    self.close_tool(key, index)
            self._emit(index, {}, choice.finish or default_reason or "stop")
        if self._usage is not None:
            chunk = self._chunk([], usage=self._usage)
            self._chunks.append(chunk)
            if self._show_usage:
                self._out.append(encode(chunk))
        self._out.append(DONE)
        self.done = True

    def drain(self) -> bytes:
        """Return the bytes written since the last call."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def take(self) -> list[JSON]:
        """Return the chunks written since the last call, the hidden usage chunk included."""
        chunks, self._chunks = self._chunks, []
        return chunks

    def _emit(self, index: int, delta: JSON, finish: str | None = None, logprobs: JSON | None = None) -> None:
        if self.done:
            return
        choice: JSON = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
        chunk = self._chunk([choice], usage=None)
        self._chunks.append(chunk)
        self._out.append(encode(chunk))

    def _chunk(self, choices: list[JSON], usage: JSON | None) -> JSON:
        chunk: JSON = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
            **self._extra,
        }
        if self._show_usage or usage is not None:
            chunk["usage"] = usage
        return chunk


def usage_at_cut(told: JSON | None, hint: JSON | None) -> JSON | None:
    """Return the usage of a stream that Bursar ends: what the provider told, but no less output than was counted."""
    if told is None or hint is None:
        return told or hint
    prompt, said, counted = (
        told.get("prompt_tokens") or 0, told.get("completion_tokens") or 0, hint.get("completion_tokens") or 0
    )  # fmt: skip
    if counted <= said:
        return told
    return {**told, "completion_tokens": counted, "total_tokens": prompt + counted}
