"""What pictures, files and sound cost: the vendors' published examples, real headers of every format, and broken ones."""

import base64
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounting.tokens.counter import count_chat, upper_bound
from accounting.tokens.families import family_of
from accounting.tokens.image_size import HEAD_BYTES, image_size
from accounting.tokens.media import (
    FILE_TOKENS_MAX,
    PAGES_MAX,
    PAGES_OF_UNSEEN_FILE,
    audio_tokens,
    decode_base64,
    file_tokens,
    image_tokens,
    pdf_pages,
)
from accounting.tokens.text import byte_count


def png(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def jpeg(width: int, height: int, *, metadata: int = 0, frame: int = 0xC0) -> bytes:
    blocks = b"".join(
        b"\xff\xe2"
        + struct.pack(">H", min(65_000, metadata - at) + 2)
        + b"\xff\xc0" * (min(65_000, metadata - at) // 2)
        for at in range(0, metadata, 65_000)
    )
    app0 = b"\xff\xe0" + struct.pack(">H", 16) + b"JFIF\0" + bytes(9)
    tables = b"\xff\xc4" + struct.pack(">H", 6) + bytes(4)
    return (
        b"\xff\xd8"
        + app0
        + blocks
        + tables
        + b"\xff\xff"
        + bytes([frame])
        + struct.pack(">HBHHB", 17, 8, height, width, 3)
    )


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HH", width, height) + bytes(3)


def webp_lossy(width: int, height: int) -> bytes:
    chunk = b"VP8 " + struct.pack("<I", 20) + b"\x30\x01\x00\x9d\x01\x2a" + struct.pack("<HH", width, height)
    return b"RIFF" + struct.pack("<I", 30) + b"WEBP" + chunk


def webp_lossless(width: int, height: int) -> bytes:
    chunk = b"VP8L" + struct.pack("<I", 20) + b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14)
    return b"RIFF" + struct.pack("<I", 30) + b"WEBP" + chunk


def webp_extended(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 30) + b"WEBP" + b"VP8X" + struct.pack("<I", 10) + bytes(4) + size


FORMATS = [png, jpeg, gif, webp_lossy, webp_lossless, webp_extended]


def data_url(data: bytes, mime: str = "image/png") -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode()}"


def tokens(url: str, model: str, detail: str = "high") -> int:
    return image_tokens(url, detail, model, family_of(model))


@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("size", [(1, 1), (640, 480), (480, 640), (12_000, 9)])
def test_a_pictures_size_is_read_from_its_header(make, size):
    assert image_size(make(*size)) == size


@pytest.mark.parametrize("frame", [0xC0, 0xC1, 0xC2, 0xCF])
def test_a_jpegs_size_is_found_behind_its_metadata(frame):
    assert image_size(jpeg(640, 480, metadata=150_000, frame=frame)) == (640, 480)


@pytest.mark.parametrize("make", FORMATS, ids=lambda make: make.__name__)
def test_a_picture_cut_short_has_its_size_or_none(make):
    whole = make(640, 480)
    for length in range(len(whole)):
        assert image_size(whole[:length]) in (None, (640, 480))


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8 "]),
)
def test_any_bytes_have_a_size_or_none(data, start):
    size = image_size(start + data)
    assert size is None or min(size) > 0


def test_a_jpeg_of_endless_segments_ends():
    assert image_size(b"\xff\xd8" + b"\xff\xe0\x00\x02" * 40_000) is None
    assert image_size(b"\xff\xd8" + b"\xff" * HEAD_BYTES) is None
    assert image_size(b"\xff\xd8" + b"\xff\xd0" * 40_000) is None


def test_a_picture_of_no_size_counts_as_the_largest():
    assert tokens(data_url(png(0, 100)), "gpt-4o") == tokens("https://example.com/a.png", "gpt-4o")


@pytest.mark.parametrize(
    ("size", "detail", "model", "expected"),
    [
        # https://platform.openai.com/docs/guides/images-vision#calculating-costs
        ((1024, 1024), "high", "gpt-4o", 765),
        ((2048, 4096), "high", "gpt-4o", 1105),
        ((4096, 8192), "low", "gpt-4o", 85),
        ((1024, 1024), "auto", "gpt-4o", 765),
        ((1024, 1024), "high", "gpt-4o-mini", 2833 + 4 * 5667),
        ((1024, 1024), "low", "gpt-4o-mini", 2833),
        ((1024, 1024), "high", "gpt-5", 70 + 4 * 140),
        ((1024, 1024), "high", "o1", 75 + 4 * 150),
        ((1024, 1024), "high", "gpt-4.1", 765),
        ((1024, 1024), "high", "gpt-4.1-mini", 1659),  # 1024 patches x 1.62
        ((10_000, 10_000), "high", "gpt-4.1-mini", 2489),  # 1536 patches
        ((1024, 1024), "low", "gpt-5-nano", 2520),
        ((32, 32), "high", "o4-mini", 2),
        # https://platform.claude.com/docs/en/build-with-claude/vision
        ((200, 200), "auto", "claude-sonnet-4-5", 58),
        ((1000, 1000), "auto", "claude-sonnet-4-5", 1338),
        ((8000, 8000), "auto", "claude-sonnet-4-5", 1640),
        ((8000, 8000), "auto", "claude-opus-4-7", 4784),
        # https://ai.google.dev/gemini-api/docs/image-understanding#token-calculation
        ((384, 384), "auto", "gemini-2.5-flash", 258),
        ((960, 540), "auto", "gemini-2.5-flash", 1548),
        ((30_000, 100), "auto", "gemini-2.5-flash", 24 * 258),
        ((384, 384), "auto", "gemini-3-pro-preview", 2240),
        ((448, 448), "auto", "grok-4", 512),
        ((9999, 9999), "auto", "grok-4", 1792),
    ],
)
def test_a_picture_costs_what_its_vendor_says(size, detail, model, expected):
    for make in (png, jpeg):
        assert tokens(data_url(make(*size)), model, detail) == expected


MODELS = ["gpt-4o", "gpt-4o-mini", "gpt-5", "gpt-5-mini", "gpt-5.4", "gpt-6-sol", "o3", "claude-sonnet-4-5", "claude-opus-5", "gemini-2.5-pro", "grok-4", "llama-4", "nobody"]  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
@given(
    width=st.integers(1, 60_000),
    height=st.integers(1, 60_000),
    detail=st.sampled_from(["low", "high", "auto", "original", "x"]),
)
def test_no_picture_costs_more_than_one_whose_size_is_unknown(model, width, height, detail):
    assert 0 < tokens(data_url(png(width, height)), model, detail) <= tokens("https://example.com/a.png", model, detail)


def picture_message(url, **more):
    return {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url, **more}}]}]}


def test_a_picture_is_never_counted_as_its_base64():
    body = picture_message(data_url(png(100, 100) + bytes(3_000_000)), detail="high")
    assert count_chat(body, "gpt-4o") == 3 + 3 + 1 + 255
    assert upper_bound("chat", body, "gpt-4o") == 3 + 3 + 4 + 255


def test_the_detail_of_a_picture_is_obeyed_in_both_request_forms():
    url = data_url(png(1024, 1024))
    low = count_chat(picture_message(url, detail="low"), "gpt-4o")
    assert count_chat(picture_message(url, detail="high"), "gpt-4o") - low == 765 - 85
    part = {"messages": [{"role": "user", "content": [{"type": "input_image", "image_url": url, "detail": "low"}]}]}
    assert count_chat(part, "gpt-4o") == low


@pytest.mark.parametrize("part", [{"type": "image_url"}, {"type": "image_url", "image_url": 7}, {"type": "image_url", "image_url": {"url": None, "detail": 3}}], ids=str)  # fmt: skip
def test_a_picture_that_is_none_counts_as_the_largest(part):
    body = {"messages": [{"role": "user", "content": [part]}]}
    assert count_chat(body, "gpt-4o") == 3 + 3 + 1 + 85 + 8 * 170


def pdf(pages: int, *, hidden: bool = False) -> bytes:
    objects = [b"%d 0 obj <</Type /Page /Parent 1 0 R>> endobj\n" % number for number in range(pages)]
    tree = b"1 0 obj <</Type /Pages /Count %d>> endobj\n" % pages
    body = b"".join(objects)
    return b"%PDF-1.7\n" + (zlib.compress(tree + body) if hidden else tree + body + b"x" * 50)


@pytest.mark.parametrize("pages", [1, 7, 500])
def test_a_pdfs_pages_are_counted(pages):
    assert pdf_pages(base64.b64encode(pdf(pages)).decode()) == pages


def test_a_pdf_over_several_windows_loses_no_page():
    data = b"".join(b"<</Type /Page>>" + b" " * 40_000 for _ in range(90))
    assert pdf_pages(base64.b64encode(b"%PDF-1.4" + data).decode()) == 90


def test_a_pdf_that_hides_its_pages_has_one_for_each_4_kib():
    data = b"%PDF-1.7" + bytes(range(256)) * 400
    assert pdf_pages(base64.b64encode(data).decode()) == 27
    assert pdf_pages(base64.b64encode(b"%PDF" + bytes(50_000_000)).decode()) == PAGES_MAX
    assert pdf_pages(base64.b64encode(b"%PDF /Count 999999 ").decode()) == PAGES_MAX


def test_a_file_costs_by_its_kind():
    gpt = family_of("gpt-4o")
    text = data_url(b"Hello world", "text/plain")
    assert file_tokens(text, "gpt-4o", gpt, byte_count) == 11
    one = file_tokens(data_url(pdf(1), "application/pdf"), "gpt-4o", gpt, byte_count)
    assert 3000 < one < 6000
    assert file_tokens(base64.b64encode(pdf(1)).decode(), "gpt-4o", gpt, byte_count) == one  # without its header
    assert file_tokens(data_url(pdf(3), "application/pdf"), "gpt-4o", gpt, byte_count) == 3 * one
    assert file_tokens("", "gpt-4o", gpt, byte_count) == PAGES_OF_UNSEEN_FILE * one
    assert file_tokens("https://example.com/a.pdf", "gpt-4o", gpt, byte_count) == PAGES_OF_UNSEEN_FILE * one
    assert file_tokens(data_url(bytes(3000), "application/zip"), "gpt-4o", gpt, byte_count) == 3000
    assert file_tokens(data_url(bytes(3_000_000), "application/zip"), "gpt-4o", gpt, byte_count) == FILE_TOKENS_MAX


def test_a_file_part_is_counted_with_its_name_in_both_request_forms():
    file = {"filename": "paper.pdf", "file_data": data_url(pdf(1), "application/pdf")}
    chat = {"messages": [{"role": "user", "content": [{"type": "file", "file": file}]}]}
    flat = {"messages": [{"role": "user", "content": [{"type": "input_file", **file}]}]}
    assert count_chat(chat, "gpt-4o") == count_chat(flat, "gpt-4o") > 3000
    by_id = {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]}
    assert count_chat(by_id, "gpt-4o") > 100_000


def wav(seconds: int, bytes_per_s: int) -> bytes:
    head = b"RIFF" + bytes(4) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 24_000, bytes_per_s, 2, 16)
    return head + b"data" + bytes(4) + bytes(seconds * bytes_per_s)


@pytest.mark.parametrize(
    ("data", "sound_format", "model", "seconds"),
    [
        (wav(10, 48_000), "wav", "gpt-4o-audio-preview", 12),
        (wav(10, 0) + bytes(80_000), "wav", "gpt-4o-audio-preview", 12),  # a header that lies
        (wav(0, 4_000_000_000) + bytes(80_000), "wav", "gpt-4o-audio-preview", 12),
        (b"ID3" + bytes(9_996), "mp3", "gpt-4o-audio-preview", 11),
        (bytes(7_500), "never heard of", "gemini-2.5-flash", 11),
        (b"", "mp3", "gpt-4o-audio-preview", 1),
    ],
)
def test_sound_costs_as_long_as_it_can_last(data, sound_format, model, seconds):
    family = family_of(model)
    counted = audio_tokens(base64.b64encode(data).decode(), sound_format, family)
    assert (seconds - 1) * family.audio_per_s <= counted <= seconds * family.audio_per_s


def test_sound_is_counted_by_time_and_not_as_text():
    audio = {"data": base64.b64encode(wav(10, 48_000)).decode(), "format": "wav"}
    body = {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": audio}]}]}
    assert 100 < count_chat(body, "gpt-4o-audio-preview") < 150


@given(
    st.text(max_size=80) | st.binary(max_size=80).map(lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="))
)
def test_any_text_decodes_as_base64_or_to_nothing(text):
    assert len(decode_base64(text)) <= len(text)


@given(st.binary(max_size=60), st.booleans())
def test_base64_decodes_in_both_alphabets_without_padding(data, url_safe):
    encoded = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(data).decode().rstrip("=")
    assert decode_base64(encoded) == data
