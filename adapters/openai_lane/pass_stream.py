"""Relays a stream of events as received; the frame that the dialects of the pass-through lane fill in.

In the usual case a piece costs a few searches in bytes and no JSON: events are kept raw and read when the meter asks
(`take`). What a stranger would get wrong: only whole events are passed on, since a stream that must end early (`cut`, an
error) may not end inside one; and memory is bounded only if `take` is called, at least every 256 events or 64 KiB.
"""

from abc import abstractmethod
from typing import Any, ClassVar

from adapters.base import JSON, Call, StreamTranslator
from adapters.errors import UpstreamError, UpstreamProtocolError
from adapters.openai_lane.frames import Frames, data_of, events, is_whole
from adapters.openai_lane.parsing import parse
from adapters.openai_lane.runs import Run
from adapters.openai_lane.thoughts import Thoughts
from adapters.problem import problem_in_success
from adapters.sse import DONE, EventTooLargeError

HELD_BYTES_MAX = 8 * 1024  # of comments and empty chunks before the first event that means something


class PassStream(StreamTranslator):
    """`usage_hint` may be set before `cut`: the usage to be told to a client that asked for it, in OpenAI's form."""

    usage_hint: JSON | None = None
    ends_with_done: ClassVar[bool] = True

    def __init__(self, call: Call, thoughts: Thoughts | None = None) -> None:
        self._call, self._thoughts = call, thoughts
        self._frames = Frames()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._kept: list[bytes | JSON | Run] = []

    # the base's methods ------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> bytes:
        if self.finished:
            return b""
        try:
            block = self._frames.feed(data)
        except EventTooLargeError:
            return self._fail(UpstreamProtocolError("The provider sent an event that is too large."))
        if not block:
            return b""
        return self._pass(block) if self.started else self._begin(block)

    def eof(self) -> bytes:
        if self.finished:
            return b""
        rest = self._frames.flush()
        out = self._last(rest)
        if self._over():
            return out
        if self.started and self._ended_well():
            return out + self._end(b"")
        return out + self._fail(self._cause_of_early_end(rest))

    def take(self) -> list[JSON]:
        return self._heard(self._read_all())

    def take_joined(self) -> list[JSON]:
        return self._heard(self._read_all(joined=True))

    def cut(self) -> bytes:
        if self.finished:
            return b""
        pending = self._read_all()
        self._kept.extend(pending)  # the meter has not seen them yet
        out = b"".join(self._held)
        self._held.clear()
        self.started = self.finished = True
        return out + self._cut_short()

    # what a dialect says -----------------------------------------------------------------------------------------

    @abstractmethod
    def _pass(self, block: bytes) -> bytes:
        """Return what goes out for whole events that came after the start."""

    @abstractmethod
    def _event(self, event: bytes) -> bytes:
        """Return what goes out for one event, and keep it for the meter; may finish or fail the stream."""

    @abstractmethod
    def _means_something(self, chunk: Any) -> bool:
        """Tell whether this is the first event after which the answer is surely an answer."""

    @abstractmethod
    def _ended_well(self) -> bool:
        """Tell whether all that came before the upstream closed is a whole answer."""

    @abstractmethod
    def _end(self, event: bytes) -> bytes:
        """Finish the stream, at the event that says so or (b"") at the upstream's close."""

    @abstractmethod
    def _cut_short(self) -> bytes:
        """Return the events that end the stream at its limit."""

    def _notice(self, chunk: JSON) -> None:
        """Note of a chunk, as the meter gets it, what the stream's end must know."""

    def _for_meter(self, chunk: JSON) -> JSON:
        return chunk

    # shared ------------------------------------------------------------------------------------------------------

    def _each(self, block: bytes) -> bytes:
        out = []
        for event in events(block):
            out.append(self._event(event))
            if self.finished:
                break
        return b"".join(out)

    def _begin(self, block: bytes) -> bytes:
        for event in events(block):
            if self.finished:
                break
            if self.started:
                self._held.append(self._event(event))
                continue
            meant = self._means_something(parse(data_of(event)))
            out = self._event(event)
            if self.error is not None:
                return b""
            self._held.append(out)
            self._held_bytes += len(out)
            self.started = meant or self._over() or self._held_bytes > HELD_BYTES_MAX
        if not self.started:
            return b""
        out = b"".join(self._held)
        self._held.clear()
        return out

    def _last(self, rest: bytes) -> bytes:
        """Take an event that the upstream closed upon without ending it."""
        data = data_of(rest + b"\n\n").strip()
        if data != b"[DONE]" and not isinstance(parse(data), dict):
            blank = len(rest) - len(rest.lstrip(b"\r\n"))  # these lines belong to nothing, and do no harm
            return rest[:blank] if self.started else b""
        whole = rest if is_whole(rest) else rest + (b"\n" if rest.endswith((b"\n", b"\r")) else b"\n\n")
        return self._pass(whole) if self.started else self._begin(whole)

    def _heard(self, chunks: list[JSON]) -> list[JSON]:
        if self._thoughts is not None:
            for chunk in chunks:
                self._thoughts.chunk(chunk)
        return chunks

    def _read_all(self, *, joined: bool = False) -> list[JSON]:
        """Return what was kept, as chunks; whoever keeps them again calls it, not `take`, which tells them to others."""
        chunks = []
        for item in self._kept:
            if isinstance(item, Run):
                found = item.joined() if joined else item.chunks()
                self._notice(found[0])  # the others say nothing that it does not
                chunks += found
                continue
            for chunk in self._read(item):
                self._notice(chunk)
                chunks.append(chunk)
        self._kept.clear()
        return chunks

    def _over(self) -> bool:  # mypy takes an attribute that it saw to be False for False after any call
        return self.finished

    def _fail(self, error: UpstreamError) -> bytes:
        self.error, self.finished = error, True
        return b""

    def _cause_of_early_end(self, rest: bytes) -> UpstreamError:
        if not self.started:
            problem = problem_in_success(parse(rest))
            return problem or nothing_said()
        return UpstreamProtocolError("The provider's stream broke off before its end.")

    def _read(self, item: bytes | JSON) -> list[JSON]:
        if isinstance(item, dict):
            return [item]
        values = (parse(data_of(event)) for event in events(item))
        return [self._for_meter(value) for value in values if isinstance(value, dict)]


def is_done(data: bytes) -> bool:
    """Tell whether an event's data is the word that ends a stream."""
    return data.startswith(b"[DONE]") or data.strip() == DONE[6:-2]


def nothing_said() -> UpstreamError:
    """Return the error of a stream that ended before it began."""
    return UpstreamProtocolError("The provider's stream ended before its first event.")
