"""A whole GenerateContentResponse as an OpenAI completion.

A blocked prompt has no candidates: the client gets one choice that says `content_filter`, with a refusal in words. An
answer with neither is no answer. Source: https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse
"""

import base64
import binascii
import struct
from collections.abc import Hashable

from adapters.base import JSON, Answer, Call
from adapters.errors import UpstreamProtocolError
from adapters.exact import dumps_exact
from adapters.google.errors import error_of, has_error
from adapters.google.reader import Reader
from adapters.google.usage import tier_of
from adapters.lenient import loads, string
from adapters.messages import wants_legacy

CHOICES_MAX = 128  # what OpenAI allows for n
AUDIO_SECONDS = 3600  # OpenAI's audio can be referred to for a while; ours cannot, but the field is required
_PCM_RATE = 24_000


def answer_of(body: bytes, call: Call) -> tuple[Answer, dict[str, str]]:
    """Translate a 2xx answer; also return the signatures to remember, by the ids of the calls that they belong to.

    Raises UpstreamError (an error object in a 200) and UpstreamProtocolError.
    """
    response = response_of(body)
    message = Message(call)
    reader = Reader(message, call_id=call.call_id, choices_max=choices_of(call), legacy=wants_legacy(call.body))
    reader.read(response)
    if not reader.begun:
        raise UpstreamProtocolError("The provider's answer holds neither a candidate nor a reason for its absence.")
    reader.close()
    completion: JSON = {
        "id": string(response.get("responseId")) or f"chatcmpl-{call.call_id}",
        "object": "chat.completion",
        "created": call.created,
        "model": string(response.get("modelVersion")) or call.upstream_model,
        "choices": message.choices(),
    }
    if reader.usage is not None:
        completion["usage"] = reader.usage
    tier = tier_of(response.get("usageMetadata"))
    if tier:
        completion["service_tier"] = tier
    return Answer(body=dumps_exact(completion), completion=completion), reader.signatures


def response_of(body: bytes) -> JSON:
    """Return the one response in a body. Raises UpstreamError (it is an error) and UpstreamProtocolError (it is neither)."""
    try:
        response = loads(body)
    except ValueError as error:
        raise UpstreamProtocolError("The provider's answer is not JSON.") from error
    if has_error(response):
        raise error_of(response)
    if isinstance(response, list) and len(response) == 1:
        response = response[0]
    if not isinstance(response, dict):
        raise UpstreamProtocolError("The provider's answer is not an object.")
    return response


def choices_of(call: Call) -> int:
    """Return how many candidates were asked for."""
    n = call.body.get("n")
    return n if isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= CHOICES_MAX else 1


class Message:
    """A sink that puts the choices of one whole answer together."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._choices: dict[int, JSON] = {}

    def role(self, choice: int = 0) -> None:
        """Introduce a choice, and all lower ones."""
        for index in range(choice + 1):
            if index not in self._choices:
                message: JSON = {"role": "assistant", "content": None, "refusal": None}
                self._choices[index] = {"index": index, "message": message, "finish_reason": None, "logprobs": None}

    def text(self, text: str, choice: int = 0) -> None:
        """Add to the text."""
        self._add("content", text, choice)

    def refusal(self, text: str, choice: int = 0) -> None:
        """Add to the refusal."""
        self._add("refusal", text, choice)

    def reasoning(self, text: str, choice: int = 0) -> None:
        """Add to the visible reasoning."""
        self._add("reasoning_content", text, choice)

    def extension(self, delta: JSON, choice: int = 0) -> None:
        """Merge fields as a client would merge a stream's: lists and texts grow, objects are merged."""
        _merge(self._of(choice), delta)

    def logprobs(self, content: list[JSON], choice: int = 0) -> None:
        """Add log probabilities."""
        self.role(choice)
        logprobs = self._choices[choice]["logprobs"] or {"content": [], "refusal": None}
        self._choices[choice]["logprobs"] = {**logprobs, "content": [*logprobs["content"], *content]}

    def tool(self, key: Hashable, *, id: str, name: str, choice: int = 0, extra: JSON | None = None) -> None:  # noqa: A002 - the wire's word
        """Add a call; the last one is that of `arguments`."""
        del key
        call = {"id": id, "type": "function", "function": {"name": name, "arguments": ""}, **(extra or {})}
        self._of(choice).setdefault("tool_calls", []).append(call)

    def arguments(self, key: Hashable, fragment: str, choice: int = 0) -> None:
        """Add to the last call's arguments."""
        del key
        self._of(choice)["tool_calls"][-1]["function"]["arguments"] += fragment

    def finish(self, reason: str, choice: int = 0) -> None:
        """Note why a choice ended; the first reason stays."""
        self.role(choice)
        self._choices[choice]["finish_reason"] = self._choices[choice]["finish_reason"] or reason

    def choices(self) -> list[JSON]:
        """Return the choices in order."""
        for choice in self._choices.values():
            choice["finish_reason"] = choice["finish_reason"] or "stop"
            message = choice["message"]
            for key in ("native_finish_reason", "native_finish_message"):  # about the choice, not what was said
                if key in message:
                    choice[key] = message.pop(key)
            if message["content"] is None and not message.keys() & {"tool_calls", "function_call", "audio"}:
                message["content"] = None if message["refusal"] else ""
            if isinstance(message.get("audio"), dict):
                message["audio"] = self._audio(message["audio"])
        return [self._choices[index] for index in sorted(self._choices)]

    def _audio(self, audio: JSON) -> JSON:
        asked = self._call.body.get("audio")
        data = string(audio.get("data"))
        if isinstance(asked, dict) and asked.get("format") == "wav":
            data = wav_of(data)
        expires = self._call.created + AUDIO_SECONDS
        return {"id": audio.get("id"), "data": data, "expires_at": expires, "transcript": ""}

    def _of(self, choice: int) -> JSON:
        self.role(choice)
        message: JSON = self._choices[choice]["message"]
        return message

    def _add(self, key: str, text: str, choice: int) -> None:
        if text:
            message = self._of(choice)
            message[key] = (message.get(key) or "") + text


def wav_of(pcm_base64: str) -> str:
    """Return PCM (16 bits, little-endian, one channel, 24 kHz: what Google's voices give) with a WAV header, in base64."""
    try:
        pcm = base64.b64decode(pcm_base64)
    except binascii.Error:
        return pcm_base64
    rate, size = _PCM_RATE, len(pcm)
    head = struct.pack(
        "<4sI8sIHHIIHH4sI", b"RIFF", size + 36, b"WAVEfmt ", 16, 1, 1, rate, rate * 2, 2, 16, b"data", size
    )
    return base64.b64encode(head + pcm).decode()


def _merge(into: JSON, delta: JSON) -> None:
    for key, value in delta.items():
        match into.get(key), value:
            case dict() as old, dict():
                _merge(old, value)
            case (list(), list()) | (str(), str()):
                into[key] += value
            case _:
                into[key] = value
