"""Short ways to say what happens to one budget at script level."""

from typing import Any

from tests.ledger.commands import Lua
from tests.ledger.model import AMOUNT_MAX, Ask, Draw, Rate

START = 1_800_000_000_000
TTL = 30_000
RUN = "run1"

__all__ = ["AMOUNT_MAX", "RUN", "START", "TTL", "Ask", "Draw", "Rate", "Scene", "draw"]


def draw(limit: int, fixed: int = 0, per: int = 0, budget: str = "b1", **more: Any) -> Draw:
    return Draw(budget, more.pop("pid", "total"), more.pop("version", 1), limit, fixed, per, **more)


class Scene:
    """One store, one session at a time; `seq` counts by itself."""

    def __init__(self, lua: Lua, now: int = START) -> None:
        self.lua, self.seq = lua, 0
        lua.now = now
        lua.generation(RUN, 0, 15_000, "e", "")

    def reserve(
        self, *draws: Draw, sid: str = "s", cfg: int = 0, seq: int = 0, rates: tuple[Rate, ...] = (), **more: int
    ) -> list[Any]:
        if not seq:
            self.seq += 1
            seq = self.seq
        return self.lua.reserve(RUN, cfg, sid, seq, TTL, Ask(tuple(draws), rates, **more))

    def hold(self, limit: int, fixed: int, **more: Any) -> int:
        """Hold an amount that must fit; return its seq."""
        assert self.reserve(draw(limit, fixed, **more))[0] == b"OK"
        return self.seq

    def settle(
        self, seq: int, held: int, actual: int, *, budget: str = "b1", pid: str = "total", field: bytes = b"used", ack: int = 0,
        sid: str = "s", told: bool = True, run: str = RUN, print_: str = "",
    ) -> list[Any]:  # fmt: skip
        return self.lua.settle(run, sid, seq, ack, print_ or str(actual), told, [(budget, pid, field, held, actual)])

    def used_and_held(self, budget: str = "b1", pid: str = "total") -> tuple[int, int]:
        numbers, holds, held = self.lua.counters(budget, pid)
        assert held == sum(amount for amount, _ in holds.values())
        return sum(n for name, n in numbers.items() if name == "used" or name[1:].isdigit()), held

    def snapshot(self) -> dict[bytes, Any]:
        redis = self.lua.redis
        return {k: redis("DUMP", k) for k in sorted(redis("KEYS", "*")) if k != b"now"}
