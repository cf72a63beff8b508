"""The configured providers, ready to be called: translator, credentials, transport, time limits, and which price list they have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from adapters.base import Adapter, Endpoint
from adapters.credentials.base import Credentials, NoCredentials
from adapters.transport.base import Timeouts, Transport


@dataclass(slots=True, kw_only=True)
class Upstream:
    """One configured provider. `price_list` is None where the vendor's own prices do not apply."""

    endpoint: Endpoint
    adapter: Adapter
    transport: Transport
    timeouts: Timeouts
    credentials: Sequence[Credentials] = field(default_factory=lambda: (NoCredentials(),))
    price_list: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    _turn: int = 0

    @property
    def name(self) -> str:
        """The name it has in the configuration."""
        return self.endpoint.name

    def next_credentials(self) -> Credentials:
        """Return the API keys in turn."""
        self._turn = (self._turn + 1) % len(self.credentials)
        return self.credentials[self._turn]


@dataclass(frozen=True, slots=True)
class Target:
    """A place where a model can be had."""

    upstream: Upstream
    model: str

    @property
    def names(self) -> tuple[str, str]:
        """(provider, upstream model)."""
        return self.upstream.name, self.model


Upstreams = Mapping[str, Upstream]
