"""Relays a stream that has begun: upstream to translator to meter to client, piece by piece, with the client's own pace.

The 200 is open, so from here an error is one event, then the end; never a false finish. The settlement is written down before the
last bytes leave. A stream that passes its grant is ended here, as OpenAI would end it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from accounting.charge import Charge
from accounting.renewing import leased, renewed
from accounting.store.errors import StoreError
from accounting.tokens.families import encoding_for
from adapters.errors import UpstreamError
from adapters.sse import KEEPALIVE, encode
from adapters.transport.base import UpstreamResponse
from proxy.beginning import Begun
from proxy.outlet import Outlet
from proxy.relayed import UNTAKEN_MAX, Relayed

SLICE_BYTES_MIN = 2048  # of a piece, before the next look at the grant: it may hold hundreds of tokens
SLICE_BYTES_MAX = 4096  # and before the next write: while a client does not read, the rest stays as it came
LEFT_MIN = 4  # tokens of text, before the next look at the grant
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


More = Callable[[], Awaitable[Grant | None]]  # None: no more can be had


class Relay:
    """One stream on its way. Writing waits for the client, and so makes the provider wait."""

    def __init__(
        self, begun: Begun, charge: Charge, grant: Grant, outlet: Outlet, more: More | None = None
    ) -> None:  # fmt: skip
        assert begun.translator is not None
        assert begun.response is not None
        self._begun, self._charge, self._grant, self._outlet = begun, charge, grant, outlet
        self._translator, self._response = begun.translator, begun.response
        self._meter = begun.attempt.meter
        self._relayed = Relayed(charge, begun.attempt)
        self._more = more  # asked for the next slice when the grant is passed
        self._leased = leased(charge.hold)
        self._loop = asyncio.get_running_loop()
        self._free = 0  # so much may be untaken before the meter must be asked
        self._look_at = 0  # `_seen` from which on the grant may have been passed
        self._rest = b""
        self._ended_by: UpstreamError | None = None
        self.outcome = "ok"
        self.at_boundary = True  # the client has whole events only: a comment may be put in
        self.wrote = 0  # counts writes: a keep-alive looks whether there was one
        self.writing_since_s: float | None = None  # set while the client does not take what it is sent

    async def run(self) -> str:
        """Relay to the end and settle; return the outcome: ok, cut, upstream_error, error (of our own)."""
        try:
            self._response.taker = self._at_once
            await self._pieces()
        finally:
            self._response.taker = None
            self._observe()
        return self.outcome

    def interrupt(self, error: UpstreamError) -> None:
        """End here with an event that tells `error`; the provider is to stop."""
        self._ended_by = error
        self._response.close()

    async def _pieces(self) -> None:
        translator = self._translator
        out, self._begun.first = self._begun.first, b""  # it may be large, and the client may take its time
        while True:
            if translator.finished or translator.error is not None:
                await self._last(out)
                return
            if out:
                if self._lapsed() and not await self._renewed():
                    await self._end_here()
                    return
                await self._send(out)
                if (
                    self._grant.tokens is not None
                    and self._seen() >= self._look_at
                    and await self._passed(self._grant.tokens)
                ):
                    await self._end_here()
                    return
                self._free = self._surely_free()
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

    def _at_once(self, piece: bytes) -> bool:
        """Relay a piece without waking the task, if that takes no waiting and no counting; else do nothing."""
        outlet = self._outlet
        if self._lapsed() or not (outlet.ready and self.at_boundary and self._translator.passes(piece, self._free)):
            return False
        outlet.put(piece)
        self.wrote += 1
        return True

    def _surely_free(self) -> int:
        """Return how much may be untaken while neither the grant can be passed nor a note be needed."""
        free = min(self._relayed.room, UNTAKEN_MAX)
        if self._grant.tokens is None:
            return free
        return min(free, self._look_at - self._meter.output.bytes - self._meter.chunks - 1)

    def _slice(self, piece: bytes) -> bytes:
        """Return what may be relayed before the next look at the grant; the rest waits its turn."""
        most = SLICE_BYTES_MAX
        if self._grant.tokens is not None:
            most = max(SLICE_BYTES_MIN, min(most, (self._look_at - self._seen()) * 4))
        if len(piece) <= most:
            self._rest = b""
            return piece
        self._rest = piece[most:]
        return piece[:most]

    def _lapsed(self) -> bool:
        """Whether what this call holds may be somebody else's by now: our process stood still, or the store was away."""
        hold = self._charge.hold
        return self._leased and (hold.lost or self._loop.time() >= hold.until_s)

    async def _renewed(self) -> bool:
        """Have the lease again before more is written; False if the call must end."""
        hold, seq = self._charge.hold, self._charge.hold.seq
        if self._charge.receipt is None:
            try:
                if not await renewed(self._charge.till.ledger, hold):
                    return False
            except StoreError:  # no budget has ended, so `length` would be a lie
                self.outcome, self._translator.error = "error", _store_away()
                return False
            if hold.seq != seq:
                self._relayed.again()
        self._leased = self._charge.receipt is None and leased(hold) and self._loop.time() < hold.until_s
        return True

    async def _end_here(self) -> None:
        """End as at a grant that is passed, or with an error that is there already."""
        self._response.close()  # first of all: the provider is to stop
        self._observe()
        if self._translator.error is not None:
            await self._last(b"")
            return
        self.outcome = "cut"
        await self._last(await self._cut())

    async def _last(self, out: bytes) -> None:
        """Settle, then let the last bytes go."""
        error = self._translator.error
        if error is not None:
            self.outcome = "upstream_error" if self.outcome == "ok" else self.outcome
            out += b"" if self.at_boundary or out else b"\n\n"
            out += encode(error.body())
        self._observe()
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
        untaken = self._translator.untaken
        if untaken is None or untaken > self._relayed.room or untaken > UNTAKEN_MAX:
            self._observe()
            await self._relayed.note()
        self.wrote += 1
        self.at_boundary = False
        now_s = self._loop.time()
        if self._charge.first_token_s is None:
            self._charge.first_token_s = now_s - self._charge.began_s
        self.writing_since_s = now_s
        await self._outlet.write(out)
        self.writing_since_s = None
        self.at_boundary = out.endswith((b"\n\n", b"\r\n\r\n"))

    def _observe(self) -> None:
        self._meter.observe(self._translator.take_joined())

    def _seen(self) -> int:
        """Return what grows by one at least with each token, and with each chunk."""
        return self._meter.output.bytes + self._meter.chunks + (self._translator.untaken or 0)

    async def _passed(self, granted: int) -> bool:
        """Count, unless it is surely too early for that; True once what was relayed is more than the grant."""
        self._observe()
        meter, most = self._meter, granted + self._grant.slack
        left = most - meter.chunks
        if meter.worth_counting(most):
            left = most - await self._relayed.counted()
        elif self._more is not None:
            left = most - await self._strictly(most)
        while left < 0 and self._more is not None and (grant := await self._more()) is not None:
            used, most = most - left, (grant.tokens or 0) + grant.slack
            self._grant, left = grant, most - used
        self._look_at = self._seen() + max(LEFT_MIN, left)
        return left < 0

    async def _strictly(self, most: int) -> int:
        """Return no less than what the provider may bill so far: what is held must cover it, and grows in time."""
        meter = self._meter
        if meter.output.upper_bound <= most and meter.reported is None:
            return meter.output.upper_bound
        told = meter.reported.output if meter.reported is not None else 0
        return max(told, await self._relayed.counted())


def _store_away() -> UpstreamError:
    text = "The budget store cannot be reached, and what this call holds may be another's by now."
    return UpstreamError(text, status=503, type="server_error", code="budget_store_unavailable")


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
