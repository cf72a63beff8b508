"""All keys that are accepted, found by a digest of what the client sends.

A stored key is an HMAC under a pepper that only the store's owner has; a configured one a plain SHA-256. A key is hashed before
anything else is done with it, so that no look-up, log or error ever holds it.
"""

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest

from proxy.principal import Principal

KEY_CHARS_MAX = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """One key: `digest` is hex; `peppered` says by which of the two ways it was made."""

    digest: str
    peppered: bool
    principal: Principal


class Keyring:
    """Built anew when keys change; looking one up takes the same path whether it is there or not."""

    def __init__(self, rows: Iterable[KeyRow], pepper: bytes = b"") -> None:
        self._pepper = pepper
        self._plain: dict[str, KeyRow] = {}
        self._peppered: dict[str, KeyRow] = {}
        for row in rows:
            (self._peppered if row.peppered else self._plain)[row.digest] = row

    def __len__(self) -> int:
        return len(self._plain) + len(self._peppered)

    def find(self, secret: str, now_ms: int) -> Principal | None:
        """Return who that secret speaks for, None if nobody (any more)."""
        if not secret or len(secret) > KEY_CHARS_MAX:
            return None
        raw = secret.encode("utf-8", "surrogatepass")
        principal = _principal(self._plain, sha256(raw).hexdigest())
        if principal is None and self._peppered:
            principal = _principal(self._peppered, peppered_digest(self._pepper, raw))
        if principal is None or principal.expires_ms is None:
            return principal
        return principal if now_ms < principal.expires_ms else None


def plain_digest(secret: bytes) -> str:
    """Return the digest that a configuration may hold (`secret_sha256`)."""
    return sha256(secret).hexdigest()


def peppered_digest(pepper: bytes, secret: bytes) -> str:
    """Return the digest that the store holds. A fast hash is right: our secrets have 256 random bits."""
    return hmac.digest(pepper, secret, "sha256").hex()


def _principal(rows: Mapping[str, KeyRow], digest: str) -> Principal | None:
    row = rows.get(digest)
    return row.principal if compare_digest(row.digest if row else _NOBODY, digest) and row else None


_NOBODY = "0" * 64
