"""Google's event stream as OpenAI's.

There is no last event: the end is the connection's close after every candidate has given its reason, and a close before
that is a broken stream. An error can be an event of a 200, or the whole body of it without being an event at all.
Source: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""

from collections.abc import Callable

from adapters.base import JSON, Call, StreamTranslator
from adapters.errors import UpstreamError, UpstreamProtocolError
from adapters.google.answer import choices_of
from adapters.google.errors import error_of, has_error, parsed
from adapters.google.reader import Reader
from adapters.google.usage import tier_of
from adapters.lenient import loads, string
from adapters.messages import wants_legacy
from adapters.sse import Decoder, EventTooLargeError
from adapters.writer import ChunkWriter

HEAD_BYTES_MAX = 64 * 1024  # of a body without events, kept to read an error from it


class GoogleStream(StreamTranslator):
    """One stream; `remember` is given each call's signature once it is whole."""

    def __init__(self, call: Call, remember: Callable[[str, str], None]) -> None:
        self._call, self._remember = call, remember
        self._decoder = Decoder()
        self._head = bytearray()
        self._seen_event = False
        self._writer = ChunkWriter(
            id=f"chatcmpl-{call.call_id}", model=call.upstream_model, created=call.created, show_usage=call.show_usage
        )
        self._reader = Reader(
            self._writer, call_id=call.call_id, choices_max=choices_of(call), legacy=wants_legacy(call.body)
        )

    def feed(self, data: bytes) -> bytes:
        if self.finished:
            return b""
        if not self._seen_event:
            self._head += data[: HEAD_BYTES_MAX - len(self._head)]
        try:
            events = self._decoder.feed(data)
        except EventTooLargeError:
            self._fail(UpstreamProtocolError("The provider sent an event that is too large."))
            return self._writer.drain()
        for event in events:
            self._event(event.data)
            if self.error is not None:
                break
        return self._writer.drain()

    def eof(self) -> bytes:
        if self.finished:
            return b""
        head = parsed(bytes(self._head)) if not self._seen_event else None
        if has_error(head):
            self._fail(error_of(head))
        elif not self._reader.complete:
            text = "The provider's stream ended before its end."
            self._fail(UpstreamProtocolError(text, code="upstream_stream_truncated"))
        else:
            self._reader.close()
            self._end(None)
        return self._writer.drain()

    def cut(self) -> bytes:
        if self.finished:
            return b""
        self._reader.cut()
        self._end("length")
        return self._writer.drain()

    def take(self) -> list[JSON]:
        return self._writer.take()

    def _event(self, data: bytes) -> None:
        try:
            response = loads(data)
        except ValueError:
            self._fail(UpstreamProtocolError("The provider sent an event that is not JSON."))
            return
        self._seen_event = True
        if has_error(response):
            self._fail(error_of(response))
        elif isinstance(response, dict):
            self._response(response)

    def _response(self, response: JSON) -> None:
        if not self.started:  # the first chunk fixes these for the stream
            self._writer.id = string(response.get("responseId")) or self._writer.id
            self._writer.model = string(response.get("modelVersion")) or self._writer.model
        tier = tier_of(response.get("usageMetadata"))
        if tier:
            self._writer.also(service_tier=tier)
        self._reader.read(response)
        self.started = self._reader.begun

    def _end(self, default_reason: str | None) -> None:
        for call_id, signature in self._reader.signatures.items():
            self._remember(call_id, signature)
        if self._reader.usage is not None:
            self._writer.usage(self._reader.usage)
        if default_reason is not None:
            self._writer.at_least(self.usage_hint)
        self._writer.end(default_reason)
        self.started = self.finished = True

    def _fail(self, error: UpstreamError) -> None:
        self.error, self.finished = error, True
