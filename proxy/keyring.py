"""All keys that are accepted, found by a digest of what the client sends.

A stored key is an HMAC under a pepper that only the store's owner has; a configured one a plain SHA-256. A key is hashed before
anything else is done with it, so that no look-up, log or error ever holds it.
"""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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
        return self._row(self._plain, plain_digest(raw), now_ms) or (
            self._row(self._peppered, peppered_digest(self._pepper, raw), now_ms) if self._peppered else None
        )

    @staticmethod
    def _row(rows: Mapping[str, KeyRow], digest: str, now_ms: int) -> Principal | None:
        row = rows.get(digest)
        if not hmac.compare_digest(row.digest if row else _NOBODY, digest) or row is None:
            return None
        expires_ms = row.principal.expires_ms
        return None if expires_ms is not None and expires_ms <= now_ms else row.principal


def plain_digest(secret: bytes) -> str:
    """Return the digest that a configuration may hold (`secret_sha256`)."""
    return hashlib.sha256(secret).hexdigest()


def peppered_digest(pepper: bytes, secret: bytes) -> str:
    """Return the digest that the store holds. A fast hash is right: our secrets have 256 random bits."""
    return hmac.new(pepper, secret, hashlib.sha256).hexdigest()


_NOBODY = "0" * 64
