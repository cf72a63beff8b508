"""The way between sidecars and the store: connections that keep their order, and whatever may go wrong with them.

A connection never loses something in the middle, as TCP does not: it is late, or it breaks, before a command or after it was
carried out. A copy of a command may arrive later by another way, whose answer nobody gets.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import hiredis

from tests.simulated.loops import Loop, World


@dataclass
class Weather:
    """What is wrong between one sidecar and the store. Probabilities are of one command."""

    delay_s: float = 0.0005
    jitter_s: float = 0.0005
    refuse: bool = False
    black_hole: bool = False  # all is taken; it arrives when this is over, if its connection still stands
    break_before: float = 0.0
    break_after: float = 0.0
    copy: float = 0.0


FAIR = Weather()


class Network:
    """All connections to one address; `serve` carries out one command's words and returns the raw reply, None: none yet."""

    def __init__(self, world: World, rng: random.Random, serve: Callable[[list[bytes]], bytes | None]) -> None:
        self.world, self.rng, self.serve = world, rng, serve
        self.open = True  # somebody listens
        self.process = 1  # who: what was sent to one that is gone never arrives
        self.weather: dict[Loop, Weather] = {}
        self.wires: list[Wire] = []

    def weather_of(self, loop: Loop) -> Weather:
        return self.weather.get(loop, FAIR)

    async def connect(self, loop: Loop, protocol: Any, _path: str | None) -> "Wire":
        """Open a connection. Raises ConnectionRefusedError."""
        weather = self.weather_of(loop)
        await asyncio.sleep(weather.delay_s)
        while self.weather_of(loop).black_hole:
            await asyncio.sleep(0.2)
        if not self.open or weather.refuse:
            raise ConnectionRefusedError
        wire = Wire(self, loop, protocol)
        self.wires.append(wire)
        protocol.connection_made(wire)
        return wire

    def cut(self, wanted: Callable[["Wire"], bool] = lambda _: True) -> None:
        """Reset connections, as when a server ends."""
        for wire in [wire for wire in self.wires if wanted(wire)]:
            wire.broken()

    def forget(self, loop: Loop) -> None:
        """That process is gone. What it had sent may still arrive."""
        for wire in [wire for wire in self.wires if wire.loop is loop]:
            wire.end()
        self.weather.pop(loop, None)

    def heal(self, loop: Loop) -> None:
        """Fair weather again; what was held back arrives."""
        self.weather.pop(loop, None)
        for wire in [wire for wire in self.wires if wire.loop is loop]:
            wire.release()


@dataclass(eq=False)
class Wire(asyncio.Transport):
    """One connection, seen from the sidecar."""

    network: Network
    loop: Loop
    protocol: Any
    over: bool = False
    _held: list[Callable[[], None]] = field(default_factory=list)
    _in_s: float = 0.0
    _out_s: float = 0.0

    def __post_init__(self) -> None:
        self._reader = hiredis.Reader()

    def write(self, data: bytes) -> None:
        self._reader.feed(data)
        while not self.over and (words := self._reader.gets()) is not False:
            self._carry(words)

    def abort(self) -> None:
        if not self.over:
            self.end()
            self.loop.call_soon(self.protocol.connection_lost, None)

    close = abort

    def end(self) -> None:
        self.over = True
        self._held.clear()
        if self in self.network.wires:
            self.network.wires.remove(self)

    def broken(self) -> None:
        """The other side is gone."""
        if not self.over:
            self.end()
            self.loop.call_soon(self.protocol.connection_lost, ConnectionResetError())

    def release(self) -> None:
        held, self._held = self._held, []
        for act in held:
            act()

    def _carry(self, words: list[bytes]) -> None:
        net, rng, world = self.network, self.network.rng, self.network.world
        weather, process = net.weather_of(self.loop), net.process
        if weather.black_hole or self._held:
            self._held.append(lambda: self._carry(words))
            return
        chance = rng.random()
        if chance < weather.break_before:
            self.broken()
            return
        breaks = chance < weather.break_before + weather.break_after
        if weather.copy and rng.random() < weather.copy and words[0] in (b"EVAL", b"EVALSHA"):
            net.world.at(rng.uniform(0, 4), lambda: self._copy(words, process))
        self._in_s = max(self._in_s, world.now_s + weather.delay_s + rng.random() * weather.jitter_s)
        world.at(self._in_s - world.now_s, lambda: self._arrived(words, breaks, process))

    def _copy(self, words: list[bytes], process: int) -> None:
        if self.network.open and process == self.network.process:
            self.network.serve(words)

    def _arrived(self, words: list[bytes], breaks: bool, process: int) -> None:
        """Even if the sender has hung up: what was sent was sent."""
        net = self.network
        if not net.open or process != net.process:
            return
        reply = net.serve(words)
        if breaks:
            self.broken()
        elif reply is not None:
            self._answer(reply)

    def _answer(self, reply: bytes) -> None:
        if self.over:
            return
        net = self.network
        weather = net.weather_of(self.loop)
        if weather.black_hole or self._held:
            self._held.append(lambda: self._answer(reply))
            return
        self._out_s = max(self._out_s, net.world.now_s + weather.delay_s)
        net.world.at(self._out_s - net.world.now_s, lambda: self._told(reply))

    def _told(self, reply: bytes) -> None:
        if not self.over:
            self.loop.call_soon(self.protocol.data_received, reply)
