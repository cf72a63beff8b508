"""Reads credential files: tokens that a platform rotates, and the JSON files that clouds hand out.

They are small and read at start or when a token is renewed, never on a call's way. What is in them never gets into an
error, not even as its cause.
"""

from pathlib import Path

import orjson

from adapters.base import JSON
from adapters.credentials.base import Secret

_BYTES_MAX = 64 * 1024


class CredentialsError(ValueError):
    """Credentials are configured in a way that cannot work; the message says where, and is safe to show."""


def read_secret(path: str) -> Secret:
    """Return what is in a file, without the white space around it. Raises CredentialsError."""
    text = _read(path).decode("utf-8", "replace").strip()
    if not text:
        raise CredentialsError(f"the credentials file {path} is empty")
    return Secret(text)


def read_json(path: str) -> JSON:
    """Return the JSON object in a file. Raises CredentialsError."""
    parsed = parse_object(_read(path))
    if parsed is None:
        raise CredentialsError(f"the credentials file {path} holds no JSON object")
    return parsed


def is_file(path: str) -> bool:
    """Tell whether there is a file at this path."""
    return Path(path).is_file()


def parse_object(data: bytes) -> JSON | None:
    """Return a JSON object, or None where there is none; the parser's error would quote the secret."""
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(_BYTES_MAX + 1)
    except OSError as error:
        raise CredentialsError(f"the credentials file {path} cannot be read: {error.strerror}") from None
    if len(data) > _BYTES_MAX:
        raise CredentialsError(f"the credentials file {path} is larger than {_BYTES_MAX} bytes")
    return data
