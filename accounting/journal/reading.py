"""Reads a journal's files back, in pieces: what is settled, what was still open."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from accounting.journal.format import (
    ACKNOWLEDGED,
    ADMITTED,
    PROGRESS,
    SETTLED,
    Decoder,
    Progress,
    Record,
    acknowledged_in,
    admitted_seq,
    header,
    settled_seq,
)
from accounting.settlement import Settlement

PIECE_BYTES = 256 * 1024
_log = logging.getLogger("bursar")


@dataclass(slots=True)
class Story:
    """What a session did, by seq: calls without an end (their note, and how far they came), and settlements not acknowledged."""

    open: dict[int, tuple[bytes, Progress | None]] = field(default_factory=dict)
    settled: dict[int, bytes] = field(default_factory=dict)
    unreadable: bool = False  # a file is of another session or another version: for a person to look at

    def tell(self, records: Iterable[Record]) -> None:
        """Add what comes next. A record whose payload is not what its kind says is passed over."""
        for record in records:
            try:
                self._one(*record)
            except (ValueError, KeyError, TypeError):
                _log.warning("a record of the journal makes no sense and is passed over")

    def _one(self, kind: int, payload: bytes) -> None:
        if kind == ADMITTED:
            seq = admitted_seq(payload)
            _, progress = self.open.get(seq, (b"", None))  # a hold that has grown is noted again
            self.open[seq] = (payload, progress)
        elif kind == PROGRESS:
            progress = Progress.load(payload)
            if progress.seq in self.open:
                self.open[progress.seq] = (self.open[progress.seq][0], progress)
        elif kind == SETTLED:
            seq = settled_seq(payload)
            self.open.pop(seq, None)
            self.settled[seq] = payload
        else:
            assert kind == ACKNOWLEDGED
            for seq in acknowledged_in(payload):
                self.open.pop(seq, None)
                self.settled.pop(seq, None)


def read_story(paths: Iterable[Path], sid: str) -> Story:
    """Read a session's files in their order. Raises OSError."""
    story = Story()
    for path in paths:
        decoder = Decoder()
        for records in _records(path, decoder, 0):
            if decoder.sid == sid:
                story.tell(records)
        left = _written_behind(path, decoder.good_bytes)
        if left and decoder.sid is None and left > len(header(sid)):
            story.unreadable = True
            _log.error("%s is no journal that this version can read", path)
        elif decoder.sid not in (None, sid):
            story.unreadable = True
            _log.error("%s is not of session %s", path, sid)
        elif left:
            _log.warning("%s: the last %d bytes cannot be read, as if their writing had been cut short", path, left)
    return story


def settled_in(path: Path, offset: int) -> Iterator[list[bytes]]:
    """Yield the settlements in a file from that offset on, some at a time; nothing if it is gone. Raises OSError."""
    try:
        for records in _records(path, Decoder(within=offset > 0), offset):
            yield [record.payload for record in records if record.kind == SETTLED]
    except FileNotFoundError:
        return


def load_settlement(payload: bytes) -> Settlement | None:
    """Return it; None if it is none."""
    try:
        return Settlement.load(payload)
    except (ValueError, TypeError, AttributeError):
        _log.error("a settlement in the journal cannot be read")
        return None


def load_note(payload: bytes) -> dict[str, object]:
    """Return the note of an admission. Raises ValueError."""
    note = orjson.loads(payload)
    if not isinstance(note, dict):
        msg = "not a note"
        raise ValueError(msg)  # noqa: TRY004 - it comes from a file
    return note


def _written_behind(path: Path, offset: int) -> int:
    """Return how many bytes there are from that offset on, the zeros at the end left out."""
    with path.open("rb") as file:
        file.seek(offset)
        at = end = offset
        while piece := file.read(PIECE_BYTES):
            if kept := len(piece.rstrip(b"\0")):
                end = at + kept
            at += len(piece)
    return end - offset


def _records(path: Path, decoder: Decoder, offset: int) -> Iterator[list[Record]]:
    with path.open("rb") as file:
        file.seek(offset)
        while piece := file.read(PIECE_BYTES):
            records = decoder.feed(piece)
            if records:
                yield records
            if decoder.broken:
                return
