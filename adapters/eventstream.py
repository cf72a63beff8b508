"""Amazon's event stream: bytes in, messages out, however the bytes are cut.

A message that fails either of its two checksums ends the stream: after one wrong length nothing that follows can be
trusted, so the decoder never looks for a next beginning. What came whole before the damage is still given out.
Source: https://docs.aws.amazon.com/transcribe/latest/dg/streaming-setting-up.html (event stream encoding), and
https://smithy.io/2.0/aws/amazon-eventstream.html
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from zlib import crc32

MESSAGE_BYTES_MAX = 24 * 1024 * 1024  # Amazon's own SDKs refuse more
HEADERS_BYTES_MAX = 128 * 1024

_PRELUDE = struct.Struct(">III")  # length of all, length of the headers, checksum of these eight bytes
_CRC_BYTES = 4
_FRAME_BYTES = _PRELUDE.size + _CRC_BYTES  # a message without headers and payload
_STRING = 7  # the type of the only headers that Bedrock sends
_BYTES = 6
_FIXED_BYTES = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}  # true, false, integers, a timestamp, a UUID

Value: TypeAlias = str | bytes | int | bool


class EventStreamError(Exception):
    """The bytes are no event stream: a wrong checksum, length or header. The message says which."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message: its headers (integers and timestamps as int, a UUID as bytes) and its payload."""

    headers: Mapping[str, Value]
    payload: bytes = field(repr=False)  # what a model said

    def header(self, name: str) -> str:
        """Return a string header, "" when it is absent or something else."""
        value = self.headers.get(name)
        return value if isinstance(value, str) else ""


class Decoder:
    """Incremental decoder; `feed` may be called with pieces of any size."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._length = 0  # of the message at the front, once its prelude has been checked
        self._broken: EventStreamError | None = None

    @property
    def pending(self) -> int:
        """How many bytes of an unfinished message are held."""
        return len(self._rest)

    def feed(self, piece: bytes) -> Iterator[Message]:
        """Take a piece; return an iterator over the messages that it completes.

        The iterator raises EventStreamError after the last good message; so does every later call.
        """
        if self._broken is None:
            self._rest += piece
        return self._messages()

    def _messages(self) -> Iterator[Message]:
        if self._broken is not None:
            raise self._broken
        start = 0
        try:
            while (message := self._next(start)) is not None:
                start += self._length
                self._length = 0
                yield message
        except EventStreamError as error:
            self._broken = error
            start = len(self._rest)
            raise
        finally:
            del self._rest[:start]

    def _next(self, start: int) -> Message | None:
        held = len(self._rest) - start
        if not self._length:
            if held < _PRELUDE.size:
                return None
            self._length = _checked_length(self._rest, start)
        if held < self._length:
            return None
        return _parse(bytes(memoryview(self._rest)[start : start + self._length]))


def encode(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Return one message with string headers; what a server sends, for fakes and tests."""
    packed = bytearray()
    for name, value in headers.items():
        key, text = name.encode(), value.encode()
        packed += struct.pack(">B", len(key)) + key + struct.pack(">BH", _STRING, len(text)) + text
    lengths = struct.pack(">II", _FRAME_BYTES + len(packed) + len(payload), len(packed))
    frame = lengths + struct.pack(">I", crc32(lengths)) + bytes(packed) + payload
    return frame + struct.pack(">I", crc32(frame))


def _checked_length(data: bytearray, start: int) -> int:
    length, headers_length, checksum = _PRELUDE.unpack_from(data, start)
    if crc32(memoryview(data)[start : start + 8]) != checksum:
        raise EventStreamError("the checksum of a message's prelude is wrong")
    if headers_length > HEADERS_BYTES_MAX:
        raise EventStreamError("the headers of a message are too long")
    if not _FRAME_BYTES + headers_length <= length <= MESSAGE_BYTES_MAX:
        raise EventStreamError("a message has an impossible length")
    return int(length)


def _parse(frame: bytes) -> Message:
    (checksum,) = struct.unpack_from(">I", frame, len(frame) - _CRC_BYTES)
    if crc32(memoryview(frame)[:-_CRC_BYTES]) != checksum:
        raise EventStreamError("the checksum of a message is wrong")
    _, headers_length, _ = _PRELUDE.unpack_from(frame)
    end = _PRELUDE.size + headers_length
    try:
        headers = _headers(frame[_PRELUDE.size : end])
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise EventStreamError("a header of a message is malformed") from error
    return Message(headers, frame[end:-_CRC_BYTES])


def _headers(block: bytes) -> dict[str, Value]:
    headers: dict[str, Value] = {}
    at = 0
    while at < len(block):
        name_end = at + 1 + block[at]
        name = block[at + 1 : name_end].decode()
        kind = block[name_end]
        at, value = _value(block, name_end + 1, kind)
        if name in headers:
            raise EventStreamError("a header of a message is given twice")
        headers[name] = value
    return headers


def _value(block: bytes, at: int, kind: int) -> tuple[int, Value]:
    if kind in {_STRING, _BYTES}:
        (length,) = struct.unpack_from(">H", block, at)
        at += 2
    elif kind in _FIXED_BYTES:
        length = _FIXED_BYTES[kind]
    else:
        raise EventStreamError("a header of a message has an unknown type")
    raw = block[at : at + length]
    if len(raw) != length:
        raise EventStreamError("a header of a message is cut off")
    return at + length, _read(kind, raw)


def _read(kind: int, raw: bytes) -> Value:
    match kind:
        case 0 | 1:
            return kind == 0
        case 2 | 3 | 4 | 5 | 8:
            return int.from_bytes(raw, "big", signed=True)
        case 7:
            return raw.decode()
        case _:
            return raw
