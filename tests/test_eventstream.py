"""Amazon's event stream, checked against the decoder of Amazon's own SDK."""

import base64
import struct
import uuid
from collections.abc import Iterable
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from adapters import eventstream
from adapters.eventstream import Decoder, EventStreamError, Message, encode
from tests import recorded

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20)
HEADERS = st.dictionaries(NAMES, st.text(max_size=60), max_size=5)
FRAMES = st.lists(st.tuples(HEADERS, st.binary(max_size=300)), max_size=5)


def frame(headers: bytes, payload: bytes) -> bytes:
    lengths = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    body = lengths + struct.pack(">I", crc32(lengths)) + headers + payload
    return body + struct.pack(">I", crc32(body))


def decode(pieces: Iterable[bytes]) -> tuple[list[tuple[dict[str, object], bytes]], str]:
    decoder, found = Decoder(), []
    try:
        for piece in pieces:
            for message in decoder.feed(piece):
                found.append((dict(message.headers), message.payload))
    except EventStreamError as error:
        return found, str(error)
    return found, ""


def by_botocore(data: bytes) -> list[tuple[dict[str, object], bytes]]:
    buffer = EventStreamBuffer()
    buffer.add_data(data)
    return [(dict(event.headers), event.payload) for event in buffer]


@given(FRAMES, st.data())
def test_any_split_decodes_alike_and_as_amazons_own_decoder_does(frames, data):
    """wire 3.26."""
    whole = b"".join(encode(headers, payload) for headers, payload in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert decode(pieces) == (by_botocore(whole), "")
    assert decode([whole[i : i + 1] for i in range(len(whole))]) == decode([whole])


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=4))
def test_any_bytes_either_decode_or_raise_the_one_error_alike_for_every_split(noise, cuts):
    cuts = sorted(min(cut, len(noise)) for cut in cuts)
    pieces = [noise[a:b] for a, b in zip([0, *cuts], [*cuts, len(noise)], strict=True)]
    assert decode(pieces) == decode([noise])


@given(FRAMES.filter(bool), st.data())
def test_one_wrong_bit_never_yields_a_wrong_message(frames, data):
    whole = b"".join(encode(headers, payload) for headers, payload in frames)
    at = data.draw(st.integers(0, len(whole) * 8 - 1))
    broken = bytearray(whole)
    broken[at // 8] ^= 1 << (at % 8)
    right = by_botocore(whole)
    found, error = decode([bytes(broken)])
    assert found == right[: len(found)]
    assert error
    assert len(found) < len(right)


HEADER_TYPES = [
    ("true", b"\x00", True),
    ("false", b"\x01", False),
    ("byte", b"\x02\xff", -1),
    ("short", b"\x03\x01\x00", 256),
    ("integer", b"\x04\xff\xff\xff\xfe", -2),
    ("long", b"\x05" + struct.pack(">q", -(2**62)), -(2**62)),
    ("bytes", b"\x06\x00\x03abc", b"abc"),
    ("string", b"\x07\x00\x02\xc3\xa9", "é"),
    ("uuid", b"\x09" + uuid.UUID(int=7).bytes, uuid.UUID(int=7).bytes),
]


@pytest.mark.parametrize(("packed", "value"), [row[1:] for row in HEADER_TYPES], ids=[row[0] for row in HEADER_TYPES])
def test_every_header_type_is_read_as_amazons_decoder_reads_it(packed, value):
    data = frame(b"\x01h" + packed, b"{}")
    assert decode([data]) == ([({"h": value}, b"{}")], "")
    assert by_botocore(data)[0][0]["h"] == value


def test_a_timestamp_is_its_milliseconds():
    assert decode([frame(b"\x01t\x08" + struct.pack(">q", 1234), b"")])[0] == [({"t": 1234}, b"")]


GOOD = encode({":event-type": "a"}, b"{}")
BROKEN = [
    ("prelude checksum", GOOD[:8] + b"\0\0\0\0" + GOOD[12:], "prelude"),
    ("message checksum", GOOD[:-1] + bytes([GOOD[-1] ^ 1]), "checksum of a message is wrong"),
    ("too short", struct.pack(">III", 15, 0, crc32(struct.pack(">II", 15, 0))), "impossible length"),
    ("headers beyond the message", struct.pack(">III", 20, 9, crc32(struct.pack(">II", 20, 9))), "impossible length"),
    ("unknown header type", frame(b"\x01h\x0a", b""), "unknown type"),
    ("header cut off", frame(b"\x01h\x07\x00\x09abc", b""), "cut off"),
    ("header length cut off", frame(b"\x01h\x07\x00", b""), "malformed"),
    ("name beyond the block", frame(b"\x09h", b""), "malformed"),
    ("name not text", frame(b"\x01\xff\x00", b""), "malformed"),
    ("value not text", frame(b"\x01h\x07\x00\x01\xff", b""), "malformed"),
    ("header twice", frame(b"\x01h\x00\x01h\x00", b""), "twice"),
]


@pytest.mark.parametrize(("data", "words"), [row[1:] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_broken_message_is_one_clear_error_after_the_good_ones(data, words):
    found, error = decode([GOOD + data + GOOD])
    assert found == [({":event-type": "a"}, b"{}")]
    assert words in error


def test_a_message_that_announces_too_much_is_refused_before_it_is_held():
    lengths = struct.pack(">II", eventstream.MESSAGE_BYTES_MAX + 1, 0)
    assert "impossible length" in decode([lengths + struct.pack(">I", crc32(lengths))])[1]
    lengths = struct.pack(">II", eventstream.HEADERS_BYTES_MAX + 100, eventstream.HEADERS_BYTES_MAX + 1)
    assert "too long" in decode([lengths + struct.pack(">I", crc32(lengths))])[1]


def test_a_decoder_that_broke_stays_broken_and_holds_nothing():
    decoder = Decoder()
    with pytest.raises(EventStreamError):
        list(decoder.feed(BROKEN[0][1]))
    with pytest.raises(EventStreamError):
        list(decoder.feed(GOOD))
    assert decoder.pending == 0


def test_the_beginning_of_a_message_is_pending():
    decoder = Decoder()
    assert list(decoder.feed(GOOD[:-1])) == []
    assert decoder.pending == len(GOOD) - 1
    assert [message.payload for message in decoder.feed(GOOD[-1:])] == [b"{}"]
    assert decoder.pending == 0


def test_a_header_that_is_no_string_reads_as_none_and_a_payload_is_not_shown():
    message = Message({"a": 1, "b": "x"}, b"what a model said")
    assert (message.header("a"), message.header("b"), message.header("c")) == ("", "x", "")
    assert "said" not in repr(message)


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
def test_recorded_streams_decode_as_amazons_decoder_decodes_them():
    seen = 0
    for case_id in recorded.case_ids("bedrock-converse"):
        response = recorded.load(case_id)["response"]
        if response["body_kind"] != "aws-eventstream":
            continue
        data = base64.b64decode(response["body_base64"])
        assert decode([data]) == (by_botocore(data), "")
        assert decode([data[i : i + 7] for i in range(0, len(data), 7)]) == (by_botocore(data), "")
        seen += 1
    assert seen
