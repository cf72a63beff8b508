"""Names to addresses, remembered for a while: a look-up per call would cost a thread and a round trip.

Every connection asks here, also for an address written as digits, so that a subclass that refuses some addresses cannot
be got round (see `guard`).
"""

import asyncio
import socket
from collections.abc import Sequence
from typing import NamedTuple

from adapters.errors import UpstreamUnavailableError

HOSTS_MAX = 256


class Address(NamedTuple):
    """One place to connect to, as `socket` takes it."""

    family: int
    sockaddr: tuple[str, int] | tuple[str, int, int, int]


class Resolver:
    """Resolves through the system, remembers for `ttl_s`; concurrent questions for one name are asked once."""

    def __init__(self, ttl_s: float = 30.0) -> None:
        self._ttl_s = ttl_s
        self._known: dict[tuple[str, int], tuple[float, Sequence[Address]]] = {}
        self._asked: dict[tuple[str, int], asyncio.Future[list[Address]]] = {}

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        """Return at least one address. Raises UpstreamUnavailableError (`delivered=False`)."""
        key = (host, port)
        loop = asyncio.get_running_loop()
        known = self._known.get(key)
        if known is not None and known[0] > loop.time():
            return known[1]
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = loop.run_in_executor(None, _look_up, host, port)
            asked.add_done_callback(lambda done: self._learn(key, done))
        await asyncio.wait((asked,))  # unlike `await asked`, a cancelled caller does not cancel it for the others
        if asked.cancelled() or asked.exception() is not None:
            raise UpstreamUnavailableError(f"the name {host} cannot be resolved", delivered=False)
        return asked.result()

    def forget(self, host: str, port: int) -> None:
        """Ask again next time: none of the addresses answered."""
        self._known.pop((host, port), None)

    def _learn(self, key: tuple[str, int], done: "asyncio.Future[list[Address]]") -> None:
        self._asked.pop(key, None)
        if done.cancelled() or done.exception() is not None:
            return
        while len(self._known) >= HOSTS_MAX:
            del self._known[next(iter(self._known))]
        self._known[key] = (done.get_loop().time() + self._ttl_s, done.result())


def _look_up(host: str, port: int) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "no address")
    return [Address(family, sockaddr) for family, _, _, _, sockaddr in found]  # type: ignore[arg-type]  # AF_INET and AF_INET6 only
