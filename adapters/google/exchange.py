"""One call in Google's format, whichever of the two hosts it goes to."""

from collections.abc import Callable, Mapping

from adapters.base import Answer, Call, Exchange, StreamTranslator, UpstreamRequest
from adapters.errors import UpstreamError, UpstreamProtocolError
from adapters.google.answer import answer_of
from adapters.google.embeddings import embeddings_of
from adapters.google.errors import error_from
from adapters.google.stream import GoogleStream
from adapters.memory import Memory

_HEADERS = (("content-type", "application/json"),)


def signatures_in(memory: Memory) -> tuple[Callable[[str], str | None], Callable[[str, str], None]]:
    """Return how to recall and how to remember the signature of a call by its id."""

    def recall(call_id: str) -> str | None:
        found = memory.recall(f"google/{call_id}")
        return found if isinstance(found, str) else None

    def remember(call_id: str, signature: str) -> None:
        memory.remember(f"google/{call_id}", signature)

    return recall, remember


class GoogleExchange(Exchange):
    """A generateContent call, or one for embeddings."""

    def __init__(self, call: Call, memory: Memory, *, url: str, body: bytes, dropped: tuple[str, ...]) -> None:
        self.request = UpstreamRequest(url=url, headers=_HEADERS, body=body)
        self.dropped = dropped
        self._call = call
        self._remember = signatures_in(memory)[1]

    def completion(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        del headers
        if self._call.operation == "embeddings":
            return embeddings_of(body, self._call)
        answer, signatures = answer_of(body, self._call)
        for call_id, signature in signatures.items():
            self._remember(call_id, signature)
        return answer

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return error_from(status, headers, body)

    def stream(self) -> StreamTranslator:
        if self._call.operation == "embeddings":
            raise UpstreamProtocolError("Embeddings are not streamed.")
        return GoogleStream(self._call, self._remember)
