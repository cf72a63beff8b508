"""What may be done with stored keys: create, rotate, revoke, list. Commands and the admin listener do it through here.

A secret exists in the reply of `create` and `rotate` only; the store has its peppered digest. A revoked key stays, with its time,
and its id is never given out again, so that old records keep their meaning.
"""

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from msgspec.structs import replace as with_fields

from accounting.stored import StoredConfig, StoredKey
from adapters.credentials.base import Secret
from proxy.amounts import rfc3339
from proxy.config.check import check
from proxy.config.decode import INVALID, Decoder
from proxy.config.model import Config
from proxy.config.policy import Key
from proxy.config.problem import Path, dotted
from proxy.config.tree import Mark, Node, TreeError, read_tree
from proxy.keyring import peppered_digest
from proxy.minting import new_secret

FIELDS = ("id", "user", "team", "org", "tags", "models", "user_from")


class UnfitError(Exception):
    """What was asked cannot be: the message says why. `there`: because of what is stored, not of how it was asked."""

    def __init__(self, message: str, *, there: bool = False) -> None:
        super().__init__(message)
        self.there = there


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Changes keys in the name of `by`; `now_ms` is the store's clock."""

    stored: StoredConfig
    config: Config
    by: str

    async def create(self, fields: Mapping[str, Any], *, expires_ms: int | None, now_ms: int) -> tuple[StoredKey, str]:
        """Store a new key; return it and its secret. Raises UnfitError and StoreError."""
        secret = new_secret()
        asked = key_of(fields, secret, self.config)
        known = {key.id: key for key in (await self.stored.read()).keys}.get(asked.id)
        if known is not None:
            state = f"was revoked at {rfc3339(known.revoked_ms)}" if known.revoked_ms else "is there already"
            raise UnfitError(
                f"key {asked.id} {state}: choose another id{'' if known.revoked_ms else ', or rotate it'}", there=True
            )
        key = StoredKey(
            id=asked.id, digest=await self._digest(secret), user=asked.user, team=asked.team, org=asked.org, user_from=asked.user_from,
            models=asked.models, tags=asked.tags, created_ms=now_ms, expires_ms=expires_ms,
        )  # fmt: skip
        await self.stored.put_key(key, self._note("key.create", key.id, now_ms))
        return key, secret

    async def rotate(self, key_id: str, *, grace_ms: int, now_ms: int) -> tuple[StoredKey, str]:
        """Give a key a new secret; the old one serves for `grace_ms` more. Raises UnfitError and StoreError."""
        rows = await self._rows(key_id)
        key = rows[key_id]
        if key.revoked_ms is not None:
            raise UnfitError(f"key {key_id} was revoked at {rfc3339(key.revoked_ms)}: create another one", there=True)
        note = self._note("key.rotate", key_id, now_ms)
        if grace_ms:
            number = 1 + max((int(row.partition("~")[2]) for row in rows if "~" in row), default=0)
            until_ms = min(now_ms + grace_ms, key.expires_ms or now_ms + grace_ms)
            await self.stored.put_key(replace(key, id=f"{key_id}~{number}", expires_ms=until_ms), note)
        secret = new_secret()
        key = replace(key, digest=await self._digest(secret))
        await self.stored.put_key(key, note)
        for row in rows.values():
            if "~" in row.id and (row.expires_ms or 0) <= now_ms:
                await self.stored.remove_key(row.id, self._note("key.forget", row.id, now_ms))
        return key, secret

    async def revoke(self, key_id: str, *, now_ms: int) -> StoredKey:
        """End a key with all of its secrets; revoking again keeps the first time. Raises UnfitError and StoreError."""
        rows = await self._rows(key_id)
        for row in sorted(rows.values(), key=lambda row: row.id):
            if row.revoked_ms is None:
                rows[row.id] = replace(row, revoked_ms=now_ms)
                await self.stored.put_key(rows[row.id], self._note("key.revoke", row.id, now_ms))
        return rows[key_id]

    async def list(self, now_ms: int) -> list[dict[str, Any]]:
        """Return all keys, stored ones and the file's. Raises StoreError."""
        return key_rows((await self.stored.read()).keys, self.config, now_ms)

    async def _rows(self, key_id: str) -> dict[str, StoredKey]:
        rows = {key.id: key for key in (await self.stored.read()).keys if key.of == key_id}
        if key_id in rows:
            return rows
        if any(key.id == key_id for key in self.config.keys):
            raise UnfitError(
                f"key {key_id} is in the file: change it there; or create a stored key with this id, which takes its place",
                there=True,
            )
        raise UnfitError(f"there is no key {key_id[:128]}: `bursar key list` names all", there=True)

    async def _digest(self, secret: str) -> str:
        return peppered_digest(await self.stored.pepper(), secret.encode())

    def _note(self, what: str, key_id: str, now_ms: int) -> dict[str, Any]:
        return {"what": what, "key": key_id, "by": self.by, "at_ms": now_ms}


def key_of(fields: Mapping[str, Any], secret: str, config: Config) -> Key:
    """Return the key that the fields describe, checked as one of the file is. Raises UnfitError with all problems."""
    given = {name: value for name, value in fields.items() if value is not None}
    if not given.get("id"):
        whose = re.sub(r"[^A-Za-z0-9]+", "-", str(given.get("user") or given.get("team") or "")).strip("-")
        given["id"] = f"{whose[:64] or 'key'}-{secrets.token_hex(4)}"
    if strange := sorted(given.keys() - set(FIELDS)):
        raise UnfitError(f"{strange[0]}: a stored key has no such field; it has {', '.join(FIELDS)}")
    text = json.dumps(given, ensure_ascii=False).replace("$", "$$")
    key: Key = with_fields(decoded(text, Key), secret=Secret(secret))
    alone = with_fields(config, keys=(key,))
    wrong = [
        each for each in check(alone) if each.path[:1] == ("keys",) and (config.models or "models" not in each.path)
    ]
    if wrong:
        raise UnfitError("; ".join(f"{dotted(each.path[2:])}: {each.message}" for each in wrong))
    return key


def decoded(text: str, kind: Any) -> Any:
    """Read one struct of the configuration from JSON or YAML, as strictly as the file is read. Raises UnfitError."""
    problems: list[str] = []

    def report(path: Path, mark: Mark, message: str) -> None:
        del mark
        problems.append(f"{dotted(path)}: {message}" if path else message)

    try:
        root: Node | None = read_tree(text, {}, report)
    except TreeError as error:
        raise UnfitError(error.message) from error
    value = INVALID if root is None else Decoder(report).decode(root, kind, ())
    if problems or value is INVALID:
        raise UnfitError("; ".join(dict.fromkeys(problems)) or "nothing is given")
    return value


def key_rows(stored: Iterable[StoredKey], config: Config, now_ms: int) -> list[dict[str, Any]]:
    """Return a row for each key, without secrets: stored ones first, then those of the file that no stored one replaces."""
    rows, held = {}, list(stored)
    for key in sorted(held, key=lambda key: key.id):
        if "~" not in key.id:
            rows[key.id] = _row(key, _state(key, now_ms)) | {"source": "stored"}
    for key in held:
        alive = "~" in key.id and key.of in rows and key.revoked_ms is None and (key.expires_ms or 0) > now_ms
        if alive:
            rows[key.of].setdefault("old_secrets_until", []).append(rfc3339(key.expires_ms))
    for named in config.keys:
        if named.id in rows:
            rows[named.id]["replaces_file"] = True
        else:
            rows[named.id] = _row(named, "ok") | {"source": "file"}
    return list(rows.values())


def _row(key: StoredKey | Key, state: str) -> dict[str, Any]:
    return {
        "id": key.id, "state": state, "user": key.user, "team": key.team, "org": key.org, "tags": list(key.tags),
        "models": None if key.models is None else list(key.models), "user_from": key.user_from,
        "created_at": rfc3339(getattr(key, "created_ms", None)), "expires_at": rfc3339(getattr(key, "expires_ms", None)),
        "revoked_at": rfc3339(getattr(key, "revoked_ms", None)),
    }  # fmt: skip


def _state(key: StoredKey, now_ms: int) -> str:
    if key.revoked_ms is not None:
        return "revoked"
    return "expired" if key.expires_ms is not None and key.expires_ms <= now_ms else "ok"
