"""Files in a request: data URLs and base64 made into bytes' own type and clean base64, purely.

The type that a client declares is often wrong, and providers check it against the bytes: the bytes decide. Fetching an
https URL is not done here, but asked for by `Adapter.wanted_media`. Errors name the field.
Sources: https://www.rfc-editor.org/rfc/rfc2397, https://mimesniff.spec.whatwg.org/
"""

import base64
import binascii
import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from adapters.errors import InvalidRequestError

BASE64_CHARS_MAX = 64 * 1024 * 1024  # above any provider's limit; the listener's own limit is lower
_HEAD_CHARS = 64  # base64 of the 48 bytes in which a type shows itself
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/]")
_MIME = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF", "application/pdf"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
    (b"\x1a\x45\xdf\xa3", "video/webm"),
)
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/x-msvideo"}
_BRANDS = {b"heic": "image/heic", b"heix": "image/heic", b"mif1": "image/heif", b"avif": "image/avif"}
_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "application/x-pdf": "application/pdf",
    "audio/mp3": "audio/mpeg",
    "audio/x-wav": "audio/wav",
    "audio/wave": "audio/wav",
}
_BY_ENDING = {
    "pdf": "application/pdf",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
    "htm": "text/html",
    "xml": "text/xml",
    "json": "application/json",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xls": "application/vnd.ms-excel",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "webp": "image/webp",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "mp4": "video/mp4",
}
_TEXTUAL = frozenset(
    {"application/json", "application/xml", "application/yaml", "application/x-yaml", "application/javascript"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inline:
    """A file in the request: its type as the bytes show it, and standard padded base64 without line ends."""

    mime: str
    base64: str

    @property
    def data(self) -> bytes:
        """The bytes themselves."""
        return base64.b64decode(self.base64)

    @property
    def textual(self) -> bool:
        """True for what is text in some encoding, and can be sent as text."""
        return self.mime.startswith("text/") or self.mime in _TEXTUAL


def url_kind(url: str) -> str:
    """Return a URL's scheme: data, https, http, gs, s3, file …; "" for none."""
    scheme, colon, _ = url[:16].partition(":")
    return scheme.lower() if colon else ""


def parse_data_url(url: str, source: str, filename: str | None = None) -> Inline:
    """Return the file in a data URL. Raises InvalidRequestError with `source` as its param."""
    head, comma, data = url.partition(",")
    if not comma or not head[:5].lower() == "data:" or len(url) > BASE64_CHARS_MAX:
        raise InvalidRequestError("This is not a data URL, or one that is too large.", param=source)
    declared, *options = (part.strip().lower() for part in head[5:].split(";"))
    text = _clean(data, source) if "base64" in options else base64.b64encode(unquote_to_bytes(data)).decode()
    return Inline(mime=_mime(text, declared, filename), base64=text)


def parse_file_data(data: str, source: str, filename: str | None = None) -> Inline:
    """Return the file in `file_data`, which is a data URL or bare base64. Raises InvalidRequestError."""
    if data[:5].lower() == "data:":
        return parse_data_url(data, source, filename)
    if len(data) > BASE64_CHARS_MAX:
        raise InvalidRequestError("This file is too large.", param=source)
    text = _clean(data, source)
    return Inline(mime=_mime(text, "", filename), base64=text)


def inline(data: bytes, declared: str = "", filename: str | None = None) -> Inline:
    """Return bytes that were fetched, in the same form."""
    text = base64.b64encode(data).decode()
    return Inline(mime=_mime(text, declared.partition(";")[0].strip().lower(), filename), base64=text)


def text_of(file: Inline, source: str) -> str:
    """Return a text file's text: UTF-8, or UTF-16 with its mark. Raises InvalidRequestError."""
    data = file.data
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InvalidRequestError("This text file is not in UTF-8.", param=source) from error


def sniff(head: bytes) -> str | None:
    """Return the type that a file's first bytes show, None if they show none."""
    for magic, mime in _MAGIC:
        if head.startswith(magic):
            return mime
    if head[:4] == b"RIFF":
        return _RIFF.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "video/mp4")
    return None


def _clean(data: str, source: str) -> str:
    if "%" in data:
        data = unquote_to_bytes(data).decode("ascii", "replace")
    text = "".join(data.split()).replace("-", "+").replace("_", "/").rstrip("=")
    if not text or _NOT_BASE64.search(text) or len(text) % 4 == 1:
        raise InvalidRequestError("This is not base64.", param=source)
    return text + "=" * (-len(text) % 4)


def _mime(text: str, declared: str, filename: str | None) -> str:
    try:
        head = base64.b64decode(text[:_HEAD_CHARS])
    except binascii.Error:  # bits left over in the last character: the head is not needed that much
        head = b""
    declared = _ALIASES.get(declared, declared)
    ending = (filename or "").rpartition(".")[2].lower()
    known = declared if _MIME.fullmatch(declared) and declared != "application/octet-stream" else None
    shown = sniff(head)
    if shown == "video/mp4" and known and known.split("/")[0] in ("audio", "video"):
        shown = known  # one container of many types; what was declared is nearer
    return (
        shown
        or known
        or _BY_ENDING.get(ending)
        or ("text/plain" if _looks_textual(head) else "application/octet-stream")
    )


def _looks_textual(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        text = head[: error.start].decode() if error.start >= len(head) - 3 else "\0"
    return all(character.isprintable() or character.isspace() for character in text)
