"""What a server says of itself, and whether budgets can be kept on it."""

from dataclasses import dataclass

from accounting.store.errors import StoreSettingsError

VERSION_MIN = (6, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """The parts of INFO that matter; `policy` and `aof` are None where the server does not tell."""

    run_id: str
    version: tuple[int, ...]
    role: str
    policy: str | None
    aof: bool | None


def read_info(text: bytes | str) -> ServerInfo:
    """Parse the reply to INFO. Source: https://redis.io/docs/latest/commands/info/"""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    number = fields.get("valkey_version") or fields.get("redis_version") or "0"
    return ServerInfo(
        run_id=fields.get("run_id", ""),
        version=tuple(int(part) for part in number.split(".") if part.isdigit()),
        role=fields.get("role", "master"),
        policy=fields.get("maxmemory_policy"),
        aof=fields["aof_enabled"] == "1" if "aof_enabled" in fields else None,
    )


def check_info(info: ServerInfo, *, hard: bool) -> list[str]:
    """Return warnings. Raises StoreSettingsError for what would break a hard budget."""
    if info.version < VERSION_MIN:
        found = ".".join(map(str, info.version))
        msg = f"the store is version {found}, but 6.2 is the oldest that works: upgrade it"
        raise StoreSettingsError(msg)
    if info.role != "master":
        msg = "the store is a replica: point store.url at the primary, or use redis+sentinel://"
        raise StoreSettingsError(msg)
    if hard and info.policy not in (None, "noeviction"):
        msg = (
            f"the store's maxmemory-policy is {info.policy}, which may delete counters of hard budgets: "
            "run CONFIG SET maxmemory-policy noeviction, and set it in the server's configuration"
        )
        raise StoreSettingsError(msg)
    if info.aof is False:
        return [
            "the store keeps no append-only file: a restart of it loses what was spent since its last snapshot (set appendonly yes)"
        ]
    return []
