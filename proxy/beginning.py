"""Reads an answer until it has begun: the whole of one that comes at once, of a stream the first meaningful event.

Until then nothing has reached the client, so whatever is wrong here can still be tried elsewhere, or be an HTTP status. A 200
that is empty or malformed is a failure like any other, but one that may have been billed.
"""

from dataclasses import dataclass

from accounting.charge import Attempt
from adapters.base import Answer, Exchange, StreamTranslator
from adapters.errors import UpstreamError, UpstreamProtocolError
from adapters.transport.base import UpstreamResponse
from proxy.upstreams import Target

ANSWER_BYTES_MAX = 64 * 1024 * 1024
ERROR_BYTES_MAX = 1024 * 1024
_FIRST_REDIRECT = 300  # a redirect is never followed, so it is an error too


@dataclass(slots=True, kw_only=True)
class Begun:
    """An answer that has begun: a whole one, or a stream of which `first` is to be written first.

    `granted` output tokens per choice are what the call may still use.
    """

    target: Target
    exchange: Exchange
    attempt: Attempt
    granted: int = 0
    answer: Answer | None = None
    translator: StreamTranslator | None = None
    response: UpstreamResponse | None = None
    first: bytes = b""


async def read_beginning(begun: Begun, response: UpstreamResponse, *, stream: bool) -> None:
    """Read into `begun`. Raises UpstreamError; the attempt is then marked with whether it may be billed."""
    if response.status >= _FIRST_REDIRECT:
        body = await response.read(ERROR_BYTES_MAX)
        begun.attempt.billable = False
        raise begun.exchange.error(response.status, response.headers, body)
    try:
        await (_stream(begun, response) if stream else _whole(begun, response))
    except UpstreamError as error:
        if type(error) is UpstreamError:
            begun.attempt.billable = False  # the provider's own error, sent as a 200
        raise


async def _whole(begun: Begun, response: UpstreamResponse) -> None:
    body = await response.read(ANSWER_BYTES_MAX)
    begun.answer = begun.exchange.completion(body, response.headers)
    begun.attempt.meter.observe([begun.answer.completion])


async def _stream(begun: Begun, response: UpstreamResponse) -> None:
    kind = response.headers.get("content-type", "")
    if "json" in kind and "event-stream" not in kind:
        body = await response.read(ERROR_BYTES_MAX)  # an error that came as a 200, or an answer that is no stream
        raise _not_a_stream(begun, response, body)
    begun.response = response
    translator = begun.translator = begun.exchange.stream()
    out = []
    while not translator.started and not translator.finished and translator.error is None:
        piece = await response.next_piece()
        out.append(translator.feed(piece) if piece else translator.eof())
        if not piece:
            break
    begun.first = b"".join(out)
    if not translator.started:
        begun.attempt.meter.observe(translator.take())
        raise translator.error or UpstreamProtocolError("The provider's stream ended before it had begun.")


def _not_a_stream(begun: Begun, response: UpstreamResponse, body: bytes) -> UpstreamError:
    try:
        answer = begun.exchange.completion(body, response.headers)
    except UpstreamError as error:
        return error
    begun.attempt.meter.observe([answer.completion])  # it was worked for, and will be billed
    return UpstreamProtocolError("The provider answered a streaming request with a whole completion.")
