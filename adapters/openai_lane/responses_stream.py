"""The Responses API's stream, relayed as received with its `event:` lines; it ends with an event, not with [DONE].

What a stranger would get wrong: `response.failed` and `error` are part of the protocol and go to the client as they are,
unless they come first, when they still can be an HTTP status; a top-level `{"error": …}` is a gateway's and is not.
Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

import re
from typing import Any, ClassVar

from adapters.base import JSON, Call
from adapters.openai_lane.frames import data_of
from adapters.openai_lane.parsing import dumps, parse
from adapters.openai_lane.pass_stream import PassStream, is_done, nothing_said
from adapters.problem import problem_in_success

_MARKS = re.compile(rb'"(?:response\.(?:created|completed|incomplete|failed|output_item\.done)|error)"|\[DONE\]')
_LAST = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})


class ResponsesStream(PassStream):
    """Passes events on; whole when the event that ends a response has come before the upstream closes."""

    ends_with_done: ClassVar[bool] = False

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._response: JSON = {}
        self._items: list[Any] = []
        self._number = -1
        self._whole = False  # the event that ends a response came; the stream itself ends when the upstream closes

    def _pass(self, block: bytes) -> bytes:
        if _MARKS.search(block) is not None:
            return self._each(block)
        self._kept.append(block)
        return block

    def _event(self, event: bytes) -> bytes:
        data = data_of(event)
        if is_done(data):
            return self._end(event)
        chunk = parse(data) if _MARKS.search(data) is not None else None
        if not isinstance(chunk, dict):
            self._kept.append(event)
            return event
        kind = chunk.get("type")
        problem = _first_problem(chunk) if not self.started else None
        if problem is None and not isinstance(kind, str):
            problem = problem_in_success(chunk)
        if problem is not None:
            return self._fail(problem)
        self._kept.append(chunk)
        self._remember(chunk)
        self._whole = self._whole or (isinstance(kind, str) and kind in _LAST)
        return event

    def _remember(self, chunk: JSON) -> None:
        if isinstance(chunk.get("response"), dict):
            self._response = chunk["response"]
        if chunk.get("type") == "response.output_item.done":
            self._items.append(chunk.get("item"))

    def _means_something(self, chunk: Any) -> bool:
        return isinstance(chunk, dict) and isinstance(chunk.get("type"), str) and chunk["type"].startswith("response.")

    def _ended_well(self) -> bool:
        return self._whole

    def _end(self, event: bytes) -> bytes:
        if not self.started:
            return self._fail(nothing_said())
        self.finished = True
        return event

    def _notice(self, chunk: JSON) -> None:
        if isinstance(chunk.get("sequence_number"), int):
            self._number = max(self._number, chunk["sequence_number"])

    def _cut_short(self) -> bytes:
        response: JSON = {
            "id": f"resp_{self._call.call_id}",
            "object": "response",
            "created_at": self._call.created,
            "model": self._call.upstream_model,
            **self._response,
            "status": "incomplete",
            "incomplete_details": {"reason": "max_output_tokens"},
            "output": self._items,
            "usage": self.usage_hint or self._response.get("usage"),
        }
        event = {"type": "response.incomplete", "sequence_number": self._number + 1, "response": response}
        return b"event: response.incomplete\ndata: " + dumps(event) + b"\n\n"


def _first_problem(chunk: JSON) -> Any:
    """Return the error that the very first event tells: flat, at the top, or inside a failed response."""
    if chunk.get("type") == "error":
        return problem_in_success({"error": chunk.get("error") or chunk})
    response = chunk.get("response")
    if chunk.get("type") == "response.failed" and isinstance(response, dict):
        return problem_in_success({"error": response.get("error") or "The provider could not make a response."})
    return None
