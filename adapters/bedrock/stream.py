"""ConverseStream's frames as OpenAI's event stream.

The end comes in two frames, `messageStop` and then `metadata` with the usage, and some senders turn them round or leave
the second out: the stream is finished when both are there, or when it closes after the first. Text and reasoning blocks
have no start frame. Errors are frames too, on a response whose status was 200.
Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
"""

from typing import Any

from adapters.base import JSON, StreamTranslator
from adapters.bedrock.answer import Reading
from adapters.bedrock.errors import error_of_body, error_of_frame
from adapters.bedrock.scribe import Scribe
from adapters.bedrock.usage import finish_reason, openai_usage, tier_of
from adapters.errors import UpstreamError, UpstreamProtocolError
from adapters.eventstream import Decoder, EventStreamError, Message
from adapters.lenient import loads, member
from adapters.writer import ChunkWriter

HEAD_BYTES_MAX = 64 * 1024  # of a body that is no event stream, kept to read an error from it
_CONTENT = frozenset({"contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata"})


class ConverseStream(StreamTranslator):
    """One stream."""

    def __init__(self, reading: Reading) -> None:
        call = reading.call
        self._reading = reading
        self._decoder = Decoder()
        self._head = bytearray()
        self._plain: bool | None = None  # known from the first byte on
        self._writer = ChunkWriter(
            id=reading.completion_id, model=call.upstream_model, created=call.created, show_usage=call.show_usage
        )
        self._scribe = Scribe(self._writer, reading)
        self._stop: str | None = None
        self._metadata = False

    def feed(self, data: bytes) -> bytes:
        if self.finished or not data:
            return b""
        if self._plain is None:
            self._plain = data[:1] >= b" "  # as a frame it would be hundreds of megabytes long
        if self._plain:
            self._head += data[: HEAD_BYTES_MAX - len(self._head)]
            return b""
        try:
            for message in self._decoder.feed(data):
                self._message(message)
                if self._over:
                    break
        except EventStreamError as error:
            self._fail(UpstreamProtocolError(f"The provider's event stream is broken: {error}."))
        return self._drain()

    def eof(self) -> bytes:
        if self.finished:
            return b""
        if self._stop is not None:
            self._end()
            return self._drain()
        self._fail(
            self._unframed()
            or UpstreamProtocolError("The provider's stream ended before its end.", code="upstream_stream_truncated")
        )
        return self._drain()

    def cut(self) -> bytes:
        if self.finished:
            return b""
        self._scribe.cut()
        self._writer.at_least(self.usage_hint)
        self._writer.end(self._stop or "length")
        self.started = self.finished = True
        return self._drain()

    def take(self) -> list[JSON]:
        return self._writer.take()

    @property
    def _over(self) -> bool:
        return self.finished

    def _drain(self) -> bytes:
        """Return what was written; the role alone waits for content, so that an error can still be a status."""
        return self._writer.drain() if self.started else b""

    def _message(self, message: Message) -> None:
        kind = message.header(":message-type")
        if kind in ("exception", "error"):
            name = message.header(":exception-type") or message.header(":error-code")
            self._fail(error_of_frame(name, message.payload, message.header(":error-message")))
            return
        event = message.header(":event-type")
        try:
            payload = loads(message.payload)
        except ValueError:
            self._fail(UpstreamProtocolError("The provider sent an event that is no JSON."))
            return
        if not isinstance(payload, dict):
            return
        if event in _CONTENT:
            self.started = True
        self._event(event, payload)

    def _event(self, event: str, payload: JSON) -> None:
        index = payload.get("contentBlockIndex")
        key = index if isinstance(index, int) else 0
        match event:
            case "messageStart":
                self._writer.role()
            case "contentBlockStart":
                self._scribe.start(key, member(payload, "start"))
            case "contentBlockDelta":
                self._scribe.delta(key, member(payload, "delta"))
            case "contentBlockStop":
                self._scribe.stop(key)
            case "messageStop":
                self._stopped(payload.get("stopReason"))
            case "metadata":
                self._measured(payload)
            case _ if event.endswith("Exception"):  # an error that calls itself an event
                self._fail(error_of_body({"__type": event, **payload}, {}) or UpstreamProtocolError(event))
            case _:
                pass  # a frame of a later version of the interface

    def _stopped(self, reason: Any) -> None:
        calls = self._scribe.calls > 0
        finish = finish_reason(reason, calls=calls)
        self._stop = "function_call" if self._reading.legacy and finish == "tool_calls" else finish
        if self._metadata:
            self._end()

    def _measured(self, payload: JSON) -> None:
        usage = openai_usage(payload.get("usage"), vendor=self._reading.vendor, streamed=True)
        if usage is not None:
            self._writer.usage(usage)
        tier = tier_of(payload)
        if tier is not None:
            self._writer.also(service_tier=tier)
        self._metadata = True
        if self._stop is not None:
            self._end()

    def _end(self) -> None:
        self._scribe.close()
        self._writer.finish(self._stop or "stop")
        self._writer.end()
        self.started = self.finished = True

    def _fail(self, error: UpstreamError) -> None:
        self.error = error
        self.finished = True

    def _unframed(self) -> UpstreamError | None:
        """Return the error that the body is, if it is no event stream but JSON that tells of one."""
        try:
            body = loads(bytes(self._head))
        except ValueError:
            return None
        return error_of_body(body, {}) if isinstance(body, dict) else None
