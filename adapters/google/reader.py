"""Reads GenerateContentResponses, one or many, and tells a sink what they say: the same for whole answers and streams.

Each response of a stream is a whole object with the next few parts. A candidate's `index`, `content` and `parts` may be
absent; calls have no id as a rule; the reason of the end often comes after the call, alone. A call is never
told apart by its place in `parts` or by its name. Source: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse
"""

import hashlib
from collections.abc import Hashable
from typing import Protocol

from adapters.base import JSON
from adapters.google.finish import finish_of, is_unusual
from adapters.google.grounding import annotations_of, logprobs_of
from adapters.google.partial import PartialArguments, json_text
from adapters.google.usage import usage_of
from adapters.lenient import items, member, string

SIGNATURE_FORMAT = "google-gemini-v1"  # in reasoning_details, so that no other provider is sent Google's signatures
PARTS_MAX = 1000
TEXT_BYTES_MAX = 4 * 1024 * 1024  # of a choice's text, kept to place its citations


class Sink(Protocol):
    """What is told of an answer; `adapters.writer.ChunkWriter` is one."""

    def role(self, choice: int = 0) -> None: ...
    def text(self, text: str, choice: int = 0) -> None: ...
    def refusal(self, text: str, choice: int = 0) -> None: ...
    def reasoning(self, text: str, choice: int = 0) -> None: ...
    def extension(self, delta: JSON, choice: int = 0) -> None: ...
    def finish(self, reason: str, choice: int = 0) -> None: ...
    def logprobs(self, content: list[JSON], choice: int = 0) -> None: ...
    def arguments(self, key: Hashable, fragment: str, choice: int = 0) -> None: ...
    def tool(self, key: Hashable, *, id: str, name: str, choice: int = 0, extra: JSON | None = None) -> None: ...  # noqa: A002


class _Choice:
    """What one candidate has said so far."""

    def __init__(self) -> None:
        self.calls = 0
        self.partial: PartialArguments | None = None  # of the last call, while it goes on
        self.text = bytearray()
        self.part_starts: list[int] = []
        self.signature = ""  # of the text
        self.native = ""
        self.message = ""
        self.grounding: JSON = {}
        self.images = 0
        self.spoke = False


class Reader:
    """Reads the responses of one call in order, then is closed."""

    def __init__(self, sink: Sink, *, call_id: str, choices_max: int = 1, legacy: bool = False) -> None:
        self._sink, self._call_id, self._legacy = sink, call_id, legacy
        self._choices_max = choices_max
        self._choices: dict[int, _Choice] = {}
        self._ids: set[str] = set()
        self.signatures: dict[str, str] = {}  # the id of a call -> the signature that must come back with it
        self.usage: JSON | None = None
        self.blocked = False

    def read(self, response: JSON) -> None:
        """Take one response."""
        self.usage = usage_of(response.get("usageMetadata")) or self.usage
        for place, candidate in enumerate(items(response.get("candidates"))):
            index = candidate.get("index", place)
            if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < self._choices_max:
                index = min(place, self._choices_max - 1)
            self._candidate(index, candidate)
        feedback = member(response, "promptFeedback")
        if feedback.get("blockReason") and not self._choices:
            self.blocked = True
            reason = string(feedback.get("blockReason"))
            text = string(feedback.get("blockReasonMessage")) or f"The provider blocked the prompt: {reason}."
            self._sink.refusal(text)
            self._sink.finish("content_filter")

    @property
    def begun(self) -> bool:
        """True when there is anything that a client can be told."""
        return self.blocked or bool(self._choices)

    @property
    def complete(self) -> bool:
        """True when every candidate that began has said why it ended."""
        return self.blocked or (bool(self._choices) and all(c.native for c in self._choices.values()))

    def close(self) -> None:
        """Tell what can only be told at the end: calls that were still open, citations, the reasons of the end."""
        for index, state in sorted(self._choices.items()):
            self._close_partial(index, state, cut=state.native == "MAX_TOKENS")
            extension = self._last_words(state)
            if extension:
                self._sink.extension(extension, index)
            self._sink.finish(finish_of(state.native, called=state.calls > 0, legacy=self._legacy), index)

    def cut(self) -> None:
        """Tell what is left when the answer ends here by Bursar's own will: open calls, as cut short as they are."""
        for index, state in sorted(self._choices.items()):
            self._close_partial(index, state, cut=True)
            if state.native:
                self._sink.finish(finish_of(state.native, called=state.calls > 0, legacy=self._legacy), index)

    # one candidate -----------------------------------------------------------------------------------------------

    def _candidate(self, index: int, candidate: JSON) -> None:
        state = self._choices.setdefault(index, _Choice())
        self._sink.role(index)
        for part in items(member(candidate, "content").get("parts")):
            self._part(index, state, part)
        logprobs = logprobs_of(candidate.get("logprobsResult"))
        if logprobs:
            self._sink.logprobs(logprobs, index)
        state.native = string(candidate.get("finishReason")) or state.native
        state.message = string(candidate.get("finishMessage")) or state.message
        grounding = member(candidate, "groundingMetadata")
        if grounding.get("groundingChunks"):
            state.grounding = grounding

    def _part(self, index: int, state: _Choice, part: JSON) -> None:
        signature = string(part.get("thoughtSignature"))
        if len(state.part_starts) < PARTS_MAX:
            state.part_starts.append(len(state.text))
        if isinstance(part.get("functionCall"), dict):
            self._call(index, state, part["functionCall"], signature)
            return
        text = string(part.get("text"))
        if part.get("thought") is True:
            self._sink.reasoning(text, index)
        elif isinstance(part.get("inlineData"), dict):
            self._media(index, state, part["inlineData"])
        elif text:
            if len(state.text) < TEXT_BYTES_MAX:
                state.text += text.encode("utf-8", "replace")
            self._sink.text(text, index)
        if signature and "text" in part:
            state.signature = signature

    def _call(self, index: int, state: _Choice, call: JSON, signature: str) -> None:
        name, goes_on = string(call.get("name")), call.get("willContinue") is True
        if name:
            self._close_partial(index, state, cut=False)
            self._open(index, state, call, signature)
            if not goes_on and not call.get("partialArgs"):
                self._arguments(index, state, json_text(call.get("args")))
                return
            state.partial = PartialArguments()
        if state.partial is None:
            return  # the empty part that ends a call, or the rest of one that never had a name
        state.partial.merge(call.get("args"))
        state.partial.add(call.get("partialArgs"))
        if not goes_on:
            self._close_partial(index, state, cut=False)

    def _open(self, index: int, state: _Choice, call: JSON, signature: str) -> None:
        call_id = string(call.get("id"))
        if not call_id or call_id in self._ids:
            call_id = minted_id(self._call_id, index, state.calls)
        self._ids.add(call_id)
        state.calls += 1
        extra: JSON = {}
        if signature:
            self.signatures[call_id] = signature
            extra = {"extra_content": {"google": {"thought_signature": signature}}}
        name = string(call.get("name"))
        if not self._legacy:
            self._sink.tool(state.calls, id=call_id, name=name, choice=index, extra=extra)
        elif state.calls == 1:
            self._sink.extension({"function_call": {"name": name, "arguments": ""}}, index)

    def _arguments(self, index: int, state: _Choice, text: str) -> None:
        if not self._legacy:
            self._sink.arguments(state.calls, text, index)
        elif state.calls == 1:  # the old form has room for one call
            self._sink.extension({"function_call": {"arguments": text}}, index)

    def _close_partial(self, index: int, state: _Choice, *, cut: bool) -> None:
        if state.partial is not None:
            self._arguments(index, state, state.partial.text(cut=cut))
            state.partial = None

    def _media(self, index: int, state: _Choice, media: JSON) -> None:
        mime, data = string(media.get("mimeType")), string(media.get("data"))
        if mime.startswith("audio/"):
            first = {} if state.spoke else {"id": f"audio_{self._call_id}"}
            state.spoke = True
            self._sink.extension({"audio": {**first, "data": data}}, index)
        elif data:
            image = {"index": state.images, "type": "image_url", "image_url": {"url": f"data:{mime};base64,{data}"}}
            state.images += 1
            self._sink.extension({"images": [image]}, index)

    def _last_words(self, state: _Choice) -> JSON:
        words: JSON = {}
        annotations = annotations_of(state.grounding, bytes(state.text), state.part_starts) if state.grounding else []
        if annotations:
            words["annotations"] = annotations
        if state.signature:
            detail = {"index": 0, "type": "reasoning.encrypted", "data": state.signature, "format": SIGNATURE_FORMAT}
            words["reasoning_details"] = [detail]
        if is_unusual(state.native):
            words["native_finish_reason"] = state.native
            if state.message:
                words["native_finish_message"] = state.message
        return words


def minted_id(call_id: str, choice: int, place: int) -> str:
    """Return the id of a call that came without: always the same for the same request."""
    seed = f"{call_id}/{choice}/{place}".encode()
    return "call_" + hashlib.sha256(seed).hexdigest()[:24]


def is_minted(tool_id: str) -> bool:
    """Tell whether an id is of the form that `minted_id` gives; the provider does not know such ids."""
    return len(tool_id) == 29 and tool_id.startswith("call_") and not set(tool_id[5:]) - set("0123456789abcdef")  # noqa: PLR2004
