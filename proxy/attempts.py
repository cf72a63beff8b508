"""Tries a call's targets in order until one begins to answer.

Nothing has reached the client yet, so trying again is safe; what an attempt may be billed for stays on the charge. Tried again: what was never delivered, and 408, 409, 429 and 5xx. Not: other refusals, and time-outs after delivery, since the
provider may have done the work. Retries of all calls together are bounded, and waits honour `retry-after`.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from accounting.charge import Attempt, Charge
from accounting.meter import Meter
from accounting.tokens.counter import count_input
from adapters.base import Answer, Call, Exchange, Media, StreamTranslator
from adapters.errors import (
    AdapterError,
    InvalidRequestError,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeoutError,
    UpstreamUnavailableError,
)
from adapters.transport.base import UpstreamResponse
from proxy.admission import Terms
from proxy.asked import Asked
from proxy.upstreams import Target

ANSWER_BYTES_MAX = 64 * 1024 * 1024
ERROR_BYTES_MAX = 1024 * 1024
BACKOFF_S = 0.25
BACKOFF_S_MAX = 4.0
RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504, 520, 522, 524, 529})

Fetch = Callable[[str], Awaitable[Media]]


@dataclass(slots=True, kw_only=True)
class Begun:
    """An answer that has begun: a whole one, or a stream of which `first` is to be written first."""

    target: Target
    exchange: Exchange
    attempt: Attempt
    answer: Answer | None = None
    translator: StreamTranslator | None = None
    response: UpstreamResponse | None = None
    first: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be tried: the request, its targets in order, the terms it was admitted on, and when (Unix seconds)."""

    asked: Asked
    targets: Sequence[Target]
    terms: Terms
    created: int


class RetryBudget:
    """Lets at most a share of all calls be tried again, with a little to start from."""

    def __init__(self, share: float, floor: float = 3.0) -> None:
        self._share, self._floor, self._left = share, floor, floor

    def earned(self) -> None:
        """Count a call."""
        self._left = min(self._left + self._share, self._floor + 100 * self._share)

    def take(self) -> bool:
        """Take a retry if there is one left."""
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Trier:
    """How this sidecar tries. `tries` per target, the first included."""

    tries: int
    retries: RetryBudget
    fetch: Fetch
    on_failure: Callable[[Target, AdapterError], None]

    async def begin(self, plan: Plan, charge: Charge) -> Begun:
        """Return the first answer that begins. Raises the last target's AdapterError."""
        self.retries.earned()
        failure: AdapterError | None = None
        for number, target in enumerate(plan.targets):
            for attempt_number in range(self.tries):
                if failure is not None and not self.retries.take():
                    raise failure
                if attempt_number:
                    await asyncio.sleep(_wait_s(failure, attempt_number))
                try:
                    return await self._attempt(plan, number, charge)
                except InvalidRequestError as error:
                    failure = failure or error  # another target may take it
                    break
                except UpstreamError as error:
                    self.on_failure(target, error)
                    failure = error
                    if not _another_try_is_safe(error):
                        raise
                    if _far_away(error):
                        break
        assert failure is not None
        raise failure

    async def _attempt(self, plan: Plan, number: int, charge: Charge) -> Begun:
        asked, target = plan.asked, plan.targets[number]
        upstream = target.upstream
        call = call_for(plan, number, charge)
        if wanted := upstream.adapter.wanted_media(call):
            call = replace(call, media={url: await self.fetch(url) for url in wanted})
        exchange = upstream.adapter.exchange(call)
        ours = ("x-request-id", charge.request_id)  # so that the provider's logs and ours can be laid side by side
        request = replace(exchange.request, headers=(*exchange.request.headers, *upstream.headers, ours))
        request = await upstream.next_credentials().apply(request)
        meter = Meter(target.model, lambda: count_input(asked.operation, asked.body, target.model))
        attempt = charge.begin(Attempt(upstream.name, target.model, plan.terms.prices[number], meter, billable=True))
        try:
            response = await upstream.transport.send(request, upstream.timeouts)
        except UpstreamUnavailableError as error:
            attempt.billable = error.delivered
            raise
        except UpstreamTimeoutError as error:
            attempt.billable = error.phase not in ("connect", "tls")
            raise
        begun = Begun(target=target, exchange=exchange, attempt=attempt)
        try:
            await _read_beginning(begun, response, stream=asked.stream)
        except BaseException:
            response.close()
            raise
        return begun


def call_for(plan: Plan, number: int, charge: Charge) -> Call:
    """Return the call as the target of that number gets it."""
    asked, terms = plan.asked, plan.terms
    return Call(
        operation=asked.operation,
        raw=asked.raw,
        body=asked.body,
        upstream_model=plan.targets[number].model,
        output_limit=output_limit(asked, terms, charge.hold.granted, terms.ceilings[number]),
        stream=asked.stream,
        show_usage=asked.show_usage or asked.operation == "responses",
        call_id=charge.request_id,
        created=plan.created,
    )


def output_limit(asked: Asked, terms: Terms, granted: int, ceiling: int) -> int | None:
    """Return the limit to send upstream; None where the client's own words may go as they are."""
    if asked.operation == "embeddings":
        return None
    if asked.limit is not None:
        return granted if granted < asked.limit or (asked.two_limits and terms.clamps) else None
    return min(granted, max(ceiling, asked.thinking + 1)) if terms.clamps else None


async def _read_beginning(begun: Begun, response: UpstreamResponse, *, stream: bool) -> None:
    exchange, attempt = begun.exchange, begun.attempt
    if response.status >= 300:  # noqa: PLR2004 - a redirect is never followed, so it is an error too
        body = await response.read(ERROR_BYTES_MAX)
        attempt.billable = False
        raise exchange.error(response.status, response.headers, body)
    if not stream:
        begun.answer = exchange.completion(await response.read(ANSWER_BYTES_MAX), response.headers)
        attempt.meter.observe([begun.answer.completion])
        return
    if "json" in response.headers.get("content-type", "") and "event-stream" not in response.headers["content-type"]:
        body = await response.read(ERROR_BYTES_MAX)  # an error that came as a 200, or an answer that is no stream
        raise _not_a_stream(exchange, response, body)
    begun.response = response
    translator = begun.translator = exchange.stream()
    out = []
    while not translator.started and not translator.finished and translator.error is None:
        piece = await response.next_piece()
        out.append(translator.feed(piece) if piece else translator.eof())
        if not piece:
            break
    begun.first = b"".join(out)
    if translator.error is not None and not translator.started:
        attempt.billable = isinstance(translator.error, UpstreamProtocolError)
        raise translator.error


def _not_a_stream(exchange: Exchange, response: UpstreamResponse, body: bytes) -> UpstreamError:
    try:
        exchange.completion(body, response.headers)
    except UpstreamError as error:
        return error
    return UpstreamProtocolError("The provider answered a streaming request with a whole completion.")


def _another_try_is_safe(error: UpstreamError) -> bool:
    if isinstance(error, UpstreamUnavailableError):
        return not error.delivered
    if isinstance(error, UpstreamTimeoutError):
        return error.phase in ("connect", "tls")
    if error.headers.get("x-should-retry") == "false" or error.code == "insufficient_quota":
        return error.code == "insufficient_quota"  # this provider will not, another may
    return isinstance(error, UpstreamProtocolError) or error.code == "upstream_auth_error" or error.status in RETRIED


def _retry_after_s(error: AdapterError | None) -> float | None:
    headers = error.headers if isinstance(error, UpstreamError) else {}
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return max(0.0, float(headers.get(name, "")) * unit)
        except ValueError:
            continue
    return None


def _far_away(error: UpstreamError) -> bool:
    """Tell whether trying the same target again would mean to wait too long, or to be refused the same way."""
    wait_s = _retry_after_s(error)
    return (wait_s is not None and wait_s > BACKOFF_S_MAX) or error.code in (
        "insufficient_quota",
        "upstream_auth_error",
    )


def _wait_s(error: AdapterError | None, attempt_number: int) -> float:
    told_s = _retry_after_s(error)
    if told_s is not None:
        return told_s
    return random.uniform(0, min(BACKOFF_S_MAX, BACKOFF_S * 2**attempt_number))  # noqa: S311 - jitter, not a secret
