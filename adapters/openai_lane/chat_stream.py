"""Chat and legacy completions, relayed as received: the fast lane.

Only a piece in whose bytes one of a few words occurs is looked at event by event. What a stranger would get wrong: inside
JSON text a quote is escaped, so `"usage"` or `"error"` with bare quotes is always a key or a whole value, never content;
but `[DONE]` may well be content, so it is looked at.
"""

import re
from typing import Any

from adapters.base import JSON, Call
from adapters.openai_lane.frames import data_of, events
from adapters.openai_lane.parsing import dumps, parse
from adapters.openai_lane.pass_stream import is_done, nothing_said
from adapters.openai_lane.shaped_stream import ShapedStream
from adapters.openai_lane.thoughts import Thoughts
from adapters.problem import problem_in_success
from adapters.repair import raise_by_reasoning
from adapters.sse import DONE
from adapters.writer import usage_at_cut

_USAGE = re.compile(rb'"usage"\s*:\s*\{')


class ChatStream(ShapedStream):
    """Passes events on; hides the usage chunk that the client did not ask for; knows when the answer is whole."""

    def __init__(
        self, call: Call, *, reasoning_apart: bool = False, fill_first: bool = False, thoughts: Thoughts | None = None
    ) -> None:
        super().__init__(call, thoughts)
        self._apart, self._fill = reasoning_apart, fill_first
        self._hide = not call.show_usage
        self._finished_choices: dict[int, bool] = {}
        self._first: JSON | None = None
        self._usage: JSON | None = None

    def _pass(self, block: bytes) -> bytes:
        at = self._skim(block)
        if at == len(block):
            return block
        rest = block[at:] if at else block
        if (
            b"[DONE]" in rest
            or b'"error"' in rest
            or (self._hide and b'"usage"' in rest and _USAGE.search(rest) is not None)
        ):
            return block[:at] + self._each(rest)
        self._kept.append(rest)
        before = rest.rfind(b"\n\n", 0, -2)
        self._learn_shape(rest[before + 2 :] if before >= 0 else rest)
        return block

    def _event(self, event: bytes) -> bytes:
        data = data_of(event)
        if is_done(data):
            return self._end(event)
        if b'"error"' in data:
            problem = problem_in_success(parse(data))
            if problem is not None:
                return self._fail(problem)
        self._kept.append(event)
        if self._hide and _USAGE.search(data) is not None:
            chunk = parse(data)
            if isinstance(chunk, dict) and not chunk.get("choices") and chunk.get("usage"):
                return b""
        return event

    def _begin(self, block: bytes) -> bytes:
        out = super()._begin(block)
        return self._filled(out) if self._fill and out else out

    def _means_something(self, chunk: Any) -> bool:
        return isinstance(chunk, dict) and bool(chunk.get("choices"))

    def _ended_well(self) -> bool:
        self._kept.extend(self._read_all())
        return bool(self._finished_choices) and all(self._finished_choices.values())

    def _end(self, event: bytes) -> bytes:
        if not self.started and not any(data_of(held) for held in self._held):
            return self._fail(nothing_said())
        self.finished = True
        return event or DONE

    def _notice(self, chunk: JSON) -> None:
        if isinstance(chunk.get("usage"), dict):
            self._usage = chunk["usage"]
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            return
        if self._first is None and choices and chunk.get("id"):
            self._first = {k: chunk.get(k) for k in ("id", "object", "created", "model")}
        for choice in choices:
            if isinstance(choice, dict) and isinstance(choice.get("index"), int):
                index, done = choice["index"], choice.get("finish_reason") is not None
                self._finished_choices[index] = self._finished_choices.get(index, False) or done

    def _for_meter(self, chunk: JSON) -> JSON:
        if self._apart and isinstance(chunk.get("usage"), dict):
            raise_by_reasoning(chunk["usage"])
        return chunk

    def _identity(self) -> JSON:
        legacy = self._call.operation == "completions"
        own = {
            "id": f"{'cmpl' if legacy else 'chatcmpl'}-{self._call.call_id}",
            "object": "text_completion" if legacy else "chat.completion.chunk",
            "created": self._call.created,
            "model": self._call.upstream_model,
        }
        return own | {k: v for k, v in (self._first or {}).items() if v}

    def _cut_short(self) -> bytes:
        base, tail = self._identity(), {"usage": None} if self._call.show_usage else {}
        body: JSON = {"text": ""} if self._call.operation == "completions" else {"delta": {}}
        open_choices = sorted(i for i, done in self._finished_choices.items() if not done)
        if not self._finished_choices:
            open_choices = [0]
        out = [
            {**base, "choices": [{"index": i, **body, "logprobs": None, "finish_reason": "length"}], **tail}
            for i in open_choices
        ]
        usage = usage_at_cut(self._usage, self.usage_hint)
        told = [{**base, "choices": [], "usage": usage}] if usage is not None else []
        self._kept += out + told
        out += told if self._call.show_usage else []
        return b"".join(b"data: " + dumps(chunk) + b"\n\n" for chunk in out) + DONE

    def _filled(self, out: bytes) -> bytes:
        """Give Azure's first chunk, which has no id, model and object, those of the second; its filter results stay."""
        self._kept.extend(self._read_all())
        known = self._identity()
        new = []
        for event in events(out):
            chunk = parse(data_of(event))
            if isinstance(chunk, dict) and chunk.get("choices") == [] and not (chunk.get("id") and chunk.get("object")):
                filled = {**chunk, **{k: v for k, v in known.items() if not chunk.get(k)}}
                new.append(b"data: " + dumps(filled) + b"\n\n")
            else:
                new.append(event)
        return b"".join(new)
