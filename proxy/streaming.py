"""Relays a stream that has begun: upstream to translator to meter to client, piece by piece, with the client's own pace.

The 200 is open, so from here an error is one event, then the end; never a false finish. The settlement is written down before the
last bytes leave. A stream that passes its grant is ended here, as OpenAI would end it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import orjson

from accounting.charge import Charge
from accounting.tokens.families import encoding_for
from adapters.errors import UpstreamError
from adapters.sse import KEEPALIVE
from adapters.transport.base import UpstreamResponse
from proxy.beginning import Begun
from proxy.relayed import Relayed

CHECK_BYTES_MIN = 256
CHECK_BYTES_MAX = 64 * 1024
CHECK_EVENTS = 256
SLICE_BYTES = 2048  # of a piece, at least, before the next look: a fast provider's pieces hold hundreds of tokens
END_BYTES_MAX = 64 * 1024
END_S = 1.0

Write = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What the stream may give in all, over its choices; `tokens` is None where no budget depends on it."""

    tokens: int | None
    slack: int = 0  # how far our count of an honest provider's tokens may lie above its own

    @classmethod
    def of(cls, granted: int, choices: int, model: str, *, clamps: bool) -> "Grant":
        """Return the grant; the slack is small where the tokenizer is the model's own."""
        if not clamps:
            return cls(tokens=None)
        tokens = granted * choices
        _, exact = encoding_for(model)
        return cls(tokens=tokens, slack=16 + tokens // 50 if exact else 64 + tokens * 2 // 5)


class Relay:
    """One stream on its way. `write` waits for the client, and so makes the provider wait."""

    def __init__(self, begun: Begun, charge: Charge, grant: Grant, write: Write) -> None:
        assert begun.translator is not None
        assert begun.response is not None
        self._begun, self._charge, self._grant, self._write = begun, charge, grant, write
        self._translator, self._response = begun.translator, begun.response
        self._meter = begun.attempt.meter
        self._relayed = Relayed(charge, begun.attempt)
        self._until_check_bytes = CHECK_BYTES_MIN if grant.tokens is not None else CHECK_BYTES_MAX
        self._until_check_events = CHECK_EVENTS
        self._rest = b""
        self._ended_by: UpstreamError | None = None
        self.outcome = "ok"
        self.at_boundary = True  # the client has whole events only: a comment may be put in
        self.wrote = 0  # counts writes: a keep-alive looks whether there was one
        self.writing_since_s: float | None = None  # set while the client does not take what it is sent

    async def run(self) -> str:
        """Relay to the end and settle; return the outcome: ok, cut, upstream_error."""
        try:
            await self._pieces()
        finally:
            self._meter.observe(self._translator.take())
        return self.outcome

    def interrupt(self, error: UpstreamError) -> None:
        """End here with an event that tells `error`; the provider is to stop."""
        self._ended_by = error
        self._response.close()

    async def _pieces(self) -> None:
        translator, out = self._translator, self._begun.first
        while True:
            if translator.finished or translator.error is not None:
                await self._last(out)
                return
            if out:
                await self._send(out)
                if await self._passed_grant(len(out), out.count(b"\n\n")):
                    self.outcome = "cut"
                    self._response.close()  # first of all: the provider is to stop
                    await self._last(await self._cut())
                    return
            try:
                piece = self._slice(self._rest or await self._response.next_piece())
            except UpstreamError as error:
                translator.error = self._ended_by or error
                out = b""
                continue
            out = translator.feed(piece) if piece else translator.eof()
            if not piece:
                await self._last(out)
                return

    def _slice(self, piece: bytes) -> bytes:
        """Return what may be relayed before the next look at the grant; the rest waits its turn."""
        most = len(piece) if self._grant.tokens is None else max(SLICE_BYTES, self._until_check_bytes)
        self._rest = piece[most:]
        return piece[:most] if self._rest else piece

    async def _last(self, out: bytes) -> None:
        """Settle, then let the last bytes go."""
        error = self._translator.error
        if error is not None:
            self.outcome = "upstream_error"
            out += b"" if self.at_boundary or out else b"\n\n"
            out += b"data: " + orjson.dumps(error.body()) + b"\n\n"
        self._meter.observe(self._translator.take())
        if self._meter.reported is not None:
            await self._charge.finish(self.outcome)
        else:
            self._charge.outcome = self.outcome
        if out:
            await self._send(out)

    async def _cut(self) -> bytes:
        """End the stream as OpenAI would; the usage is what we counted, since the provider was never asked for the rest."""
        usage = await asyncio.to_thread(self._meter.usage)
        total = {"prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": usage.total}
        self._translator.usage_hint = total
        out = self._translator.cut()
        self._translator.take()  # our own words: the meter is not to take them for the provider's
        return out

    async def _send(self, out: bytes) -> None:
        self._meter.observe(self._translator.take())
        await self._relayed.note()
        self.wrote += 1
        self.at_boundary = False
        self.writing_since_s = asyncio.get_running_loop().time()
        await self._write(out)
        self.writing_since_s = None
        self.at_boundary = out.endswith((b"\n\n", b"\r\n\r\n"))
        if self._charge.first_token_s is None:
            self._charge.first_token_s = asyncio.get_running_loop().time() - self._charge.began_s

    async def _passed_grant(self, size_bytes: int, events: int) -> bool:
        """Count now and then, the more often the nearer the grant; True once what was relayed is more than it."""
        self._until_check_bytes -= size_bytes
        self._until_check_events -= events
        if self._until_check_bytes > 0 and self._until_check_events > 0:
            return False
        self._meter.observe(self._translator.take())
        self._until_check_events = CHECK_EVENTS
        if self._grant.tokens is None:
            self._until_check_bytes = CHECK_BYTES_MAX
            return False
        most = self._grant.tokens + self._grant.slack
        count = self._meter.chunks
        if self._meter.worth_counting(most):
            count = await asyncio.to_thread(self._meter.output.tokens)
        left = most - count
        self._until_check_bytes = max(CHECK_BYTES_MIN, min(CHECK_BYTES_MAX, left * 4))
        return left < 0


async def tend(relay: Relay, write: Write, *, comment_s: float, stall_s: float, abort: Callable[[], None]) -> None:
    """Write a comment into long silence, so that nobody between takes the stream for dead; cut off a client that takes nothing."""
    every_s = min(comment_s or stall_s, stall_s) / 2
    silent_s, before = 0.0, relay.wrote
    while True:
        await asyncio.sleep(every_s)
        since_s = relay.writing_since_s
        if since_s is not None:
            if asyncio.get_running_loop().time() - since_s > stall_s:
                abort()
                return
        elif relay.wrote != before:
            silent_s, before = 0.0, relay.wrote
        else:
            silent_s += every_s
            if comment_s and silent_s >= comment_s and relay.at_boundary:
                silent_s = 0.0
                await write(KEEPALIVE)


async def read_to_end(response: UpstreamResponse) -> None:
    """Take what may come after the last event, so that the connection can serve another call; cut it if that is much or late."""
    left_bytes = END_BYTES_MAX
    try:
        async with asyncio.timeout(END_S):
            while left_bytes > 0 and (piece := await response.next_piece()):
                left_bytes -= len(piece)
    except (UpstreamError, TimeoutError):
        pass
    finally:
        response.close()
