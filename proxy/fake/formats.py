"""OpenAI's shapes for an answer: as a stream of chunks and as a whole, for chat and for the old completions.

The order of a chat stream is OpenAI's: the role first, one chunk for each token, the finish chunk, the usage chunk,
[DONE]; `usage: null` in all others if it was asked for.
Source: https://platform.openai.com/docs/api-reference/chat-streaming
"""

from abc import ABC, abstractmethod

from adapters.base import JSON
from adapters.sse import DONE, encode
from proxy.fake.plan import Choice, Plan
from proxy.fake.script import Script


class Format(ABC):
    """How one planned answer is written. Every method returns whole events."""

    done: bytes = DONE

    def __init__(self, plan: Plan, script: Script) -> None:
        self.plan, self._script = plan, script

    @property
    @abstractmethod
    def id(self) -> str:
        """The id of the answer, with its prefix."""

    @abstractmethod
    def begin(self) -> list[bytes]:
        """Return what comes before the first token."""

    @abstractmethod
    def token(self, index: int, piece: str) -> list[bytes]:
        """Return what one token of one choice is written as."""

    @abstractmethod
    def finish(self) -> list[bytes]:
        """Return what says why the choices ended."""

    @abstractmethod
    def usage(self, usage: JSON) -> list[bytes]:
        """Return what tells the usage."""

    @abstractmethod
    def whole(self, usage: JSON | None) -> JSON:
        """Return the answer as one object; without a usage if None."""


class Chat(Format):
    """`chat.completion` and its chunks."""

    @property
    def id(self) -> str:
        return "chatcmpl-" + self.plan.id

    def begin(self) -> list[bytes]:
        return [self._delta(index, self._role(choice)) for index, choice in enumerate(self.plan.choices)]

    def token(self, index: int, piece: str) -> list[bytes]:
        delta: JSON = {"role": "assistant"} if self._script.role_every else {}
        if self.plan.choices[index].tool:
            delta["tool_calls"] = [{"index": 0, "function": {"arguments": piece}}]
        else:
            delta["content"] = piece
        return [self._delta(index, delta)]

    def finish(self) -> list[bytes]:
        return [self._delta(index, {}, choice.finish) for index, choice in enumerate(self.plan.choices)]

    def usage(self, usage: JSON) -> list[bytes]:
        return [encode({**self._head("chat.completion.chunk"), "choices": [], "usage": usage})]

    def whole(self, usage: JSON | None) -> JSON:
        choices = [self._choice(index, choice) for index, choice in enumerate(self.plan.choices)]
        told = {} if usage is None else {"usage": usage}
        return {**self._head("chat.completion"), "choices": choices, **told}

    def _role(self, choice: Choice) -> JSON:
        if choice.tool is None:
            return {"role": "assistant", "content": "", "refusal": None}
        function = {"name": choice.tool, "arguments": ""}
        call = {"index": 0, "id": "call_" + self.plan.id, "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None}

    def _choice(self, index: int, choice: Choice) -> JSON:
        text = "".join(choice.pieces)
        message: JSON = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
        if choice.tool is not None:
            call = {"id": "call_" + self.plan.id, "type": "function"}
            message["content"] = None
            message["tool_calls"] = [{**call, "function": {"name": choice.tool, "arguments": text}}]
        return {"index": index, "message": message, "logprobs": None, "finish_reason": choice.finish}

    def _delta(self, index: int, delta: JSON, finish: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage = {"usage": None} if self.plan.include_usage else {}
        return encode({**self._head("chat.completion.chunk"), "choices": [choice], **usage})

    def _head(self, kind: str) -> JSON:
        return {
            "id": self.id,
            "object": kind,
            "created": self.plan.created,
            "model": self.plan.model,
            "service_tier": "default",
            "system_fingerprint": "fp_fake",
        }


class Completions(Format):
    """`text_completion`, whose chunks have the same name and no deltas."""

    @property
    def id(self) -> str:
        return "cmpl-" + self.plan.id

    def begin(self) -> list[bytes]:
        return []

    def token(self, index: int, piece: str) -> list[bytes]:
        return [self._chunk(index, piece, None)]

    def finish(self) -> list[bytes]:
        return [self._chunk(index, "", choice.finish) for index, choice in enumerate(self.plan.choices)]

    def usage(self, usage: JSON) -> list[bytes]:
        return [encode({**self._head(), "choices": [], "usage": usage})]

    def whole(self, usage: JSON | None) -> JSON:
        choices = [_text(index, "".join(c.pieces), c.finish) for index, c in enumerate(self.plan.choices)]
        return {**self._head(), "choices": choices, **({} if usage is None else {"usage": usage})}

    def _chunk(self, index: int, text: str, finish: str | None) -> bytes:
        usage = {"usage": None} if self.plan.include_usage else {}
        return encode({**self._head(), "choices": [_text(index, text, finish)], **usage})

    def _head(self) -> JSON:
        created, model = self.plan.created, self.plan.model
        return {"id": self.id, "object": "text_completion", "created": created, "model": model}


def _text(index: int, text: str, finish: str | None) -> JSON:
    return {"index": index, "text": text, "logprobs": None, "finish_reason": finish}
