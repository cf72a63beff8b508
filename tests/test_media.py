"""Files in a request: what the bytes say counts, and errors name the field."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.errors import InvalidRequestError
from adapters.media import inline, parse_data_url, parse_file_data, sniff, text_of, url_kind

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 40
JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 40
GIF = b"GIF89a" + b"\0" * 40
WEBP = b"RIFF\x10\0\0\0WEBPVP8 " + b"\0" * 40
PDF = b"%PDF-1.7\n" + b"\0" * 40


def attempt(read: Any, text: str, filename: str) -> tuple[Any, Any]:
    try:
        return read(text, "p", filename), None
    except InvalidRequestError as error:
        return None, error


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    ("declared", "data", "mime"),
    [
        ("image/png", PNG, "image/png"),
        ("image/jpg", JPEG, "image/jpeg"),
        ("image/jpeg", WEBP, "image/webp"),
        ("image/png", GIF, "image/gif"),
        ("application/octet-stream", PDF, "application/pdf"),
        ("image/jpg", b"\0" * 20, "image/jpeg"),
        ("IMAGE/PNG", b"\0" * 20, "image/png"),
        ("", b"hello there", "text/plain"),
        ("", "grüße 🦩".encode(), "text/plain"),
        ("", b"\0\1\2\3", "application/octet-stream"),
        ("not a type", b"\0\1\2\3", "application/octet-stream"),
        ("audio/mp4", b"\0\0\0\x18ftypM4A \0\0", "audio/mp4"),
        ("", b"\0\0\0\x18ftypmp42\0\0", "video/mp4"),
        ("audio/x-wav", b"RIFF\0\0\0\0WAVEfmt ", "audio/wav"),
    ],
)
def test_the_type_is_what_the_bytes_show_then_what_was_declared(declared, data, mime):
    """wire 3.56"""
    made = parse_data_url(f"data:{declared};base64,{encoded(data)}", "p")
    assert (made.mime, made.data) == (mime, data)
    assert inline(data, declared).mime == mime


@pytest.mark.parametrize("filename", ["a.pdf", "a.csv", "a.json", None])
def test_a_files_name_helps_where_neither_bytes_nor_type_say(filename):
    expected = {"a.pdf": "application/pdf", "a.csv": "text/csv", "a.json": "application/json", None: "text/plain"}
    assert parse_file_data(encoded(b"a,b,c"), "p", filename).mime == expected[filename]


def test_file_data_may_be_a_data_url_or_bare_base64_with_line_ends_or_without_padding():
    for text in (
        encoded(PDF),
        f"data:application/pdf;base64,{encoded(PDF)}",
        encoded(PDF).rstrip("="),
        "\n".join(encoded(PDF)),
        encoded(PDF).replace("+", "-").replace("/", "_"),
        encoded(PDF).replace("=", "%3D"),
    ):
        made = parse_file_data(text, "p")
        assert (made.mime, made.data, made.base64) == ("application/pdf", PDF, encoded(PDF))


def test_a_data_url_may_be_percent_encoded_text():
    made = parse_data_url("data:text/plain;charset=utf-8,a%20b%2C,c", "p")
    assert (made.mime, made.data) == ("text/plain", b"a b,,c")
    assert made.textual


@pytest.mark.parametrize(
    "url", ["data:image/png;base64", "image/png,AAAA", "data:;base64,", "data:;base64,a", "data:;base64,§§§§"]
)
def test_what_is_no_file_is_refused_with_the_fields_name(url):
    with pytest.raises(InvalidRequestError) as caught:
        parse_data_url(url, "messages[0].content[1].image_url.url")
    assert caught.value.param == "messages[0].content[1].image_url.url"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain", "plain"),
        ("grüße".encode(), "grüße"),
        (b"\xef\xbb\xbfmarked", "marked"),
        ("wide".encode("utf-16"), "wide"),
    ],
)
def test_a_text_file_is_read_in_its_encoding(data, text):
    assert text_of(inline(data, "text/plain"), "p") == text


def test_a_text_file_in_an_unknown_encoding_is_refused():
    with pytest.raises(InvalidRequestError) as caught:
        text_of(inline(b"gr\xfc\xdfe", "text/plain"), "p")
    assert caught.value.param == "p"


@pytest.mark.parametrize(
    ("url", "kind"),
    [("https://x", "https"), ("HTTP://x", "http"), ("data:,x", "data"), ("gs://b/o", "gs"), ("plain", ""), ("", "")],
)
def test_a_urls_kind_is_its_scheme(url, kind):
    assert url_kind(url) == kind


@given(st.binary(max_size=200))
def test_any_bytes_survive_the_way_through_a_data_url(data):
    if data:
        assert parse_data_url(f"data:;base64,{encoded(data)}", "p").data == data
    assert sniff(data) is None or "/" in str(sniff(data))


@given(st.text(max_size=100), st.text(max_size=10))
def test_any_text_is_a_file_or_a_clean_error(text, filename):
    for read in (parse_file_data, parse_data_url):
        made, error = attempt(read, text, filename)
        assert error.param == "p" if made is None else base64.b64decode(made.base64, validate=True) == made.data
