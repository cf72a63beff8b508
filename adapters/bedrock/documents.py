"""Files as Converse's image, document, video and audio blocks: each with a format of its own short list.

A document's name is part of the prompt, and Bedrock refuses all but letters, digits, single spaces and a few marks.
Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_DocumentBlock.html
"""

import re

from adapters.base import JSON
from adapters.errors import UnsupportedParameterError
from adapters.media import Inline

NAME_CHARS_MAX = 200

_IMAGES = {"image/png": "png", "image/jpeg": "jpeg", "image/gif": "gif", "image/webp": "webp"}
_DOCUMENTS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_VIDEOS = {
    "video/x-matroska": "mkv",
    "video/quicktime": "mov",
    "video/mp4": "mp4",
    "video/webm": "webm",
    "video/x-flv": "flv",
    "video/mpeg": "mpeg",
    "video/x-ms-wmv": "wmv",
    "video/3gpp": "three_gp",
}
_AUDIOS = {
    "audio/mpeg": "mp3",
    "audio/opus": "opus",
    "audio/wav": "wav",
    "audio/aac": "aac",
    "audio/flac": "flac",
    "audio/mp4": "mp4",
    "audio/ogg": "ogg",
    "audio/webm": "webm",
}
_KINDS = (("image", _IMAGES), ("document", _DOCUMENTS), ("video", _VIDEOS), ("audio", _AUDIOS))
_ENDINGS = {"jpg": "jpeg", "htm": "html", "3gp": "three_gp"}
_NOT_IN_NAMES = re.compile(r"[^0-9A-Za-z\-()\[\]]+")


class Names:
    """Gives each document of one request a name that Bedrock takes, and no two the same."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def name(self, filename: str | None) -> str:
        """Return a name for a file, from its own as far as it may be used."""
        stem = (filename or "").rpartition(".")[0] or filename or ""
        wanted = _NOT_IN_NAMES.sub(" ", stem).strip()[: NAME_CHARS_MAX - 10].strip() or "Document 1"
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"Document {number}" if wanted == "Document 1" else f"{wanted} ({number})"
        self._taken.add(name)
        return name


def media_block(file: Inline, filename: str | None, names: Names, source: str) -> JSON:
    """Return the block of a file, by its type. Raises UnsupportedParameterError, naming `source`."""
    for kind, formats in _KINDS:
        if file.mime in formats:
            return _block(kind, formats[file.mime], {"bytes": file.base64}, filename, names)
    if file.textual:
        return _block("document", "txt", {"bytes": file.base64}, filename, names)
    raise UnsupportedParameterError(source, f"This provider takes no files of type {file.mime}.")


def reference_block(url: str, names: Names, source: str) -> JSON:
    """Return the block of a file in S3, by the ending of its name. Raises UnsupportedParameterError."""
    filename = url.rpartition("/")[2]
    ending = filename.rpartition(".")[2].lower()
    wanted = _ENDINGS.get(ending, ending)
    for kind, formats in _KINDS:
        if wanted in formats.values():
            return _block(kind, wanted, {"s3Location": {"uri": url}}, filename, names)
    raise UnsupportedParameterError(source, "The ending of this file's name tells no type that this provider takes.")


def _block(kind: str, format_: str, source: JSON, filename: str | None, names: Names) -> JSON:
    block: JSON = {"format": format_, "source": source}
    if kind == "document":
        block = {"format": format_, "name": names.name(filename), "source": source}
    return {kind: block}
