"""Puts credentials on a request that a translator built. The only place where a provider's secret meets the wire."""

from abc import ABC, abstractmethod

from adapters.base import UpstreamRequest


class Credentials(ABC):
    """One identity at a provider: an API key, or something that fetches and renews tokens, or signs."""

    name: str = ""  # safe to log: never the secret or a part of it
    fixed: tuple[tuple[str, str], ...] | None = None  # all that `apply` adds, where that is the same for every request

    @abstractmethod
    async def apply(self, request: UpstreamRequest) -> UpstreamRequest:
        """Return the request with its credentials. Raises UpstreamAuthError when none can be had."""

    async def close(self) -> None:  # noqa: B027 - most have nothing to stop
        """Stop whatever renews tokens."""


class Secret:
    """A string that does not show itself: its repr and str are `***`; `reveal()` is for the line that sends it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self._value)


class HeaderKey(Credentials):
    """An API key in one header: `authorization: Bearer …`, `x-api-key`, `api-key` or `x-goog-api-key`."""

    def __init__(
        self, secret: Secret, *, header: str = "authorization", prefix: str = "Bearer ", name: str = "key"
    ) -> None:
        self.name, self._pair = name, (header, prefix + secret.reveal())
        self.fixed = (self._pair,)

    async def apply(self, request: UpstreamRequest) -> UpstreamRequest:
        return UpstreamRequest(
            method=request.method, url=request.url, headers=(*request.headers, self._pair), body=request.body
        )


class NoCredentials(Credentials):
    """For servers that ask for none."""

    fixed = ()

    async def apply(self, request: UpstreamRequest) -> UpstreamRequest:
        return request
