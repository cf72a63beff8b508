"""The seam between OpenAI's JSON and a provider's wire format.

One configured provider is an `Adapter`; one call to it is an `Exchange`: the request to send, and how to read what
comes back. Both are pure: no socket, no clock, no environment. Credentials are put on afterwards
(`adapters.credentials`), sockets are the transport's (`adapters.transport`).

The answer always leaves in OpenAI's own form: as bytes for the client, and as dicts for the meter. What every call makes anew
is a `Struct`: as frozen as a frozen dataclass, at a tenth of its price. `msgspec.structs.replace` copies one.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import msgspec

from adapters.errors import UpstreamError

JSON: TypeAlias = dict[str, Any]
Operation: TypeAlias = Literal["chat", "completions", "embeddings", "responses"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One configured provider, as far as a translator needs to know it; holds no secret."""

    name: str  # the name it has in the configuration
    kind: str  # openai, anthropic, gemini, vertex, bedrock, azure, xai, fake
    base_url: str  # as that vendor's own SDK takes it, without a slash at its end
    preset: str | None = None
    repair: bool = False  # mend what breaks OpenAI's SDKs
    quirks: Mapping[str, Any] = field(default_factory=dict)  # see adapters.quirks
    options: Mapping[str, Any] = field(default_factory=dict)  # api_version, deployments, project, location, region


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """A file that was fetched for a provider that takes no URLs."""

    mime: str
    data: bytes


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call as the client sent it, and the terms on which it may go upstream.

    `body` is `raw` parsed; it is shared and never edited in place. `output_limit` is the granted number of output
    tokens per choice, to be sent upstream in the field that provider and model take; None leaves the client's own.
    """

    operation: Operation = "chat"
    raw: bytes
    body: JSON
    upstream_model: str
    output_limit: int | None = None
    stream: bool = False
    show_usage: bool = True  # streaming: the client asked for the usage chunk
    call_id: str  # Bursar's request id; seeds the ids that a provider does not give
    created: int  # Unix seconds, for providers that give none
    media: Mapping[str, Media] = {}  # by URL, as asked for by `Adapter.wanted_media`


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request ready to be signed and sent; header names in lower case, no credentials yet."""

    method: str = "POST"
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole completion: the bytes for the client, and the same as a dict for the meter."""

    body: bytes
    completion: JSON


class StreamTranslator(ABC):
    """Turns one provider's stream into OpenAI's, piece by piece, however the pieces are cut.

    Use: for every piece `out = t.feed(piece)`, then look at `t.started`, `t.error` and `t.finished`; write `out`. Nothing is
    written to the client before `started`, so that an error that comes first can still be an HTTP status. When the upstream
    closes, call `eof()` unless `finished`. No method raises on any input: what is broken becomes `error`.
    """

    started: bool = False  # the first meaningful event has been seen; the 200 may be sent
    finished: bool = False  # the end was written ([DONE]), or `error` is set: feed nothing more
    error: UpstreamError | None = None  # to be told to the client, after the bytes returned with it
    usage_hint: JSON | None = None  # what `cut` tells as usage where the provider has told none

    @abstractmethod
    def feed(self, data: bytes) -> bytes:
        """Take a piece as received; return the bytes that the client gets for it, perhaps none."""

    @abstractmethod
    def eof(self) -> bytes:
        """Tell that the upstream closed; return the last bytes. Without the dialect's own end, `error` is set."""

    @abstractmethod
    def cut(self) -> bytes:
        """End the stream here as OpenAI ends one at its limit: finish_reason length, usage if asked for, [DONE]."""

    @abstractmethod
    def take(self) -> list[JSON]:
        """Return the chunks translated since the last `take`, in OpenAI's form, a hidden usage chunk included."""

    def take_joined(self) -> list[JSON]:
        """As `take`, for a meter: chunks that differ only in their text may come as one, and an empty one for each other."""
        return self.take()

    @property
    def untaken(self) -> int | None:
        """No fewer than the tokens, and than the chunks, that `take` would return; None where only `take` can tell."""
        return None

    def passes(self, piece: bytes, untaken_max: int) -> int:
        """Take a piece that goes to the client as it is, if it is simple and `untaken` stays within that; return `untaken`.

        Else do nothing, and return 0.
        """
        del piece, untaken_max
        return 0


class Exchange(ABC):
    """One call to one provider. Holds what the answer needs to know of the request (ids, emulations)."""

    request: UpstreamRequest
    dropped: tuple[str, ...] = ()  # request fields that had no place upstream, by path; told in a response header

    @abstractmethod
    def completion(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Translate a whole answer with a 2xx status. Raises UpstreamError and UpstreamProtocolError."""

    @abstractmethod
    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        """Translate an answer with any other status; takes every form of body, also none."""

    @abstractmethod
    def stream(self) -> StreamTranslator:
        """Return the translator of the streamed answer; one per exchange."""


class Adapter(ABC):
    """One configured provider: makes an `Exchange` of a `Call`. Shared by all calls to it."""

    operations: frozenset[Operation] = frozenset({"chat"})

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    @abstractmethod
    def exchange(self, call: Call) -> Exchange:
        """Build the request. Raises UnsupportedParameterError and InvalidRequestError, naming the field."""

    def wanted_media(self, call: Call) -> tuple[str, ...]:
        """Return the https URLs that must be fetched first and given in `call.media`, each once."""
        del call
        return ()
