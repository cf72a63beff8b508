"""Vertex AI: Gemini in Google's own format, Claude in Anthropic's.

The location decides the host: `global` has none in its name, `us` and `eu` have hosts of another form. Without a project
the express mode is meant, whose key goes in a header. Embeddings have a method of their own here.
Source: https://cloud.google.com/vertex-ai/generative-ai/docs/reference/rest
"""

from collections.abc import Mapping
from urllib.parse import quote

import orjson
from msgspec.structs import replace

from adapters.base import Adapter, Call, Endpoint, Exchange, Operation
from adapters.claude.exchange import ClaudeExchange
from adapters.claude.request import media_urls
from adapters.errors import UnsupportedParameterError, UpstreamError
from adapters.google.contents import wanted_urls
from adapters.google.embeddings import dropped_of, predict_body
from adapters.google.errors import error_from, is_google, parsed
from adapters.google.exchange import GoogleExchange, signatures_in
from adapters.google.models import bare_name, model_of
from adapters.google.request import Dialect, request_body
from adapters.memory import Memory
from adapters.vendors import LOCATION

_MULTI_REGIONS = frozenset(["us", "eu"])


class VertexAdapter(Adapter):
    """One project and location; its memory of reasoning state is shared by all its calls."""

    operations: frozenset[Operation] = frozenset({"chat", "embeddings"})

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._memory = Memory()

    def exchange(self, call: Call) -> Exchange:
        if call.operation not in self.operations:
            raise UnsupportedParameterError("model", f"Vertex AI has no {call.operation} here.")
        claude = claude_name(call.upstream_model)
        if claude is not None:
            return self._claude(call, claude)
        base = self._url(call)
        if call.operation == "embeddings":
            body, dropped = orjson.dumps(predict_body(call)), dropped_of(call.body)
            return GoogleExchange(call, self._memory, url=f"{base}:predict", body=body, dropped=dropped)
        recall = signatures_in(self._memory)[0]
        model = model_of(_name(call.upstream_model), self.endpoint.quirks)
        body, dropped = request_body(call, Dialect(vertex=True, model=model, recall=recall))
        method = "streamGenerateContent?alt=sse" if call.stream else "generateContent"
        return GoogleExchange(call, self._memory, url=f"{base}:{method}", body=body, dropped=dropped)

    def wanted_media(self, call: Call) -> tuple[str, ...]:
        if call.operation != "chat":
            return ()
        if claude_name(call.upstream_model) is not None:
            return media_urls(call, "vertex")
        return wanted_urls(call.body, model_of(_name(call.upstream_model), self.endpoint.quirks))

    def _claude(self, call: Call, name: str) -> Exchange:
        if call.operation != "chat":
            raise UnsupportedParameterError("model", f"Claude has no {call.operation}.")
        method = "streamRawPredict" if call.stream else "rawPredict"
        url = f"{self._base('v1')}publishers/anthropic/models/{quote(name, safe='@')}:{method}"
        call = replace(call, upstream_model=name)
        return ClaudeOnVertex(call, url=url, host="vertex", memory=self._memory, options=self.endpoint.options)

    def _url(self, call: Call) -> str:
        name = call.upstream_model
        preview = any(word in name for word in ("preview", "-exp", "experimental"))
        base = self._base("v1beta1" if preview else "v1")
        if name.startswith("endpoints/"):  # a tuned model
            return f"{base}endpoints/{quote(name.removeprefix('endpoints/'), safe='')}"
        name = _name(name)
        if "/" in name:
            text = "Models of this publisher are reached by Vertex AI's OpenAI-compatible endpoint, a provider of kind openai."
            raise UnsupportedParameterError("model", text)
        return f"{base}publishers/google/models/{quote(name, safe='')}"

    def _base(self, version: str) -> str:
        """Return the URL up to the publishers, with a slash at its end."""
        options = self.endpoint.options
        location = str(options.get("location") or LOCATION)
        project, version = options.get("project"), options.get("api_version") or version
        place = f"projects/{quote(str(project), safe='')}/locations/{quote(location, safe='')}/" if project else ""
        return f"{host_of(self.endpoint.base_url, location if project else 'global')}/{version}/{place}"


class ClaudeOnVertex(ClaudeExchange):
    """A call to Claude; what Vertex itself refuses (quota, unknown model, token) comes in Google's form."""

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        if is_google(parsed(body)):
            return error_from(status, headers, body)
        return super().error(status, headers, body)


def claude_name(model: str) -> str | None:
    """Return the name of a Claude model as Vertex has it, None for any other model."""
    name = bare_name(model).removeprefix("anthropic/")
    return name if name.startswith("claude") else None


def host_of(base_url: str, location: str) -> str:
    """Return the base URL for a location: the configured one, unless that is the vendor's own pattern or empty."""
    regional = f"https://{location}-aiplatform.googleapis.com"
    if base_url and "{location}" not in base_url and base_url != regional:
        return base_url
    if location == "global":
        return "https://aiplatform.googleapis.com"
    if location in _MULTI_REGIONS:
        return f"https://aiplatform.{location}.rep.googleapis.com"
    return regional


def _name(model: str) -> str:
    return bare_name(model).removeprefix("google/")
