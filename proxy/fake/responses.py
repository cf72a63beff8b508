"""OpenAI's responses, in the simple form of one message: an object, or a stream of named and numbered events.

Unlike chat there is no [DONE], and the usage is always told, in the last event.
Source: https://platform.openai.com/docs/api-reference/responses-streaming
"""

from itertools import count

import orjson

from adapters.base import JSON
from proxy.fake.formats import Format
from proxy.fake.plan import Plan
from proxy.fake.script import Script


class Responses(Format):
    """`response` and its events."""

    done = b""

    def __init__(self, plan: Plan, script: Script) -> None:
        super().__init__(plan, script)
        self._numbers = count()

    @property
    def id(self) -> str:
        return "resp_" + self.plan.id

    def begin(self) -> list[bytes]:
        started = self._object("in_progress", [], None)
        item = {"id": "msg_" + self.plan.id, "type": "message", "status": "in_progress", "role": "assistant"}
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        return [
            self._event("response.created", response=started),
            self._event("response.in_progress", response=started),
            self._event("response.output_item.added", output_index=0, item={**item, "content": []}),
            self._part_event("response.content_part.added", part=part),
        ]

    def token(self, index: int, piece: str) -> list[bytes]:
        del index
        return [self._part_event("response.output_text.delta", delta=piece, logprobs=[])]

    def finish(self) -> list[bytes]:
        item = self._item()
        return [
            self._part_event("response.output_text.done", text=self._whole_text(), logprobs=[]),
            self._part_event("response.content_part.done", part=item["content"][0]),
            self._event("response.output_item.done", output_index=0, item=item),
        ]

    def usage(self, usage: JSON | None) -> list[bytes]:
        response = self.whole(usage)
        return [self._event("response." + response["status"], response=response)]

    def whole(self, usage: JSON | None) -> JSON:
        status = "incomplete" if self.plan.choices[0].finish == "length" else "completed"
        return self._object(status, [self._item()], usage)

    def _whole_text(self) -> str:
        return "".join(self.plan.choices[0].pieces)

    def _item(self) -> JSON:
        part = {"type": "output_text", "text": self._whole_text(), "annotations": [], "logprobs": []}
        status = "incomplete" if self.plan.choices[0].finish == "length" else "completed"
        item = {"id": "msg_" + self.plan.id, "type": "message", "status": status, "role": "assistant"}
        return {**item, "content": [part]}

    def _object(self, status: str, output: list[JSON], usage: JSON | None) -> JSON:
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.plan.created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": None,
            "metadata": {},
            "model": self.plan.model,
            "output": output,
            "parallel_tool_calls": True,
            "temperature": 1.0,
            "tool_choice": "auto",
            "tools": [],
            "top_p": 1.0,
            "usage": usage,
        }

    def _part_event(self, kind: str, **fields: object) -> bytes:
        return self._event(kind, item_id="msg_" + self.plan.id, output_index=0, content_index=0, **fields)

    def _event(self, kind: str, **fields: object) -> bytes:
        data = {"type": kind, "sequence_number": next(self._numbers), **fields}
        return b"event: " + kind.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"
