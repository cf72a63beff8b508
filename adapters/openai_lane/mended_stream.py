"""Chat streams of servers that are to be repaired: each event is mended, or passed on byte for byte if it needs nothing.

What a stranger would get wrong: reading every event as JSON is what makes this lane dear, so an event that differs from
the last well-formed one only inside its `content` string is recognised by its bytes. Usage is sent last whatever came
after it, so a usage chunk waits for the stream's end.
"""

import re
from typing import Any

from adapters.base import JSON, Call
from adapters.errors import UpstreamError, UpstreamProtocolError
from adapters.openai_lane.frames import BOM, data_of, field_names, is_one_data_line
from adapters.openai_lane.parsing import dumps, parse, parse_soundly
from adapters.openai_lane.pass_stream import is_done, nothing_said
from adapters.openai_lane.runs import INNER, is_text
from adapters.openai_lane.shaped_stream import ShapedStream
from adapters.openai_lane.thoughts import Thoughts
from adapters.problem import problem_in_success
from adapters.repair_chunks import StreamState, endings, repair_chunk, usage_chunk
from adapters.sse import DONE
from adapters.writer import usage_at_cut

_CONTENT = re.compile(rb'"delta"\s*:\s*\{\s*"content"\s*:\s*"')
_USUAL = {b"data", b""}  # the fields that an event may have; b"" is a comment
_EARLY_MAX = 16
_OF_A_CHUNK = ("choices", "usage", "id", "object")


class MendedStream(ShapedStream):
    """As `ShapedStream`, with `adapters.repair_chunks` on every event."""

    def __init__(self, call: Call, *, reasoning_apart: bool = False, thoughts: Thoughts | None = None) -> None:
        super().__init__(call, thoughts)
        self._state = StreamState(call, reasoning_apart)
        self._usage_event = b""  # the provider's own usage chunk, if it can be sent as it came
        self._told: JSON | None = None
        self._like: tuple[bytes, bytes] | None = None
        self._early: list[tuple[JSON, bytes]] = []

    def _pass(self, block: bytes) -> bytes:
        at = self._skim(block)
        if at == len(block):
            return block
        return block[:at] + self._each(block[at:])

    def _event(self, event: bytes) -> bytes:
        event = event.lstrip(b"\r\n")  # more blank lines than one say nothing, and where they end depends on the pieces
        if not event:
            return b""
        if self._skim(event) == len(event):
            return event
        if self._like is not None and self._is_like_the_last(event, *self._like):
            self._kept.append(event)
            return event
        data = data_of(event)
        if is_done(data):
            return self._end(event)
        if not data.strip():
            return event if field_names(event) <= {b""} else b""
        chunk, sound = parse_soundly(data)
        if not isinstance(chunk, dict):
            return self._fail(UpstreamProtocolError("The provider's stream is not in OpenAI's format."))
        problem = problem_in_success(chunk) or _broken_off(chunk)
        if problem is not None:
            return self._fail(problem)
        if chunk.keys().isdisjoint(_OF_A_CHUNK):
            return b""  # a ping, or something else that is no chunk
        if not self.started and not chunk.get("choices") and not chunk.get("usage") and len(self._early) < _EARLY_MAX:
            self._early.append((chunk, event))  # mended when the stream's id and model are known
            return b""
        early = self._early_ones(chunk) if self._early else b""
        return early + self._chunk(chunk, event if sound else b"")  # what is not sound is written anew

    def _chunk(self, chunk: JSON, event: bytes) -> bytes:
        is_usage = chunk.get("choices") == [] and isinstance(chunk.get("usage"), dict)
        own_usage = chunk.get("usage")
        out, changed = repair_chunk(chunk, self._state)
        self._kept.extend(out)
        if self._state.usage is not None and self._state.usage is not self._told:
            self._told = self._state.usage
            self._kept.append(usage_chunk(self._state, self._told))  # at once: a stream that breaks off was used too
            same = is_usage and dumps(self._told) == dumps(own_usage) and _is_usual(event)
            self._usage_event = event if same and not _other_change(chunk, data_of(event)) else b""
        if not changed and _is_usual(event):
            self._learn(chunk, event)
            return event
        return b"".join(b"data: " + dumps(one) + b"\n\n" for one in out)

    def _early_ones(self, chunk: JSON) -> bytes:
        """Return the chunks without content that came before the first real one, with its id, model and time."""
        early, self._early = self._early, []
        known = {k: chunk[k] for k in ("id", "model", "created") if chunk.get(k)}
        out = []
        for one, event in early:
            filled = {**one, "object": "chat.completion.chunk", **known}
            out.append(self._chunk(filled, event if filled == one else b""))
        return b"".join(out)

    def _means_something(self, chunk: Any) -> bool:
        return isinstance(chunk, dict) and bool(chunk.get("choices"))

    def _ended_well(self) -> bool:
        choices = self._state.choices.values()
        return bool(choices) and all(choice.finish is not None for choice in choices)

    def _end(self, event: bytes) -> bytes:
        if not self._state.choices:
            return self._fail(nothing_said())
        self.finished = True
        out = self._early_ones({})
        last = endings(self._state)
        self._kept.extend(last)
        out += b"".join(b"data: " + dumps(chunk) + b"\n\n" for chunk in last) + self._usage_last()
        return out + (event if _is_usual(event) else DONE)

    def _cut_short(self) -> bytes:
        last = endings(self._state, "length")
        if not self._state.choices:
            choice: JSON = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": "length"}
            last = repair_chunk({"choices": [choice]}, self._state)[0]
        self._kept.extend(last)
        usage = usage_at_cut(self._state.usage, self.usage_hint)
        if usage is not None and usage is not self._state.usage:
            self._state.usage, self._usage_event = usage, b""
            self._kept.append(usage_chunk(self._state, usage))
        return b"".join(b"data: " + dumps(chunk) + b"\n\n" for chunk in last) + self._usage_last() + DONE

    def _usage_last(self) -> bytes:
        if not self._call.show_usage or self._state.usage is None:
            return b""
        return self._usage_event or b"data: " + dumps(usage_chunk(self._state, self._state.usage)) + b"\n\n"

    # events that differ in nothing but their text ----------------------------------------------------------------

    def _learn(self, chunk: JSON, event: bytes) -> None:
        """Know events like this one again, which was right as it came: so are they, whatever their text."""
        self._like = None
        choices = chunk["choices"]
        if len(choices) != 1 or choices[0].get("finish_reason") is not None or choices[0]["delta"].get("role"):
            return
        self._learn_shape(event, chunk)
        start = _CONTENT.search(event) if choices[0]["delta"].keys() == {"content"} else None
        inner = INNER.match(event, start.end()) if start is not None else None
        if start is not None and inner is not None:
            self._like = event[: start.end()], event[inner.end() :]

    def _is_like_the_last(self, event: bytes, before: bytes, after: bytes) -> bool:
        if not (event.startswith(before) and event.endswith(after) and len(event) >= len(before) + len(after)):
            return False
        inner = INNER.fullmatch(event, len(before), len(event) - len(after))
        return inner is not None and is_text(inner[0])


def _is_usual(event: bytes) -> bool:
    if is_one_data_line(event):
        return True
    return bool(event) and field_names(event) <= _USUAL and not event.startswith(BOM)  # SDKs lose an event with a BOM


def _broken_off(chunk: JSON) -> UpstreamError | None:
    """Return the error of a provider that says it in the finish reason, or inside a choice."""
    choices = chunk.get("choices")
    for choice in choices if isinstance(choices, list) else []:
        if isinstance(choice, dict) and (choice.get("error") or choice.get("finish_reason") == "error"):
            found = problem_in_success({"error": choice.get("error") or "The provider broke off with an error."})
            return found or UpstreamProtocolError("The provider broke off with an error.")
    return None


def _other_change(chunk: JSON, data: bytes) -> bool:
    """Tell whether a chunk was changed in anything but the usage that was taken from it."""
    before = parse(data)
    return not isinstance(before, dict) or {k: v for k, v in before.items() if k != "usage"} != chunk
