"""Sends a request, and reads its answer until that has begun: the whole of one, of a stream the first meaningful event.

Until then nothing has reached a client, so whatever is wrong can still be tried elsewhere, or be an HTTP status. A 200 that is
empty or malformed is a failure like any other, but one that may have been billed.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from adapters.base import JSON, Answer, Exchange, StreamTranslator, UpstreamRequest
from adapters.errors import UpstreamError, UpstreamProtocolError, UpstreamTimeoutError, UpstreamUnavailableError
from adapters.retrying import dated, may_have_begun
from adapters.transport.base import Timeouts, Transport, UpstreamResponse

ANSWER_BYTES_MAX = 64 * 1024 * 1024
ERROR_BYTES_MAX = 1024 * 1024
FIRST_REDIRECT = 300  # a redirect is never followed, so it is an error too


class Observer(Protocol):
    """What counts the chunks of an answer (a meter)."""

    def observe(self, chunks: Iterable[JSON], /) -> None:
        """Take further chunks, in OpenAI's form."""

    def whole(self, completion: JSON, /) -> None:
        """Take a whole completion."""


class Trial(Protocol):
    """One attempt, of which is kept whether the provider may bill it, and what it used."""

    billable: bool

    @property
    def meter(self) -> Observer:
        """Observes what comes."""


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """`answer` of a whole one; of a stream `translator`, `response`, and the bytes that are to be written `first`."""

    answer: Answer | None = None
    translator: StreamTranslator | None = None
    response: UpstreamResponse | None = None
    first: bytes = b""


async def sent(
    transport: Transport, request: UpstreamRequest, timeouts: Timeouts, trial: Trial, *, whole: bool = False
) -> UpstreamResponse:
    """Send; return the response's head, perhaps not before its body if a `whole` answer is awaited.

    Raises UpstreamError; the trial then says whether it may be billed.
    """
    try:
        return await (transport.send_whole if whole else transport.send)(request, timeouts)
    except (UpstreamUnavailableError, UpstreamTimeoutError) as error:
        trial.billable = may_have_begun(error)
        raise


async def opened(exchange: Exchange, response: UpstreamResponse, trial: Trial, *, stream: bool) -> Opened:
    """Read until the answer has begun. Raises UpstreamError; the trial then says whether it may be billed, the response is closed."""
    try:
        if response.status >= FIRST_REDIRECT:
            trial.billable = False
            error = exchange.error(response.status, response.headers, await response.read(ERROR_BYTES_MAX))
            raise dated(error, response.headers, datetime.now(UTC))
        if stream:
            return await _stream(exchange, response, trial)
        answer = exchange.completion(await response.read(ANSWER_BYTES_MAX), response.headers)
        trial.meter.whole(answer.completion)
        return Opened(answer=answer)
    except BaseException as error:
        if type(error) is UpstreamError:
            trial.billable = False  # the provider's own error, also one sent as a 200
        response.close()
        raise


async def _stream(exchange: Exchange, response: UpstreamResponse, trial: Trial) -> Opened:
    kind = response.headers.get("content-type", "")
    if "json" in kind and "event-stream" not in kind:
        body = await response.read(ERROR_BYTES_MAX)  # an error that came as a 200, or an answer that is no stream
        answer = exchange.completion(body, response.headers)
        trial.meter.whole(answer.completion)  # it was worked for, and will be billed
        raise UpstreamProtocolError("The provider answered a streaming request with a whole completion.")
    translator = exchange.stream()
    out = []
    while not translator.started and not translator.finished and translator.error is None:
        piece = await response.next_piece()
        out.append(translator.feed(piece) if piece else translator.eof())
        if not piece:
            break
    if not translator.started:
        trial.meter.observe(translator.take())
        raise translator.error or UpstreamProtocolError("The provider's stream ended before it had begun.")
    return Opened(translator=translator, response=response, first=b"".join(out))
