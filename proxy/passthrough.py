"""Relays other /v1 paths that the configuration lists, as they are, at a fixed price per call.

Off by default: with shared provider credentials such a path may open one caller's files to another. Nothing is translated and
nothing is counted, so on a hard cost budget a path without a price is refused.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from accounting.charge import Attempt, charged
from accounting.hold import ConfigChangedError, RefusedError
from accounting.meter import Meter
from accounting.store.errors import StoreError
from accounting.usage import Usage
from adapters.base import UpstreamRequest
from adapters.errors import AdapterError, UpstreamAuthError, UpstreamError
from adapters.opening import ERROR_BYTES_MAX, sent
from adapters.problem import read_problem
from adapters.transport.base import UpstreamResponse
from proxy.answering import rate_headers
from proxy.errors import from_adapter, unavailable
from proxy.gateway import RULES_TRIES, Gateway
from proxy.paths import Path
from proxy.principal import Principal
from proxy.refusals import refusal
from proxy.serving.request import Request
from proxy.serving.response import StreamedResponse
from proxy.upstreams import Upstream

_FORWARDED = ("content-type", "accept", "openai-beta")
_UNAUTHORIZED = 401
_PERHAPS_OUR_KEY = frozenset({400, _UNAUTHORIZED, 403})  # with these a provider may refuse our own credentials
_RETURNED = ("content-type", "content-disposition", "openai-processing-ms", "retry-after", "x-request-id")

Listed = Callable[[], Awaitable[tuple[Path, Principal]]]


async def relay(gateway: Gateway, request: Request, listed: Listed, request_id: str) -> StreamedResponse:
    """Serve one such call; `listed` tells its path and caller, and is asked again when what is stored has changed. Raises ClientError."""
    body = await gateway.body(request)
    try:
        for _ in range(RULES_TRIES - 1):
            try:
                return await _paid(gateway, request, body, await listed(), request_id)
            except ConfigChangedError as error:
                await gateway.reload(error.version)
        return await _paid(gateway, request, body, await listed(), request_id)
    except RefusedError as error:
        raise refusal(error) from error
    except AdapterError as error:
        raise from_adapter(error) from error
    except StoreError as error:
        raise unavailable("The budget store cannot be reached.", code="budget_store_unavailable") from error


async def _paid(
    gateway: Gateway, request: Request, body: bytes, listed: tuple[Path, Principal], request_id: str
) -> StreamedResponse:
    path, principal = listed
    upstream, price, caller = path.upstream, path.price, principal.caller
    nanousd = price.nanousd if price else None
    ask = gateway.rules.admitter.fixed(caller, upstream.name, request.path, nanousd)
    notes = {
        "key": caller.key, "user": caller.user, "team": caller.team, "provider": upstream.name, "model": request.path,
        "asked": request.path, "input_nanousd": nanousd or 0,
    }  # fmt: skip
    async with charged(
        gateway.till, ask, request_id=request_id, caller=caller, model=request.path, notes=notes
    ) as charge:
        meter = Meter("", lambda: 0)
        meter.reported = Usage()  # nothing is counted: what it costs is its price
        attempt = charge.begin(Attempt(upstream.name, request.path, price, meter, billable=True))
        charge.outcome = "upstream_error"  # unless it comes to its end
        answer, first = await _answer(_asked(request, body, upstream), upstream, attempt)
        try:
            response = _response(answer, upstream, request_id)
            response.headers.update(rate_headers(charge.hold.rates))
            await response.prepare(request)
            if await _whole(first, answer, request, response):
                await charge.finish("ok")
            return response
        finally:
            answer.close()


async def _answer(asked: UpstreamRequest, upstream: Upstream, attempt: Attempt) -> tuple[UpstreamResponse, bytes]:
    """Return the answer, and what was read of it to see that it is no refusal of our own credentials. Raises AdapterError."""
    key = upstream.next_key()
    answer = await sent(upstream.transport, await upstream.credentials[key].apply(asked), upstream.timeouts, attempt)
    try:
        first = await answer.read(ERROR_BYTES_MAX) if answer.status in _PERHAPS_OUR_KEY else b""
        error = read_problem(answer.status, answer.headers, first) if first or answer.status == _UNAUTHORIZED else None
        if isinstance(error, UpstreamAuthError):
            attempt.billable = False
            upstream.keys.refused(key, asyncio.get_running_loop().time())
            raise error
    except BaseException:
        answer.close()
        raise
    upstream.keys.accepted(key)
    return answer, first


def _asked(request: Request, body: bytes, upstream: Upstream) -> UpstreamRequest:
    tail = request.raw_path.removeprefix("/v1")
    query = f"?{request.raw_query}" if request.raw_query else ""
    headers = tuple((name, request.headers[name]) for name in _FORWARDED if name in request.headers)
    url = upstream.endpoint.base_url + tail + query
    return UpstreamRequest(method=request.method, url=url, headers=(*headers, *upstream.headers), body=body)


def _response(answer: UpstreamResponse, upstream: Upstream, request_id: str) -> StreamedResponse:
    response = StreamedResponse(status=answer.status, headers=_returned(answer.headers))
    response.headers["x-bursar-provider"] = upstream.name
    response.headers.setdefault("x-request-id", request_id)
    return response


async def _whole(first: bytes, answer: UpstreamResponse, request: Request, response: StreamedResponse) -> bool:
    """Relay the body, of which `first` has been read; False if it broke off. Then the connection is cut: behind a head, nothing else can say so."""
    try:
        if first:
            await response.write(first)
        while piece := await answer.next_piece():
            await response.write(piece)
        await response.write_eof()
    except UpstreamError:
        if request.transport is not None:
            request.transport.abort()
        return False
    return True


def _returned(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in _RETURNED if name in headers}
