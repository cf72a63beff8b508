"""The ledger's message protocol without a store or sockets, small enough to look at every order of events (A2).

A world is what the store knows, what is on its way, and what each call's owner knows. `moves` lists what may happen next.
Messages are lost, doubled and overtake each other; owners give up waiting, ask again, crash, and come back with their journal;
leases run out; periods end; the store forgets what came after a snapshot, and is told it again, by one sidecar after the other,
of which some stand still meanwhile and some are forgotten, too. Each flag of `Rules` that is off is one known mistake, and must
be found.
"""

from collections.abc import Iterator
from typing import NamedTuple

LIMIT = 3
NOBODY = -1
ANSWERS = ("granted", "refused", "told")


class Rules(NamedTuple):
    """What keeps the books right."""

    tombstone: bool = True  # a release marks its call as over, so that a late reserve cannot bring it back
    dedupe: bool = True  # a settlement is applied once
    keyed_periods: bool = True  # a new period has a key of its own, instead of a reset of the old one
    replay_by_id: bool = True  # after lost writes calls are told again one by one, instead of adding up a total
    expiry_with_hold: bool = True  # a hold and its end are written at once
    clamp: bool = True  # what is sent upstream is what was granted
    trusted_ack: bool = True  # a store that lost writes is not told what it may forget before it was told all again
    remembers: bool = True  # a call whose lease ended cannot be granted anew by a late copy of its reserve
    adopt: bool = True  # a store that lost writes is told what is held before it admits again
    awaits: bool = True  # its lesson does not end before all whom it knows have told
    waits_least: bool = True  # nor before those told that it forgot and nobody else knows, since they came so lately
    tells_pending: bool = True  # nor before those who say so have told what was still on its way, too
    counts_arrivals: bool = True  # nor early, if somebody knows of more sidecars than it does


class Call(NamedTuple):
    """One request. `seq` counts from 1 within its sidecar; it will use `actual` if nobody stops it."""

    sidecar: int
    seq: int
    worst: int
    actual: int
    least: int = 1


class Owner(NamedTuple):
    """What a sidecar knows of one call: new asked held settling forgotten refused dead."""

    state: str = "new"
    granted: int = 0  # then what it used
    period: int = 0
    sends: int = 0


class Message(NamedTuple):
    """On its way. `run`: the store's process as its sender knows it; `ack`: every seq up to it is settled."""

    kind: str
    call: int
    amount: int = 0
    period: int = 0
    run: int = 0
    ack: int = 0


class Books(NamedTuple):
    """What the store knows. Holds are (call, amount, period); `endless` ones have no end."""

    used: tuple[int, int] = (0, 0)
    holds: frozenset[tuple[int, int, int]] = frozenset()
    endless: frozenset[int] = frozenset()
    noted: frozenset[int] = frozenset()  # calls that have been granted something
    marks: frozenset[int] = frozenset()
    low: tuple[int, ...] = (0, 0)
    late: int = 0
    adopted: int = 0
    over: int = 0
    period: int = 0
    charged: frozenset[tuple[int, int]] = frozenset()
    twice: bool = False
    roster: frozenset[int] = frozenset()  # sidecars that it has heard of


class World(NamedTuple):
    """Everything. `behind`: the store lost writes and learns; `told`: calls that their owners know to be settled.

    Of the sidecars: which `came`, `said` that they told all to this run, are `stalled`, and of how many each `knows`. Of the lesson: whom the store
    had not forgotten when it began (`listed`), whom of those it waits for, and whether it may end `early`.
    """

    books: Books
    owners: tuple[Owner, ...]
    mail: frozenset[Message] = frozenset()
    told: frozenset[int] = frozenset()
    saved: Books | None = None
    run: int = 0
    behind: bool = False
    lapses: int = 0
    crashes: int = 0
    came: frozenset[int] = frozenset()
    said: frozenset[int] = frozenset()
    stalled: frozenset[int] = frozenset()
    stalls: int = 0
    knows: tuple[int, ...] = (0, 0)
    listed: frozenset[int] = frozenset()
    awaited: frozenset[int] = frozenset()
    early: bool = False


class Bounds(NamedTuple):
    """How often what may happen."""

    lapses: int = 1
    rollbacks: int = 1
    crashes: int = 1
    rollovers: int = 0
    sends: int = 2
    doubles: bool = True
    losses: bool = True
    stalls: int = 0
    hears: bool = False


class Protocol:
    """All that may happen to these calls under these rules, from `start` on or from the beginning."""

    def __init__(self, calls: tuple[Call, ...], rules: Rules, bounds: Bounds, start: World | None = None) -> None:
        self.calls, self.rules, self.bounds = calls, rules, bounds
        everybody = frozenset(call.sidecar for call in calls)
        came = frozenset[int]() if bounds.rollbacks else everybody  # who came when matters to a store that forgets
        self.start = start or World(Books(), tuple(Owner() for _ in calls), came=came)

    def moves(self, world: World) -> Iterator[tuple[str, World]]:
        for i, owner in enumerate(world.owners):
            if self.calls[i].sidecar in world.came - world.stalled:
                yield from self._owner(world, i, owner)
        for message in world.mail:
            if message.kind in ANSWERS and self.calls[message.call].sidecar in world.stalled:
                continue
            rest = world._replace(mail=world.mail - {message})
            if self.bounds.losses:
                yield f"lost: {message}", rest
            arrived = self._arrive(rest, message)
            yield f"arrives: {message}", arrived
            if self.bounds.doubles and message.kind in ("reserve", "settle", "release"):
                yield f"arrives, and will again: {message}", arrived._replace(mail=arrived.mail | {message})
        yield from self._store(world)
        yield from self._lesson(world)

    # Owners

    @staticmethod
    def _put(world: World, i: int, owner: Owner, *mail: Message) -> World:
        owners = (*world.owners[:i], owner, *world.owners[i + 1 :])
        return world._replace(owners=owners, mail=world.mail.union(mail))

    def _ack(self, world: World, sidecar: int) -> int:
        """Every seq of this sidecar up to it is settled or was refused."""
        ack = 0
        for i, call in enumerate(self.calls):
            if call.sidecar == sidecar and (i in world.told or world.owners[i].state == "refused"):
                if call.seq != ack + 1:
                    break
                ack += 1
        return 0 if world.run and sidecar not in world.said and self.rules.trusted_ack else ack

    def _last(self, world: World, kind: str, i: int, owner: Owner) -> Message:
        amount = owner.granted if kind == "settle" else 0
        return Message(kind, i, amount, owner.period, world.run, self._ack(world, self.calls[i].sidecar))

    def _owner(self, world: World, i: int, owner: Owner) -> Iterator[tuple[str, World]]:
        call, bounds = self.calls[i], self.bounds
        reserve = Message("reserve", i, call.worst, 0, world.run)
        if owner.state in ("new", "asked") and owner.sends < bounds.sends:
            yield f"{i} asks", self._put(world, i, owner._replace(state="asked", sends=owner.sends + 1), reserve)
        if owner.state == "asked":  # its deadline has passed
            yield (
                f"{i} gives up",
                self._put(world, i, owner._replace(state="forgotten"), self._last(world, "release", i, owner)),
            )
        if owner.state == "held":
            spent = owner._replace(
                state="settling", granted=min(call.actual, owner.granted) if self.rules.clamp else call.actual
            )
            yield f"{i} settles", self._put(world, i, spent, self._last(world, "settle", i, spent))
        if owner.state in ("settling", "forgotten") and i not in world.told:
            kind = "settle" if owner.state == "settling" else "release"
            if not any(m.call == i and m.kind == kind for m in world.mail):
                yield f"{i} sends again", self._put(world, i, owner, self._last(world, kind, i, owner))
        if owner.state in ("asked", "held") and world.crashes < bounds.crashes:
            crashed = world._replace(crashes=world.crashes + 1)
            yield f"{i} crashes for good", self._put(crashed, i, owner._replace(state="dead"))
            if owner.state == "held":  # the next process finds the journal and charges what was relayed
                spent = owner._replace(state="settling", granted=min(call.actual, owner.granted))
                yield f"{i} crashes and is settled", self._put(crashed, i, spent, self._last(world, "settle", i, spent))

    # The store

    def _over(self, books: Books, i: int) -> bool:
        call = self.calls[i]
        return i in books.marks or call.seq <= books.low[call.sidecar]

    def _arrive(self, world: World, message: Message) -> World:
        i, owner = message.call, world.owners[message.call]
        if message.kind == "reserve":
            return self._reserve(world, message)
        if message.kind in ("settle", "release"):
            return self._settle(world, message)
        if message.kind == "told":
            return world._replace(told=world.told | {i})
        if message.kind == "expire":
            return world._replace(books=world.books._replace(endless=world.books.endless - {i}))
        if owner.state != "asked":
            return world
        if message.kind == "granted":
            return self._put(world, i, owner._replace(state="held", granted=message.amount, period=message.period))
        return self._put(world, i, owner._replace(state="refused"))

    def _reserve(self, world: World, message: Message) -> World:
        books, i = world.books, message.call
        if message.run != world.run or self._over(books, i):
            return world
        mine = next((hold for hold in books.holds if hold[0] == i), None)
        if mine is None:
            if i in books.noted and self.rules.remembers:
                return world
            if world.behind and self.rules.adopt:
                return world._replace(mail=world.mail | {Message("refused", i, run=world.run)})
            at = books.period if self.rules.keyed_periods else 0
            free = LIMIT - books.used[at] - sum(a for _, a, p in books.holds if p == at or not self.rules.keyed_periods)
            if free < self.calls[i].least:
                return world._replace(mail=world.mail | {Message("refused", i, run=world.run)})
            mine = (i, min(message.amount, free), books.period)
            books = books._replace(holds=books.holds | {mine}, noted=books.noted | {i})
            if not self.rules.expiry_with_hold:
                books = books._replace(endless=books.endless | {i})
                world = world._replace(mail=world.mail | {Message("expire", i)})
        return world._replace(books=books, mail=world.mail | {Message("granted", i, mine[1], mine[2], world.run)})

    def _settle(self, world: World, message: Message) -> World:
        books, i, call = world.books, message.call, self.calls[message.call]
        world = world._replace(mail=world.mail | {Message("told", i, run=world.run)})
        settles = message.kind == "settle"
        if self._over(books, i) and (self.rules.dedupe or not settles):
            return world
        hold = next((hold for hold in books.holds if hold[0] == i), None)
        period = message.period if self.rules.keyed_periods else books.period
        at, amount = period if self.rules.keyed_periods else 0, message.amount
        charge = (i, period)
        books = books._replace(
            holds=books.holds - {hold},
            endless=books.endless - {i},
            used=tuple(n + amount if p == at else n for p, n in enumerate(books.used)),
            late=books.late + (amount if hold is None else 0),
            over=books.over + (max(0, amount - hold[1]) if hold else 0),
            twice=books.twice or (settles and any(c == i for c, _ in books.charged)),
            charged=books.charged | {charge} if settles else books.charged,
            noted=books.noted - {i},
            marks=books.marks | {i} if settles or self.rules.tombstone else books.marks,
        )
        if message.run == world.run or not self.rules.trusted_ack:
            low = max(books.low[call.sidecar], message.ack)
            books = books._replace(low=(*books.low[: call.sidecar], low, *books.low[call.sidecar + 1 :]))
        return world._replace(books=books)

    def _store(self, world: World) -> Iterator[tuple[str, World]]:
        books, bounds = world.books, self.bounds
        lapsing = frozenset(hold for hold in books.holds if hold[0] not in books.endless)
        if lapsing and world.lapses < bounds.lapses:
            yield (
                "leases end",
                world._replace(books=books._replace(holds=books.holds - lapsing), lapses=world.lapses + 1),
            )
        if world.run < bounds.rollbacks:
            if world.saved is None:
                yield "a snapshot", world._replace(saved=books)
            else:
                lost = world.saved._replace(period=books.period)
                yield "writes are lost", world._replace(
                    books=lost, saved=None, run=world.run + 1, behind=True, said=frozenset(),
                    listed=lost.roster, awaited=lost.roster, early=bool(lost.roster),
                )  # fmt: skip
        if books.period < bounds.rollovers:
            fresh = books._replace(period=books.period + 1)
            if not self.rules.keyed_periods:
                fresh = fresh._replace(used=(0, 0))  # somebody sets the counter back, whatever is on its way
            yield "the period ends", world._replace(books=fresh)

    # The lesson

    def _lesson(self, world: World) -> Iterator[tuple[str, World]]:
        for one in {call.sidecar for call in self.calls} - world.came:
            roster = world.books.roster | {one} if world.run < self.bounds.rollbacks else world.books.roster
            yield f"sidecar {one} comes", world._replace(
                books=world.books._replace(roster=roster), came=world.came | {one}, said=world.said | {one} if world.run else world.said
            )  # fmt: skip
        dead = {call.sidecar for i, call in enumerate(self.calls) if world.owners[i].state == "dead"}
        for one in world.came:
            if one in world.stalled:
                yield f"sidecar {one} goes on", world._replace(stalled=world.stalled - {one})
                continue
            count = len(world.books.roster)
            if world.run < self.bounds.rollbacks and count > world.knows[one] and self.bounds.hears:
                knows = (*world.knows[:one], count, *world.knows[one + 1 :])
                yield f"sidecar {one} hears how many there are", world._replace(knows=knows)
            if world.run and one not in world.said:
                yield f"sidecar {one} tells all", self._tells(world, one)
                if world.behind and world.stalls < self.bounds.stalls:
                    yield (
                        f"sidecar {one} stands still",
                        world._replace(stalled=world.stalled | {one}, stalls=world.stalls + 1),
                    )
        # Who would speak within the time of a whole lesson.
        waiting = set(world.came - world.said - world.stalled - dead)
        if world.behind and world.early and self._heard_enough(world, waiting):
            yield "the lesson ends early", self._ended(world)
        if world.behind and not waiting:
            yield "the lesson's time is up", self._ended(world)

    @staticmethod
    def _ended(world: World) -> World:
        nobody: frozenset[int] = frozenset()
        books = world.books._replace(roster=nobody)
        return world._replace(books=books, behind=False, listed=nobody, awaited=nobody, early=False, knows=(0, 0))

    def _heard_enough(self, world: World, waiting: set[int]) -> bool:
        if not self.rules.awaits:
            return bool(world.said)
        for one in waiting - world.listed:  # the store has forgotten that it came
            others_know = all(n >= len(world.listed) + 1 for k, n in enumerate(world.knows) if k != one)
            if self.rules.waits_least and not others_know:
                return False  # it speaks often, as long as that is so
        return not world.awaited

    def _tells(self, world: World, one: int) -> World:
        """What is open is taken back, while the store learns, and what is over is told again, by name.

        Answers of the server that is gone do not outlive this: their connection was closed before.
        """
        old = {m for m in world.mail if m.kind in ANSWERS and m.run != world.run and self.calls[m.call].sidecar == one}
        mine = [(i, o) for i, o in enumerate(world.owners) if self.calls[i].sidecar == one]
        world = world._replace(mail=world.mail - old)
        books = world.books
        for i, owner in mine:
            missing = not self._over(books, i) and not any(h[0] == i for h in books.holds)
            if owner.state == "held" and self.rules.adopt and world.behind and missing:
                hold = (i, owner.granted, owner.period)
                books = books._replace(
                    holds=books.holds | {hold}, adopted=books.adopted + owner.granted, noted=books.noted | {i}
                )
        stranger = one not in world.listed or world.knows[one] > len(world.listed)
        world = world._replace(
            books=books, said=world.said | {one}, awaited=world.awaited - {one},
            early=world.early and not (stranger and self.rules.counts_arrivals),
        )  # fmt: skip
        states = ("settling", "forgotten")
        if not self.rules.replay_by_id:
            total = sum(o.granted for i, o in mine if i in world.told and o.state == "settling")
            world = world._replace(books=world.books._replace(used=(books.used[0] + total, books.used[1])))
            states = states[1:]
        mail = world.mail
        for i, owner in mine:
            if owner.state in states and (i in world.told or self.rules.tells_pending):
                kind, amount = ("settle", owner.granted) if owner.state == "settling" else ("release", 0)
                world = self._settle(world, Message(kind, i, amount, owner.period, NOBODY))
        return world._replace(mail=mail)

    # Promises

    def wrong(self, world: World) -> str | None:
        """Which promise this world breaks."""
        books = world.books
        for period, used in enumerate(books.used):
            held = sum(amount for _, amount, p in books.holds if p == period)
            if used + held > LIMIT + books.late + books.adopted:
                return "P1: used and held pass the limit"
        if books.over:
            return "P2: a call cost more than its hold"
        if books.twice:
            return "P3: a call is counted twice"
        if any(world.owners[i].period != period for i, period in books.charged):
            return "P8: a call is charged to a period that did not admit it"
        for i in books.endless:
            if world.owners[i].state in ("dead", "refused") and not any(
                m.kind == "expire" and m.call == i for m in world.mail
            ):
                return "P5: a hold without an end"
        return self._wrong_at_rest(world)

    def _wrong_at_rest(self, world: World) -> str | None:
        over = ("settling", "forgotten")
        if world.mail or world.behind or any(
            o.state in ("new", "asked", "held") or (o.state in over and i not in world.told) for i, o in enumerate(world.owners)
        ):  # fmt: skip
            return None
        if world.run and any(call.sidecar not in world.said for call in self.calls):
            return None
        truth = sum(owner.granted for owner in world.owners if owner.state == "settling")
        if sum(world.books.used) != truth:
            return f"I3: {sum(world.books.used)} counted, {truth} used"
        excused = world.lapses or world.crashes or world.stalls
        if sum(world.books.used) > LIMIT * (1 + world.books.period) and not excused:
            return "P1: more was used than the limit"
        if any(world.owners[i].state in over for i, _, _ in world.books.holds):
            return "I7: a call that is over still holds"
        return None
