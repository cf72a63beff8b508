"""Relays other /v1 paths that the configuration lists, as they are, at a fixed price per call.

Off by default: with shared provider credentials such a path may open one caller's files to another. Nothing is translated and
nothing is counted, so on a hard cost budget a path without a price is refused.
"""

from collections.abc import Mapping

from aiohttp import web

from accounting.ask import Ask, Worst, draws_for
from accounting.charge import Attempt, charged
from accounting.hold import RefusedError
from accounting.meter import Meter
from accounting.store.errors import StoreError
from accounting.usage import Usage
from adapters.base import UpstreamRequest
from adapters.errors import AdapterError, UpstreamError, UpstreamUnavailableError
from adapters.transport.base import UpstreamResponse
from proxy.asked import unbounded_cost
from proxy.errors import from_adapter, unavailable
from proxy.gateway import Gateway
from proxy.paths import Path
from proxy.principal import Principal
from proxy.refusals import refusal
from proxy.upstreams import Upstream

_FORWARDED = ("content-type", "accept", "openai-beta")
_RETURNED = ("content-type", "content-disposition", "openai-processing-ms", "retry-after", "x-request-id")


async def relay(
    gateway: Gateway, request: web.BaseRequest, path: Path, principal: Principal, request_id: str
) -> web.StreamResponse:
    """Serve one such call. Raises ClientError."""
    budgets = gateway.rules.admitter.budgets(principal.caller, ())
    if path.price is None and any(budget.unit == "usd" and budget.binds for budget in budgets):
        raise unbounded_cost(request.path)
    body = await gateway.body(request)
    worst = Worst(input_tokens=0, input_nanousd=path.price.nanousd if path.price else 0, output_nanousd=0)
    ask = Ask(draws=draws_for(budgets, worst))
    try:
        async with charged(
            gateway.till, ask, request_id=request_id, caller=principal.caller, model=request.path
        ) as charge:
            meter = Meter("", lambda: 0)
            meter.reported = Usage()  # nothing is counted: what it costs is its price
            attempt = charge.begin(Attempt(path.upstream.name, request.path, path.price, meter, billable=True))
            charge.outcome = "upstream_error"  # unless it comes to its end
            try:
                answer = await _send(request, body, path.upstream)
            except UpstreamUnavailableError as error:
                attempt.billable = error.delivered
                raise
            try:
                response = _response(answer, path.upstream, request_id)
                await response.prepare(request)
                if await _whole(answer, request, response):
                    await charge.finish("ok")
                return response
            finally:
                answer.close()
    except RefusedError as error:
        raise refusal(error) from error
    except AdapterError as error:
        raise from_adapter(error) from error
    except StoreError as error:
        raise unavailable("The budget store cannot be reached.", code="budget_store_unavailable") from error


async def _send(request: web.BaseRequest, body: bytes, upstream: Upstream) -> UpstreamResponse:
    tail = request.rel_url.raw_path.removeprefix("/v1")
    query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
    headers = tuple((name, request.headers[name]) for name in _FORWARDED if name in request.headers)
    url = upstream.endpoint.base_url + tail + query
    sent = UpstreamRequest(method=request.method, url=url, headers=(*headers, *upstream.headers), body=body)
    return await upstream.transport.send(await upstream.next_credentials().apply(sent), upstream.timeouts)


def _response(answer: UpstreamResponse, upstream: Upstream, request_id: str) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=_returned(answer.headers))
    response.headers["x-bursar-provider"] = upstream.name
    response.headers.setdefault("x-request-id", request_id)
    return response


async def _whole(answer: UpstreamResponse, request: web.BaseRequest, response: web.StreamResponse) -> bool:
    """Relay the body; False if it broke off. Then the connection is cut: behind a head, nothing else can say so."""
    try:
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
