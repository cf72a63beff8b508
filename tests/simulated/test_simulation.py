"""B11: whole worlds in virtual time, with the accounting as it is. And mistakes that were made on purpose, each of which is found.

BURSAR_SEED=n repeats one world; BURSAR_SEEDS=n sets how many the long form makes.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from accounting.escrow import Escrow
from accounting.journal.recovery import Recovery
from accounting.ledger import Ledger
from accounting.settlement import Settlement
from accounting.settling import Settler
from accounting.store.store import Store
from tests.simulated.scenario import KINDS
from tests.simulated.simulation import simulate

pytestmark = pytest.mark.timeout(300)  # seconds of work, but of a machine that may have other work

SEEDS = int(os.environ.get("BURSAR_SEEDS", "10000"))
ONE = os.environ.get("BURSAR_SEED")


def worlds(seeds: range, kinds: tuple[str, ...] = KINDS) -> dict[int, list[str]]:
    """Make them; return what is wrong, by seed."""
    began_s, found, calls, events = time.process_time(), {}, 0, 0
    for seed in seeds:
        wrong, scene = simulate(seed, kinds)
        calls, events = calls + len(scene.calls.all), events + scene.events
        if wrong:
            found[seed] = wrong
            print(f"BURSAR_SEED={seed}: {len(wrong)} wrong: {wrong[:3]}")
    ms = (time.process_time() - began_s) * 1000 / len(seeds)
    print(f"{len(seeds)} worlds from seed {seeds[0]}, {events} events, {calls} calls, {ms:.1f} ms each")
    return found


@pytest.mark.slow
def test_nothing_is_wrong_in_some_hundred_worlds():
    seeds = range(int(ONE), int(ONE) + 1) if ONE else range(150)
    assert worlds(seeds) == {}


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(10))
def test_nothing_is_wrong_in_ten_thousand_worlds(part: int):
    size = SEEDS // 10
    assert worlds(range(100_000 + part * size, 100_000 + (part + 1) * size)) == {}


def test_the_same_seed_makes_the_same_world():
    def course(seed: int) -> Any:
        wrong, scene = simulate(seed)
        books = scene.server.books
        return (
            wrong,
            scene.story,
            scene.world.now_s,
            books.receipts.keys(),
            [(c.state, c.why, c.rids) for c in scene.calls.all],
        )

    for seed in (3, 78):
        assert course(seed) == course(seed)


# Mistakes


def no_tombstone(patch: pytest.MonkeyPatch) -> None:
    """A reserve whose answer never came is forgotten by us alone."""
    patch.setattr(Ledger, "_forget", lambda self, seq, _tried: self.settler.terminal(seq))


def no_recovery(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks after dead sessions."""

    async def once(_self: Recovery) -> bool:
        return True

    patch.setattr(Recovery, "once", once)


def no_replay(patch: pytest.MonkeyPatch) -> None:
    """A store that lost writes is told what is held, and not what was settled."""

    async def replay(_self: Recovery) -> None:
        return

    patch.setattr(Recovery, "replay", replay)


def forgets_acknowledged(patch: pytest.MonkeyPatch) -> None:
    """What a dead session was told that the store has is taken to be there still."""

    async def tell_again(_self: Recovery, _session: Any) -> None:
        return

    patch.setattr(Recovery, "_tell_again", tell_again)


def settles_twice(patch: pytest.MonkeyPatch) -> None:
    """A settlement that is sent again has another number."""
    packed, sent = Settlement.packed, dict[int, tuple[Settlement, int]]()

    def another(self: Settlement, *args: Any) -> Any:
        _, times = sent.get(id(self), (self, 0))
        sent[id(self)] = self, times + 1
        return packed(msgspec.structs.replace(self, seq=self.seq + 1_000_000 * times), *args)

    patch.setattr(Settlement, "packed", another)


def ignores_leases(patch: pytest.MonkeyPatch) -> None:
    """An allowance is used when its lease is over."""
    patch.setattr(
        Escrow, "usable", lambda self, key, _now_s: not self.hold.lost and self.hold.rows[0].counters_key == key
    )


def skips_adoption(patch: pytest.MonkeyPatch) -> None:
    """A store that learns is not told what is held."""
    extend = Ledger._extend

    async def silent(self: Ledger, holds: Any) -> None:
        await extend(self, [] if self.learning else holds)

    patch.setattr(Ledger, "_extend", silent)


def trusts_every_ack(patch: pytest.MonkeyPatch) -> None:
    """A store that lost writes is told what it may forget before it was told all again."""
    command = Settler._command

    def trusting(self: Settler, item: Settlement, sid: str | None) -> Any:
        before, self.trusted_run_id = self.trusted_run_id, self._store.run_id
        try:
            return command(self, item, sid)
        finally:
            self.trusted_run_id = before

    patch.setattr(Settler, "_command", trusting)


def trusts_any_process(patch: pytest.MonkeyPatch) -> None:
    """A command goes to whatever process answers."""
    run = Store.run_packed

    async def anywhere(self: Store, *args: Any, only_run_id: str | None = None, **more: Any) -> Any:
        return await run(self, *args, **more)

    patch.setattr(Store, "run_packed", anywhere)


def heart_stops(patch: pytest.MonkeyPatch) -> None:
    """Nobody keeps leases alive."""

    async def heartbeat(_self: Ledger) -> None:
        return

    patch.setattr(Ledger, "heartbeat", heartbeat)


# What goes wrong in its worlds, which promises it breaks, and from which seed on to look, since some show themselves rarely.
MISTAKES: dict[Callable[[pytest.MonkeyPatch], None], tuple[tuple[str, ...], str, int]] = {
    no_tombstone: (("lossy", "late"), "P5", 0),
    no_recovery: (("crash",), "I3 P4 I7", 0),
    no_replay: (("restart", "promotion"), "I3", 0),
    forgets_acknowledged: (("reboot",), "I3", 0),
    settles_twice: (("lossy", "hole"), "I3", 0),
    ignores_leases: (("freeze",), "I11", 20),
    skips_adoption: (("restart", "promotion"), "P1 I11", 230),
    trusts_every_ack: (("restart", "promotion"), "I3", 30),
    trusts_any_process: (("restart", "promotion"), "P7", 0),
    heart_stops: (("stall",), "P1 I11 P6", 340),
}
WORLDS_MAX = 400


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_is_found_and_its_seed_finds_it_again(mistake: Callable[..., None], monkeypatch: pytest.MonkeyPatch):
    kinds, promises, first = MISTAKES[mistake]
    mistake(monkeypatch)
    for seed in range(first, first + WORLDS_MAX):
        wrong, _ = simulate(seed, kinds)
        found = [line for line in wrong if line.partition(":")[0] in promises.split()]
        if found:
            print(f"{mistake.__name__}: found in world {seed}: {found[0]}")
            assert all(simulate(seed, kinds)[0] == wrong for _ in range(9))
            return
    pytest.fail(f"not found in {WORLDS_MAX} worlds from {first} on")
