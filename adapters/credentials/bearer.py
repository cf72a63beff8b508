"""A bearer token that is fetched and renewed, put on a request."""

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from adapters.base import UpstreamRequest
from adapters.credentials.base import Credentials, Secret
from adapters.credentials.renew import Lease, Renewed


class FetchedToken(Credentials):
    """`authorization: Bearer …` from a token server, with fixed headers beside it."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Lease[Secret]]],
        clock: Callable[[], float],
        *,
        name: str,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.name = name
        self._headers = headers
        self._token = Renewed(fetch, clock, source=name)

    async def apply(self, request: UpstreamRequest) -> UpstreamRequest:
        token = await self._token.get()
        pair = ("authorization", "Bearer " + token.reveal())
        return replace(request, headers=(*request.headers, *self._headers, pair))
