"""Makes the secrets of keys: `sk-bursar-`, 256 random bits, and a checksum by which a scanner can tell a real one.

The checksum guards against typing mistakes and false alarms; it proves nothing, and no proxy relies on it.
"""

import secrets
import zlib

PREFIX = "sk-bursar-"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_BITS, _RANDOM_CHARS, _CHECK_CHARS = 256, 43, 6


def new_secret() -> str:
    """Return a new secret of 59 characters."""
    body = PREFIX + _base62(secrets.randbits(_RANDOM_BITS), _RANDOM_CHARS)
    return body + _checksum(body)


def is_minted(text: str) -> bool:
    """Tell whether a text is whole, as one of ours: its checksum fits."""
    body, check = text[:-_CHECK_CHARS], text[-_CHECK_CHARS:]
    return text.startswith(PREFIX) and len(body) == len(PREFIX) + _RANDOM_CHARS and check == _checksum(body)


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECK_CHARS)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
