"""From a response whose head has come to an answer that has begun: whole, or a stream whose first event is there.

Until then an error is the provider's refusal, with its status, and another try is possible.
"""

from dataclasses import dataclass

from adapters.base import Answer, Exchange, StreamTranslator
from adapters.errors import UpstreamProtocolError
from adapters.transport.base import UpstreamResponse

ANSWER_BYTES_MAX = 64 * 1024 * 1024
ERROR_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """`answer` of a whole one; of a stream `translator` and `response`."""

    answer: Answer | None = None
    translator: StreamTranslator | None = None
    response: UpstreamResponse | None = None


async def opened(exchange: Exchange, response: UpstreamResponse, *, stream: bool) -> Opened:
    """Read until the answer has begun. Raises UpstreamError; the response is then the caller's to close."""
    if response.status >= 300:  # noqa: PLR2004 - a redirect is never followed, so it is an error too
        raise exchange.error(response.status, response.headers, await response.read(ERROR_BYTES_MAX))
    if not stream:
        return Opened(answer=exchange.completion(await response.read(ANSWER_BYTES_MAX), response.headers))
    kind = response.headers.get("content-type", "")
    if "json" in kind and "event-stream" not in kind:
        exchange.completion(await response.read(ERROR_BYTES_MAX), response.headers)  # an error that came as a 200
        raise UpstreamProtocolError("The provider answered a streaming request with a whole completion.")
    translator = exchange.stream()
    while not translator.started and not translator.finished and translator.error is None:
        piece = await response.next_piece()
        if not piece:
            translator.eof()
            break
        translator.feed(piece)
    if not translator.started:
        raise translator.error or UpstreamProtocolError("The provider's stream ended before it had begun.")
    return Opened(translator=translator, response=response)
