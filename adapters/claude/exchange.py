"""One call to Claude, wherever it is hosted: a provider's adapter gives the URL and the headers, the rest is here."""

from collections.abc import Mapping
from typing import Any

from adapters.base import Answer, Call, Exchange, StreamTranslator, UpstreamRequest
from adapters.claude.answer import completion
from adapters.claude.errors import error_from
from adapters.claude.request import Host, build
from adapters.claude.stream import ClaudeStream
from adapters.errors import UpstreamError
from adapters.exact import dumps_exact
from adapters.memory import Memory


class ClaudeExchange(Exchange):
    """A call's request to `url`, and the translation of what comes back.

    `options` are the endpoint's: `anthropic_version` and `anthropic_beta` (a string or a list). `memory` is shared by
    all calls of one adapter. Raises InvalidRequestError and UnsupportedParameterError.
    """

    def __init__(
        self, call: Call, *, url: str, host: Host, memory: Memory, options: Mapping[str, Any] | None = None
    ) -> None:
        self._call, self._memory = call, memory
        self._built = build(call, host, memory)
        self.dropped = self._built.dropped
        headers = [("content-type", "application/json")]
        if host == "anthropic":
            headers.append(("anthropic-version", str((options or {}).get("anthropic_version") or "2023-06-01")))
        betas = [*_listed((options or {}).get("anthropic_beta")), *self._built.betas]
        if betas and host != "bedrock":
            headers.append(("anthropic-beta", ",".join(dict.fromkeys(betas))))
        self.request = UpstreamRequest(url=url, headers=tuple(headers), body=dumps_exact(self._built.body))

    def completion(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        return completion(body, headers, self._call, self._built, self._memory)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return error_from(status, headers, body)

    def stream(self) -> StreamTranslator:
        return ClaudeStream(self._call, self._built, self._memory)


def _listed(value: Any) -> list[str]:
    names = value.split(",") if isinstance(value, str) else value if isinstance(value, list | tuple) else []
    return [name.strip() for name in names if isinstance(name, str) and name.strip()]
