"""Relays a stream that has begun: upstream to translator to meter to client, piece by piece, with the client's own pace.

The 200 is open, so from here an error is one event, then the end; never a false finish. The settlement is written down before the
last bytes leave. A stream that passes its grant is ended here, as OpenAI would end it.
"""

import asyncio

from accounting.charge import Charge
from accounting.renewing import leased, renewed
from accounting.store.errors import StoreError
from adapters.errors import UpstreamError
from adapters.sse import KEEPALIVE, encode
from adapters.transport.base import UpstreamResponse
from proxy.beginning import Begun
from proxy.grant import Grant, More
from proxy.outlet import Outlet
from proxy.relayed import UNTAKEN_MAX, Relayed

SLICE_BYTES_MIN = 2048  # of a piece, before the next look at the grant: it may hold hundreds of tokens
SLICE_BYTES_MAX = 4096  # and before the next write: while a client does not read, the rest stays as it came
LEFT_MIN = 4  # tokens of text, before the next look at the grant
END_BYTES_MAX = 64 * 1024
END_S = 1.0


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
        self._asks_at_once = False  # that takes no waiting
        self._look_at = 0  # `_seen` from which on the grant may have been passed
        self._rest = b""
        self._fed: bytes | None = None  # what goes out for a piece that was fed and not taken: the stream's last
        self._is_past = False  # the grant was passed while the task waited
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

    def comment(self) -> None:
        """Write a comment, unless the client is in the middle of an event or does not read."""
        if self.at_boundary and self._outlet.ready:
            self._outlet.put(KEEPALIVE)

    async def _pieces(self) -> None:
        out, self._begun.first = self._begun.first, b""  # it may be large, and the client may take its time
        over = self._translator.finished or self._translator.error is not None
        while not over:
            if out and not await self._sent(out):
                break
            out, over = await self._next()
        if over and not self._is_past:
            await self._last(out)
        else:
            await self._end_here()

    async def _sent(self, out: bytes) -> bool:
        """Send; False if the stream must end here: what it holds is no longer its own, or used up."""
        await self._noted()  # first: it may wait, and a lease may end while it does
        if self._lapsed(self._loop.time()) and not await self._renewed():
            return False
        await self._send(out)
        if self._may_be_past() and await self._passed():
            return False
        self._free = self._surely_free()
        self._asks_at_once = self._more is None and self._relayed.counts_at_once
        return True

    async def _next(self) -> tuple[bytes, bool]:
        """Return what goes out for the next piece that was not relayed at once, and whether that is the last."""
        translator = self._translator
        try:
            piece = self._slice(self._rest or await self._response.next_piece())
        except UpstreamError as error:
            if self._fed is None and not self._is_past:
                translator.error = self._ended_by or error
            return self._fed or b"", True
        if self._fed is not None:
            return self._fed, True
        out = translator.feed(piece) if piece else translator.eof()
        return out, not piece or translator.finished or translator.error is not None

    def _at_once(self, piece: bytes, now_s: float) -> bool:
        """Relay a piece without waking the task, if that takes no waiting; else do nothing."""
        outlet = self._outlet
        if self._lapsed(now_s) or not (self.at_boundary and outlet.ready):
            return False
        asks = self._asks_at_once and len(piece) <= SLICE_BYTES_MIN
        untaken = self._translator.passes(piece, UNTAKEN_MAX if asks else self._free)
        if 0 < untaken <= self._free:
            outlet.put(piece)
            self.wrote += 1
            return True
        if not asks:
            return False
        if untaken:
            self._asked_at_once(piece)
            return True
        return self._fed_at_once(piece)

    def _fed_at_once(self, piece: bytes) -> bool:
        """Translate and relay a piece here; not the one that ends the stream."""
        if self._fed is not None:
            return False
        translator = self._translator
        out = translator.feed(piece)
        if translator.finished or translator.error is not None:
            self._fed = out
            return False
        if out:
            self._asked_at_once(out)
        return True

    def _asked_at_once(self, out: bytes) -> None:
        """Relay with what is to be counted and noted."""
        counted = False
        if self._is_to_be_noted():
            self._observe()
            counted = self._relayed.note_at_once()
        self._about_to_write(out)
        self._outlet.put(out)
        if (counted or self._may_be_past()) and self._passed_at_once():
            self._is_past = True
            self._response.close()  # so the task wakes, and ends the stream here
        self._free = self._surely_free()

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

    def _lapsed(self, now_s: float) -> bool:
        """Whether what this call holds may be somebody else's by now: our process stood still, or the store was away."""
        hold = self._charge.hold
        return self._leased and (hold.lost or now_s >= hold.until_s)

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
            await self._noted()
            await self._send(out, is_last=True)

    async def _cut(self) -> bytes:
        """End the stream as OpenAI would; the usage is what we counted, since the provider was never asked for the rest."""
        usage = await asyncio.to_thread(self._meter.usage)
        total = {"prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": usage.total}
        self._translator.usage_hint = total
        out = self._translator.cut()
        self._translator.take()  # our own words: the meter is not to take them for the provider's
        return out

    async def _noted(self) -> None:
        """Meter what is about to be written, and note it, if that is due."""
        if self._is_to_be_noted():
            self._observe()
            await self._relayed.note()

    async def _send(self, out: bytes, *, is_last: bool = False) -> None:
        self._about_to_write(out)
        self.writing_since_s = self._loop.time()
        await self._outlet.write(out, is_last=is_last)
        self.writing_since_s = None

    def _about_to_write(self, out: bytes) -> None:
        self.wrote += 1
        self.at_boundary = out.endswith((b"\n\n", b"\r\n\r\n"))
        if self._charge.first_token_s is None:
            self._charge.first_token_s = self._loop.time() - self._charge.began_s

    def _is_to_be_noted(self) -> bool:
        """Whether what is about to be written must be metered, and perhaps noted, first."""
        untaken = self._translator.untaken
        return untaken is None or untaken > min(self._relayed.room, UNTAKEN_MAX)

    def _observe(self) -> None:
        if self._translator.untaken != 0:
            self._meter.observe(self._translator.take_joined())

    def _seen(self) -> int:
        """Return what grows by one at least with each token, and with each chunk."""
        return self._meter.output.bytes + self._meter.chunks + (self._translator.untaken or 0)

    def _may_be_past(self) -> bool:
        """Whether the grant may have been passed, so that it is time to look."""
        return self._grant.tokens is not None and self._seen() >= self._look_at

    async def _passed(self) -> bool:
        """Look, and have more if that can be had; True once what was relayed is more than the grant."""
        self._observe()
        most = self._most()
        if self._must_count(most):
            await self._relayed.counted()
        used = self._used(most)
        while used > most and self._more is not None and (grant := await self._more()) is not None:
            self._grant = grant
            most = self._most()
        self._look_at = self._seen() + max(LEFT_MIN, most - used)
        return used > most

    def _passed_at_once(self) -> bool:
        """As `_passed`, where no more is to be had and counting takes no waiting."""
        if self._grant.tokens is None:
            return False
        self._observe()
        most = self._most()
        used = self._used(most)
        self._look_at = self._seen() + max(LEFT_MIN, most - used)
        return used > most

    def _most(self) -> int:
        return (self._grant.tokens or 0) + self._grant.slack

    def _must_count(self, most: int) -> bool:
        """Tell whether `_used` has to count. What is held slice by slice must cover what the provider may bill, and grows in time."""
        meter = self._meter
        if meter.worth_counting(most):
            return True
        return self._more is not None and (meter.output.upper_bound > most or meter.reported is not None)

    def _used(self, most: int) -> int:
        """Return the tokens of the grant that are used up: counted, unless it is surely too early for that."""
        meter, strictly = self._meter, self._more is not None
        if not self._must_count(most):
            return meter.output.upper_bound if strictly else meter.chunks
        told = meter.reported.output if strictly and meter.reported is not None else 0
        return max(told, self._relayed.counted_at_once())


def _store_away() -> UpstreamError:
    text = "The budget store cannot be reached, and what this call holds may be another's by now."
    return UpstreamError(text, status=503, type="server_error", code="budget_store_unavailable")


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
