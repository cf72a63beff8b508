"""How a sidecar reaches what is outside of it: the store, its credentials, and files that clients name by URL."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from accounting.store.embedded import EmbeddedStore
from accounting.store.resp import Address
from accounting.store.sentinel import locate_primary
from accounting.store.store import Store
from accounting.store.url import read_url
from adapters.base import Endpoint, Media
from adapters.credentials.base import Credentials
from adapters.transport.base import Transport
from adapters.transport.options import TransportOptions
from proxy.config.model import Config
from proxy.config.providers import Provider

MEDIA_BYTES_MAX = 20 * 1024 * 1024
MEDIA_S = 20.0


def open_store(config: Config) -> tuple[Store, EmbeddedStore | None]:
    """Return the store, not yet connected; and the embedded server behind it, not yet started, if there is one."""
    url = read_url(config.store.url.reveal())
    embedded = EmbeddedStore(Path(config.store.data_dir)) if url.kind == "embedded" else None

    async def locate() -> tuple[Address, ...]:
        if embedded is not None:
            await embedded.start()  # also when it is gone: whoever needs it starts it
            return (embedded.address,)
        return tuple(await locate_primary(url))

    store = Store(
        url, prefix=config.store.prefix, tenant=config.tenant, deadline_s=config.store.deadline_ms / 1000,
        locate=locate if url.kind in ("embedded", "sentinel") else None,
    )  # fmt: skip
    return store, embedded


def credentials_for(
    transport: Callable[[], Transport], environ: Mapping[str, str]
) -> Callable[[Endpoint, Provider], list[Credentials]]:
    """Return what makes a provider's credentials; `transport` is made only for one that fetches tokens."""

    def make(endpoint: Endpoint, provider: Provider) -> list[Credentials]:
        from adapters.credentials.factory import make_credentials

        options = {name: value for name, value in msgspec.structs.asdict(provider).items() if value is not None}
        fetches = not provider.api_keys and endpoint.kind in ("vertex", "bedrock", "azure")
        return make_credentials(
            endpoint.kind,
            options,
            provider.api_keys,
            transport=transport() if fetches else _NO_TRANSPORT,
            clock=time.time,  # noqa: TID251 - tokens expire by the calendar
            environ=environ,
        )

    return make


class Files:
    """Fetches files for clients. The fetcher is made when the first is wanted."""

    def __init__(self) -> None:
        self._fetcher: object | None = None

    async def fetch(self, url: str) -> Media:
        """Return the file at a public address. Raises InvalidRequestError."""
        from adapters.transport.guard import MediaFetcher

        if not isinstance(self._fetcher, MediaFetcher):
            self._fetcher = MediaFetcher()
        return await self._fetcher.fetch(url, MEDIA_BYTES_MAX, MEDIA_S)

    async def close(self) -> None:
        """Cut what is being fetched."""
        from adapters.transport.guard import MediaFetcher

        if isinstance(self._fetcher, MediaFetcher):
            await self._fetcher.close()


class Transports:
    """The ways to providers that are open: one for each set of options, one for tokens. Made when they are first wanted."""

    def __init__(self) -> None:
        self._open: dict[TransportOptions, Transport] = {}
        self._tokens: Transport | None = None

    def of(self, options: TransportOptions) -> Transport:
        """Return the transport with these options."""
        from adapters.transport.raw import RawTransport

        if options not in self._open:
            self._open[options] = RawTransport(options)
        return self._open[options]

    def tokens(self) -> Transport:
        """Return the transport that fetches tokens: they come from the cloud's own hosts, never through a provider's proxy."""
        from adapters.transport.raw import RawTransport

        if self._tokens is None:
            self._tokens = RawTransport(TransportOptions(idle_per_origin=2))
        return self._tokens

    async def close(self) -> None:
        """Close them all."""
        for transport in (*self._open.values(), *([self._tokens] if self._tokens else [])):
            await transport.close()


class _NoTransport(Transport):
    """For credentials that fetch nothing."""

    async def send(self, request: object, timeouts: object) -> object:  # type: ignore[override]  # never called
        raise AssertionError("an API key fetches nothing")

    async def close(self) -> None:
        """Do nothing."""


_NO_TRANSPORT = _NoTransport()
