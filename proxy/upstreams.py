"""The configured providers, ready to be called: translator, credentials, transport, time limits, and which price list they have."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from adapters.base import Adapter, Endpoint
from adapters.credentials.base import Credentials, NoCredentials
from adapters.transport.base import Timeouts, Transport
from proxy.health import KeyRotation

PATIENT_S = 600.0  # for the first byte where the model thinks first, or all of the answer comes at once


@dataclass(slots=True, kw_only=True)
class Upstream:
    """One configured provider. `price_list` is None where the vendor's own prices do not apply.

    `patient`: nobody set `first_token`, so it may grow where a first byte takes long for a good reason. `write_stall_s` is how long a
    client may refuse to read what comes from here, None where the general limit holds.
    """

    endpoint: Endpoint
    adapter: Adapter
    transport: Transport
    timeouts: Timeouts
    credentials: Sequence[Credentials] = field(default_factory=lambda: (NoCredentials(),))
    price_list: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    patient: bool = False
    write_stall_s: float | None = None
    keys: KeyRotation = field(init=False)

    def __post_init__(self) -> None:
        self.keys = KeyRotation(len(self.credentials))

    @property
    def name(self) -> str:
        """The name it has in the configuration."""
        return self.endpoint.name

    def next_key(self, stick_to: str | None = None, without: Iterable[int] = ()) -> int:
        """Return the number of the API key to use now."""
        if len(self.credentials) == 1:
            return 0
        return self.keys.choose(asyncio.get_running_loop().time(), stick_to=stick_to, without=without)


@dataclass(frozen=True, slots=True)
class Target:
    """A place where a model can be had, within its own time limits; `stick_to` names whose calls go to one API key."""

    upstream: Upstream
    model: str
    timeouts: Timeouts | None = None
    patient: bool | None = None
    stick_to: str | None = None
    own_stall_s: float | None = None
    names: tuple[str, str] = field(init=False, compare=False)  # provider, upstream model
    place: tuple[str, str, str] = field(init=False, compare=False)  # what health is kept by: another address is another

    def __post_init__(self) -> None:
        endpoint = self.upstream.endpoint
        object.__setattr__(self, "names", (endpoint.name, self.model))
        object.__setattr__(self, "place", (endpoint.name, self.model, endpoint.base_url))

    def limits(self) -> Timeouts:
        """Return the time limits of an attempt."""
        return self.timeouts or self.upstream.timeouts

    @property
    def write_stall_s(self) -> float | None:
        """How long a client may refuse to read; None where the general limit holds."""
        return self.own_stall_s or self.upstream.write_stall_s

    @property
    def is_patient(self) -> bool:
        """Whether the limit on the first byte is only a default."""
        return self.upstream.patient if self.patient is None else self.patient


Upstreams = Mapping[str, Upstream]
