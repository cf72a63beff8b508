"""Whether a secret can be one: not empty, not a placeholder, and fit for a header. It is never repeated, nor its length."""

import functools
import hashlib
import re

from adapters.credentials.base import Secret

_HEADER_SAFE = re.compile(r"[\x21-\x7e]+(?: [\x21-\x7e]+)*\Z", re.ASCII)
# fmt: off
_PLACEHOLDERS = frozenset({
    "changeme", "change-me", "change_me", "secret", "password", "passwd", "admin", "administrator", "default",
    "token", "test", "example", "todo", "none", "null", "sk-1234", "sk-12345", "sk-123456", "sk-12345678",
    "12345678", "123456789", "1234567890", "0123456789abcdef", "1234567890123456", "changemechangeme",
    "changeme12345678", "supersecret", "supersecretkey", "my-secret", "my-secret-key", "mysecretkey",
    "secretsecret", "your-secret-key", "your-api-key", "your_api_key", "your-api-key-here", "your_api_key_here",
    "your-key-here", "insert-key-here", "replace-me", "replaceme", "replace_me", "placeholder", "xxxxxxxx",
    "xxxxxxxxxxxxxxxx", "sk-...", "sk-xxx", "sk-xxxx", "passwordpassword",
})
# fmt: on


def is_placeholder(secret: Secret) -> bool:
    """Tell whether this is what documentation shows instead of a secret."""
    word = secret.reveal().strip().lower()
    return word in _PLACEHOLDERS or bool(re.fullmatch(r"<.*>|(.)\1*", word, re.DOTALL))


def credential_fault(secret: Secret, chars_min: int = 1) -> str | None:
    """Return what is wrong with a secret that people hold, or None."""
    fault = header_fault(secret)
    if fault:
        return fault
    if is_placeholder(secret):
        return "is a well-known placeholder"
    if len(secret.reveal()) < chars_min:
        return f"is shorter than {chars_min} characters"
    return None


def header_fault(secret: Secret) -> str | None:
    """Return why a secret cannot go into a header, or None."""
    text = secret.reveal()
    if not text.strip():
        return "is empty"
    if text != text.strip():
        return "has white space at an end; often the line break of the file that it came from"
    if not _HEADER_SAFE.match(text):
        return "has a character that cannot go into a header"
    return None


@functools.cache
def placeholder_digests() -> frozenset[str]:
    """Return the SHA-256 of nothing and of each placeholder, in hexadecimal."""
    return frozenset(hashlib.sha256(word.encode()).hexdigest() for word in (*_PLACEHOLDERS, ""))
