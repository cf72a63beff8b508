"""The configured providers, ready to be called: translator, credentials, transport, time limits, and which price list they have."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

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
    limits: Timeouts = field(init=False, compare=False)  # of an attempt
    patient_limits: Timeouts = field(init=False, compare=False)  # of one whose first byte takes long for a good reason

    def __post_init__(self) -> None:
        upstream, limits = self.upstream, self.timeouts or self.upstream.timeouts
        endpoint, is_patient = upstream.endpoint, upstream.patient if self.patient is None else self.patient
        object.__setattr__(self, "names", (endpoint.name, self.model))
        object.__setattr__(self, "place", (endpoint.name, self.model, endpoint.base_url))
        object.__setattr__(self, "limits", limits)
        object.__setattr__(self, "patient_limits", _patient(limits) if is_patient else limits)

    @property
    def write_stall_s(self) -> float | None:
        """How long a client may refuse to read; None where the general limit holds."""
        return self.own_stall_s or self.upstream.write_stall_s


def _patient(limits: Timeouts) -> Timeouts:
    return msgspec.structs.replace(limits, first_token=max(limits.first_token, PATIENT_S))


Upstreams = Mapping[str, Upstream]
