"""Puts credentials on a request that a translator built. The only place where a provider's secret meets the wire."""

from abc import ABC, abstractmethod
from typing import TypeAlias

import msgspec

from adapters.base import UpstreamRequest

Headers: TypeAlias = tuple[tuple[str, str], ...]


class Credentials(ABC):
    """One identity at a provider: an API key, or something that fetches and renews tokens, or signs."""

    name: str = ""  # safe to log: never the secret or a part of it
    fixed: Headers | None = None  # all it takes, the same for each; None where the request must be seen or waited for

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
        self.name, self._all = name, ((header, prefix + secret.reveal()),)
        self.fixed = self._all

    async def apply(self, request: UpstreamRequest) -> UpstreamRequest:
        return _with(request, self._all)


class NoCredentials(Credentials):
    """For servers that ask for none."""

    fixed = ()

    async def apply(self, request: UpstreamRequest) -> UpstreamRequest:
        return request


async def signed(request: UpstreamRequest, credentials: Credentials, more: Headers) -> UpstreamRequest:
    """Return the request with `more` headers, and its credentials put on as `Credentials.apply` does. Raises as that."""
    fixed = credentials.fixed
    if fixed is None:
        return await credentials.apply(_with(request, more))
    headers = (*request.headers, *more, *fixed)
    return UpstreamRequest(method=request.method, url=request.url, headers=headers, body=request.body)


def _with(request: UpstreamRequest, more: Headers) -> UpstreamRequest:
    return msgspec.structs.replace(request, headers=(*request.headers, *more))
