"""The journal of a living session. Everything is in the page cache at once, so a kill -9 loses nothing; a thread makes it durable.

An admission is written before its call is sent, progress before more than one interval is relayed beyond it, a settlement
before the answer's last byte; which of them the store has, some at a time. Files are deleted oldest first, when the store has all
of their settlements and has had them for ten minutes: until then it may lose them again. Calls that are open when a new file
begins are carried over into it.

A disk that is full or broken stops admissions, not settlements: for those, some of the disk is set aside from the start.
"""

import contextlib
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from accounting.journal.errors import JournalError
from accounting.journal.format import (
    ACKNOWLEDGED,
    ADMITTED,
    HEAD_BYTES,
    PROGRESS,
    RECORD_BYTES_MAX,
    SETTLED,
    encode,
    encode_seqs,
    header,
    settled_seq,
)
from accounting.journal.reading import settled_in
from accounting.journal.reserve import Reserve
from accounting.journal.segment import FULL, Disk, Segment
from accounting.journal.session import RESERVE, Session

KEPT_S = 600.0
SYNC_S = 0.1
MARK_S = 10.0
ROOM_S = 1.0
TOLD_MAX = 64  # acknowledgements that are written as one: after a crash the store is told again as many that it has
SCRAP_BYTES = 64 * 1024  # with less left of the disk than that it is full
_DISK_FULL = "the disk of the journal is full"
_log = logging.getLogger("bursar")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How large a file is made, what all together may take, and what is set aside for when the disk is full."""

    segment_bytes: int = 4 * 1024 * 1024
    total_bytes: int = 512 * 1024 * 1024
    reserve_bytes: int = 2 * 1024 * 1024


class FileJournal:
    """`open`, write, `close`; from one thread. `fault` says why admissions stop: the disk, or too much that waits for the store.

    Policy `write` makes durable what was written every 100 ms; `always` each admission and settlement before it returns.
    """

    def __init__(
        self,
        folder: Path,
        sid: str,
        *,
        policy: Literal["write", "always"] = "write",
        sizes: Sizes | None = None,
        disk: Disk | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.sid = folder.absolute(), sid
        self._always, self._disk, self._clock = policy == "always", disk or Disk(), clock
        self._sizes = sizes or Sizes()
        self._session: Session | None = None
        self._reserve: Reserve | None = None
        self._segments: deque[Segment] = deque()  # oldest first; the last is written to
        self._number, self._making = 0, itertools.count(1)
        self._spare: Segment | None = None  # the thread makes it, we take it
        self._older_bytes = 0  # what was written to all segments but the last
        self._open: dict[int, tuple[bytes, bytes]] = {}  # seq -> its admission and its last progress
        self._settled: dict[int, Segment] = {}
        self._told: list[int] = []  # acknowledged, and not yet written down
        self._mark_at_s = 0.0
        self._marks: deque[tuple[float, Path, int]] = deque()  # when which place was written
        self._to_close: deque[Segment] = deque()  # the thread closes and deletes, so that we never wait for it
        self._to_delete: deque[Segment] = deque()
        self._syncing, self._stopping = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._broken: str | None = None  # for good
        self._full: str | None = None  # until the reserve can be had again
        self._crowded: str | None = None  # until the store takes settlements again

    @property
    def fault(self) -> str | None:
        """Why no call may be admitted; None if all is well."""
        return self._broken or self._full or self._crowded

    @property
    def healthy(self) -> bool:
        """Whether calls may be admitted."""
        return self.fault is None

    @property
    def pending(self) -> int:
        """How many settlements are written down that the store is not known to have."""
        return len(self._settled)

    @property
    def size_bytes(self) -> int:
        """What was written to its files; up to two more of them, and the reserve, are set aside."""
        return self._older_bytes + (self._segments[-1].size_bytes if self._segments else 0)

    def open(self) -> None:
        """Begin. Raises JournalError, naming the remedy."""
        try:
            self._session = Session.create(self.folder, self.sid)
            self._reserve = Reserve(self._session.path / RESERVE, self._sizes.reserve_bytes, self._disk)
            self._take_reserve()  # first: a file takes what it can get
            self._rotate(0)
        except OSError as error:
            msg = f"cannot keep the journal in {self.folder} ({error.strerror}): set store.data_dir to a directory of ours"
            raise JournalError(msg) from error
        self._thread = threading.Thread(target=self._keep_durable, name="journal", daemon=True)
        self._thread.start()

    def admitted(self, note: dict[str, Any]) -> None:
        """Note a hold before its call is sent. Raises JournalError: then it must not be sent."""
        if self.fault is not None:
            raise JournalError(self.fault)
        seq, payload = int(note["seq"]), orjson.dumps(note)
        self._append(ADMITTED, payload)
        self._open[seq] = (payload, b"")
        if self._always and not self.flush():
            del self._open[seq]
            raise JournalError(str(self.fault))

    def grown(self, note: dict[str, Any]) -> None:
        """Note anew a hold that has grown. Raises JournalError: then the call may use no more than before."""
        seq, payload = int(note["seq"]), orjson.dumps(note)
        if (known := self._open.get(seq)) is not None:
            self._append(ADMITTED, payload)
            self._open[seq] = (payload, known[1])

    def progress(self, seq: int, payload: bytes) -> None:
        """Note how far an open call has come; without a working disk, do nothing."""
        if (known := self._open.get(seq)) is None:
            return
        try:
            self._append(PROGRESS, payload)
        except JournalError:
            return
        self._open[seq] = (known[0], payload)

    def settled(self, data: bytes) -> None:
        """Note a settlement. Never raises: without a working disk the store alone will know of it, if it is there."""
        seq = settled_seq(data)
        try:
            self._append(SETTLED, data)
            if (now_s := self._clock()) >= self._mark_at_s:
                self._mark(now_s, HEAD_BYTES + len(data))
        except JournalError as error:
            _log.error("the settlement of seq %d is not in the journal: %s", seq, error)
        self._open.pop(seq, None)
        self._settled[seq] = segment = self._segments[-1]
        segment.waiting += 1
        if self._always:
            self.flush()

    def acknowledged(self, seq: int) -> None:
        """Note that the store has a settlement: in the file later, together with others."""
        segment = self._settled.pop(seq, None)
        if segment is None:
            return  # of a call that was never admitted
        segment.waiting -= 1
        self._told.append(seq)
        if len(self._told) >= TOLD_MAX:
            self._write_told()
        if not segment.waiting:
            self._sweep()

    def flush(self) -> bool:
        """Make durable what was written so far; False if that failed, and then for good."""
        with self._syncing:
            try:
                while self._to_close:
                    self._to_close[0].sync()
                    self._to_close.popleft().close()
                while self._to_delete:
                    with contextlib.suppress(OSError):
                        self._to_delete.popleft().discard()
                if self._segments:
                    self._segments[-1].sync()
            except OSError as error:
                # What the kernel could not write it may have dropped: asking it again would only seem to help.
                self._break(error)
                return False
        return self._broken is None

    def close(self) -> None:
        """Make all of it durable and let go of it: from now on this is a dead session's journal."""
        if self._segments and self._told:
            self._write_told()  # first: it may take a new file
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()
        for segment in self._segments:
            segment.close()
        if self._spare is not None:
            self._spare.discard()
            self._spare = None
        if self._reserve is not None:
            self._reserve.give_up()
        if self._session is not None:
            self._session.release()

    def recent(self) -> Iterator[list[bytes]]:
        """Yield the settlements of the last ten minutes and a little more, some at a time, as `settled` got them."""
        since_s, first = self._clock() - KEPT_S - MARK_S, None
        for written_s, path, offset in self._marks:
            if written_s >= since_s:
                first = (path, offset)
                break
        for path in [segment.path for segment in self._segments]:
            if first is not None and path >= first[0]:
                yield from settled_in(path, first[1] if path == first[0] else 0)

    def _append(self, kind: int, payload: bytes) -> None:
        """Write now. Raises JournalError if there is no room, also with the reserve given up."""
        size_bytes = HEAD_BYTES + len(payload)
        segment = self._segments[-1]
        if size_bytes > segment.left_bytes or size_bytes > RECORD_BYTES_MAX:
            segment = self._room_for(size_bytes)
        segment.append(kind, payload)

    def _write_told(self) -> None:
        try:
            self._append(ACKNOWLEDGED, encode_seqs(self._told))
        except JournalError as error:
            _log.debug("%d acknowledgements are not in the journal: %s", len(self._told), error)
        self._told.clear()

    def _mark(self, now_s: float, size_bytes: int) -> None:
        """Note when the settlement was written that takes so many bytes at the end."""
        segment = self._segments[-1]
        self._mark_at_s = now_s + MARK_S
        self._marks.append((now_s, segment.path, segment.size_bytes - size_bytes))
        while self._marks[0][0] < now_s - KEPT_S - 2 * MARK_S:
            self._marks.popleft()

    def _room_for(self, size_bytes: int) -> Segment:
        if size_bytes > RECORD_BYTES_MAX:
            msg = f"a record of {size_bytes} bytes is too large for the journal"
            raise JournalError(msg)
        if self._stopping.is_set():
            msg = "the journal is closed"
            raise JournalError(msg)
        for last in (False, True):
            try:
                self._make_room(size_bytes)
            except OSError as error:
                self._failed(error)
                if last:
                    raise JournalError(str(self.fault)) from error
            else:
                break
        return self._segments[-1]

    def _make_room(self, size_bytes: int) -> None:
        """Begin a new file, or where the disk has no room for one make the last one longer. Raises OSError."""
        if self._full is None:  # else a copy of all open calls would take what is left for their settlements
            with contextlib.suppress(OSError):
                self._rotate(size_bytes)
                return
        self._segments[-1].grow(SCRAP_BYTES, size_bytes)

    def _rotate(self, size_bytes: int) -> None:
        """Begin a new file, with all open calls in it, and room for so much more. Raises OSError; then the old one stays."""
        carried = b"".join(
            encode(ADMITTED, admission) + (encode(PROGRESS, progress) if progress else b"")
            for admission, progress in self._open.values()
        )
        segment = self._new_segment(len(carried) + size_bytes)
        try:
            segment.append_all(carried)
            segment.carried_bytes = segment.size_bytes
            assert self._session is not None
            segment.name(self._session.file(self._number + 1))
        except OSError:
            segment.discard()
            raise
        self._number += 1
        if self._segments:
            self._segments[-1].retired_s = self._clock()
            self._older_bytes += self._segments[-1].size_bytes
            self._to_close.append(self._segments[-1])
        self._segments.append(segment)
        self._sweep()

    def _new_segment(self, size_bytes: int) -> Segment:
        """Return the one that the thread has made, if so much fits into it, or else make one."""
        assert self._session is not None
        spare, self._spare = self._spare, None
        if spare is not None:
            if spare.left_bytes >= size_bytes:
                return spare
            spare.discard()
        twice_bytes = len(header(self.sid)) + 2 * size_bytes
        most_bytes = max(self._sizes.segment_bytes, twice_bytes)
        return Segment(
            self._session.making(next(self._making)), self.sid, self._disk,
            most_bytes=most_bytes, least_bytes=min(most_bytes, max(SCRAP_BYTES, twice_bytes)),
        )  # fmt: skip

    def _make_spare(self) -> None:
        """Make the next file if the last is half full, so that whoever fills it need not wait. Runs in the thread."""
        assert self._session is not None
        segment = self._segments[-1]
        if self._spare is None and self.fault is None and segment.size_bytes > segment.left_bytes:
            most_bytes = max(self._sizes.segment_bytes, 2 * segment.carried_bytes)
            with contextlib.suppress(OSError):  # whoever needs it will see for himself
                path = self._session.making(next(self._making))
                self._spare = Segment(path, self.sid, self._disk, most_bytes=most_bytes)

    def _sweep(self) -> None:
        """Delete what the store has had for ten minutes, or less if the files take too much."""
        if len(self._segments) == 1 and self._crowded is None:
            return
        kept_since_s, size_bytes = self._clock() - KEPT_S, self.size_bytes
        while len(self._segments) > 1:
            oldest = self._segments[0]
            if oldest.waiting or (oldest.retired_s > kept_since_s and size_bytes <= self._sizes.total_bytes):
                break
            size_bytes -= oldest.size_bytes
            self._older_bytes -= oldest.size_bytes
            self._to_delete.append(self._segments.popleft())
        crowded = size_bytes > self._sizes.total_bytes
        self._crowded = "the journal is full of settlements that the store has not taken" if crowded else None

    def _failed(self, error: OSError) -> None:
        if error.errno not in FULL:
            self._break(error)
            return
        if self._full is None:
            _log.error("the disk of the journal is full: no call is admitted until there is room")
        self._full = _DISK_FULL
        if self._reserve is not None:
            self._reserve.give_up()

    def _break(self, error: OSError) -> None:
        if self._broken is None:
            _log.error("the journal cannot be written (%s): no call is admitted any more", error.strerror)
        self._broken = f"the journal cannot be written ({error.strerror}): mend the disk and start Bursar anew"

    def _keep_durable(self) -> None:
        room_at_s = 0.0
        while not self._stopping.wait(SYNC_S):
            if self._broken is None:
                self.flush()
                self._make_spare()
            if self._full is not None and self._clock() >= room_at_s:
                room_at_s = self._clock() + ROOM_S
                self._take_reserve()

    def _take_reserve(self) -> None:
        if self._reserve is not None:
            self._full = None if self._reserve.take() else _DISK_FULL
