"""Keys and budgets that commands put into the store. They win over the file until they are removed.

Every change raises one version, which each reserve compares: a running proxy that has an older one reads anew before it admits
another call. Each change leaves an entry in the audit stream.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import orjson

from accounting.budgets import STORED_VERSION, Budget
from accounting.periods import Period
from accounting.store.scripts import script
from accounting.store.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """One stored key; `digest` is the peppered one, never the secret.

    A rotated key's old secret is a row of its own until it expires: `alice~1` speaks for `alice`. No id of a key holds a `~`.
    """

    id: str
    digest: str
    user: str | None = None
    team: str | None = None
    org: str | None = None
    user_from: str | None = None
    models: tuple[str, ...] | None = None
    tags: tuple[str, ...] = ()
    created_ms: int = 0
    expires_ms: int | None = None
    revoked_ms: int | None = None

    @property
    def of(self) -> str:
        """The id of the key that this row is a secret of."""
        return self.id.partition("~")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """All that is stored, as of `version`."""

    version: str
    keys: tuple[StoredKey, ...]
    budgets: tuple[Budget, ...]
    pepper: bytes


class StoredConfig:
    """Reads and changes what is stored. All methods raise StoreError."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def version(self) -> str:
        """Return the version alone: cheap enough to ask often."""
        found = await self._store.call("HGET", self._store.key("g"), "cfg")
        return found.decode() if found else "0"

    async def read(self) -> Stored:
        """Return everything. The version is read first, so that a change meanwhile is seen again next time."""
        version = await self.version()
        keys = await self._store.call("HGETALL", self._store.key("keys"))
        budgets = await self._store.call("HGETALL", self._store.key("budgets"))
        return Stored(
            version=version,
            keys=tuple(_key(orjson.loads(value)) for value in keys[1::2]),
            budgets=tuple(budget_from(orjson.loads(value)) for value in budgets[1::2]),
            pepper=await self.pepper(),
        )

    async def pepper(self) -> bytes:
        """Return the secret that digests are made with; the first to ask makes it."""
        name = self._store.key("pepper")
        await self._store.call("SET", name, os.urandom(32).hex(), "NX")
        found: bytes = await self._store.call("GET", name)
        return bytes.fromhex(found.decode())

    async def put_key(self, key: StoredKey, audit: Mapping[str, Any]) -> None:
        """Store a key, in place of an older one with this id."""
        value = {name: getattr(key, name) for name in StoredKey.__slots__}
        await self._change("keys", key.id, orjson.dumps(value), audit, ())

    async def remove_key(self, key_id: str, audit: Mapping[str, Any]) -> bool:
        """Forget a key; False if there is none."""
        return await self._change("keys", key_id, b"", audit, ())

    async def put_budget(self, budget: Budget, audit: Mapping[str, Any]) -> None:
        """Store a budget, in place of an older one with this subject, unit and period."""
        await self._change("budgets", budget.id, orjson.dumps(budget_fields(budget)), audit, (budget.id,))

    async def remove_budget(self, budget: Budget, audit: Mapping[str, Any]) -> bool:
        """Forget a stored budget; False if there is none. What the file says of it counts again."""
        return await self._change("budgets", budget.id, b"", audit, (budget.id,))

    async def _change(
        self, name: str, field: str, value: bytes, audit: Mapping[str, Any], forget: Sequence[str]
    ) -> bool:
        key = self._store.key
        keys = [key("g"), key(name), key("lim"), key("audit")]
        reply = await self._store.run(
            script("configure"), keys, [field, value, orjson.dumps(audit), *forget], deadline_s=2.0
        )
        return int(reply) >= 0


def budget_fields(budget: Budget) -> dict[str, Any]:
    """Return a budget as JSON keeps it."""
    return {
        "subject": budget.subject, "unit": budget.unit, "limit": budget.limit, "period": budget.period.kind,
        "tz": budget.period.tz, "starts": budget.period.starts.isoformat() if budget.period.starts else None,
        "mode": budget.mode, "hold": budget.hold, "outage": budget.outage, "soft": budget.soft,
    }  # fmt: skip


def budget_from(fields: Mapping[str, Any]) -> Budget:
    """Read what `budget_fields` made. It outranks every version that a file may name."""
    starts = date.fromisoformat(fields["starts"]) if fields.get("starts") else None
    return Budget(
        subject=fields["subject"], unit=fields["unit"], limit=fields["limit"],
        period=Period(kind=fields["period"], tz=fields["tz"], starts=starts), mode=fields["mode"], hold=fields["hold"],
        outage=fields["outage"], soft=tuple(fields["soft"]), version=STORED_VERSION,
    )  # fmt: skip


def _key(fields: Mapping[str, Any]) -> StoredKey:
    models = fields.get("models")
    return StoredKey(**{
        **fields, "models": tuple(models) if models is not None else None, "tags": tuple(fields.get("tags") or ()),
    })  # fmt: skip
