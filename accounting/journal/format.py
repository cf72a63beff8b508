"""How the journal is written: a header, then records, each with its length and checksum. Pure.

What is read is the longest valid prefix: a torn or flipped record ends it, and nothing after that is believed, since its
place in the file is no longer certain. Reading never raises, whatever the bytes. A length of zero is the end: the disk space of a
file is taken before it is needed, and reads as zeros.

File    magic 8 | version u16 | length of sid u16 | sid | crc32 u32 of all before
Record  length of payload u32 | crc32 u32 of length, type and payload | type u8 | payload      (all big-endian)

An acknowledgement's payload is one seq u64 or several.
"""

import struct
from collections.abc import Sequence
from mmap import mmap
from typing import NamedTuple, TypeAlias
from zlib import crc32

import msgspec
import orjson

MAGIC = b"BURSARJ\n"
VERSION = 1
RECORD_BYTES_MAX = 1024 * 1024
SID_BYTES_MAX = 256

ADMITTED, PROGRESS, SETTLED, ACKNOWLEDGED = b"A"[0], b"P"[0], b"S"[0], b"K"[0]
KINDS = frozenset((ADMITTED, PROGRESS, SETTLED, ACKNOWLEDGED))

_FILE = struct.Struct(">8sHH")
_HEAD = struct.Struct(">IIB")
_LENGTH_AND_KIND = struct.Struct(">IB")
_CRC = struct.Struct(">I")
_SEQ_BYTES = 8
_PROGRESS = struct.Struct(">QQQQ")
_U64_MAX = 2**64 - 1
HEAD_BYTES = _HEAD.size

Bytes: TypeAlias = bytes | bytearray | memoryview
Buffer: TypeAlias = bytearray | mmap


class Record(NamedTuple):
    """One record; `kind` is ADMITTED, PROGRESS, SETTLED or ACKNOWLEDGED."""

    kind: int
    payload: bytes


class Progress(msgspec.Struct, frozen=True):
    """What of an open call was relayed, with certainty: the client may have at most one interval more."""

    seq: int
    input_tokens: int
    output_tokens: int
    cost_nanousd: int

    def dump(self) -> bytes:
        """Return the payload of a PROGRESS record."""
        amounts = (self.seq, self.input_tokens, self.output_tokens, self.cost_nanousd)
        try:
            return _PROGRESS.pack(*amounts)
        except struct.error:  # one is beyond what it can say
            return _PROGRESS.pack(*(min(max(0, n), _U64_MAX) for n in amounts))

    @classmethod
    def load(cls, payload: bytes) -> "Progress":
        """Read what `dump` wrote. Raises ValueError."""
        if len(payload) != _PROGRESS.size:
            msg = "not a progress record"
            raise ValueError(msg)
        seq, input_tokens, output_tokens, cost = _PROGRESS.unpack(payload)
        return cls(seq=seq, input_tokens=input_tokens, output_tokens=output_tokens, cost_nanousd=cost)


def header(sid: str) -> bytes:
    """Return the beginning of a file of this session."""
    name = sid.encode()
    assert len(name) <= SID_BYTES_MAX
    head = _FILE.pack(MAGIC, VERSION, len(name)) + name
    return head + _CRC.pack(crc32(head))


def encode(kind: int, payload: bytes) -> bytes:
    """Return one record. One whose payload is empty or has more than RECORD_BYTES_MAX would not be read back."""
    return _HEAD.pack(len(payload), _checksum(kind, payload), kind) + payload


def put(into: Buffer, at: int, kind: int, payload: bytes) -> None:
    """Write one record where there are zeros: its head last, so that until all of it is there the zeros still end the log.

    A head that is torn itself ends the log, too: its checksum is over its length.
    """
    start, length = at + HEAD_BYTES, len(payload)
    into[start : start + length] = payload
    into[at:start] = _HEAD.pack(length, crc32(payload, crc32(_LENGTH_AND_KIND.pack(length, kind))), kind)


def put_all(into: Buffer, at: int, records: bytes) -> None:
    """Write encoded records where there are zeros: the length of the first last, so that all are read, or none."""
    into[at + _CRC.size : at + len(records)] = memoryview(records)[_CRC.size :]
    into[at : at + _CRC.size] = records[: _CRC.size]


def encode_seqs(seqs: Sequence[int]) -> bytes:
    """Return the payload of an ACKNOWLEDGED record."""
    return struct.pack(f">{len(seqs)}Q", *seqs)


def acknowledged_in(payload: bytes) -> tuple[int, ...]:
    """Return the seqs that an ACKNOWLEDGED record names. Raises ValueError."""
    if len(payload) % _SEQ_BYTES:
        msg = "not an acknowledgement"
        raise ValueError(msg)
    return struct.unpack(f">{len(payload) // _SEQ_BYTES}Q", payload)


def settled_seq(payload: bytes) -> int:
    """Return whose settlement it is. Raises ValueError."""
    return int(payload[1 : payload.index(b",")])


def admitted_seq(payload: bytes) -> int:
    """Return whose admission it is. Raises ValueError, KeyError and TypeError."""
    seq = orjson.loads(payload)["seq"]
    if isinstance(seq, bool) or not isinstance(seq, int):
        msg = "not a sequence number"
        raise TypeError(msg)
    return seq


def decode(data: Bytes) -> tuple[str | None, list[Record], int]:
    """Return the sid (None: no valid header), the records of the longest valid prefix, and how many bytes that prefix has."""
    decoder = Decoder()
    records = decoder.feed(data)
    return decoder.sid, records, decoder.good_bytes


class Decoder:
    """Reads a file in pieces of any size; memory is bounded by one record and one piece. `within` starts behind the header."""

    def __init__(self, *, within: bool = False) -> None:
        self.sid: str | None = None
        self.good_bytes = 0
        self.broken = False  # or at its end: nothing that comes now is believed
        self._headless = not within
        self._rest = b""

    def feed(self, data: Bytes) -> list[Record]:
        """Take the next bytes; return the records that are complete with them."""
        if self.broken:
            return []
        self._rest = rest = self._rest + bytes(data)
        at = 0
        if self._headless:
            at = self._header(rest)
            if self._headless:
                return []
        records: list[Record] = []
        while len(rest) - at >= _HEAD.size:
            length, checksum, kind = _HEAD.unpack_from(rest, at)
            if not 0 < length <= RECORD_BYTES_MAX or kind not in KINDS:
                self.broken = True
                break
            end = at + _HEAD.size + length
            if end > len(rest):
                break
            payload = rest[at + _HEAD.size : end]
            if checksum != _checksum(kind, payload):
                self.broken = True
                break
            records.append(Record(kind, payload))
            at = end
        self.good_bytes += at
        self._rest = rest[at:]
        return records

    def _header(self, data: bytes) -> int:
        """Return where the first record begins; 0 while that is not known, or never will be."""
        if len(data) < _FILE.size:
            return 0
        magic, version, length = _FILE.unpack_from(data)
        end: int = _FILE.size + length
        if magic != MAGIC or version != VERSION or length > SID_BYTES_MAX:
            self.broken = True
        elif len(data) >= end + _CRC.size:
            if crc32(data[:end]) != _CRC.unpack_from(data, end)[0]:
                self.broken = True
                return 0
            self._headless, self.sid = False, data[_FILE.size : end].decode("utf-8", "replace")
            return end + _CRC.size
        return 0


def _checksum(kind: int, payload: bytes) -> int:
    return crc32(payload, crc32(_LENGTH_AND_KIND.pack(len(payload), kind)))
