"""The Gemini API of AI Studio.

`alt=sse` must be asked for, else a stream is one JSON array. The key goes in a header, never in the URL, where it would
end up in logs. Source: https://ai.google.dev/api/generate-content
"""

from urllib.parse import quote

import orjson

from adapters.base import Adapter, Call, Endpoint, Exchange, Operation
from adapters.errors import UnsupportedParameterError
from adapters.google.contents import wanted_urls
from adapters.google.embeddings import batch_body, dropped_of
from adapters.google.exchange import GoogleExchange, signatures_in
from adapters.google.models import bare_name, model_of
from adapters.google.request import Dialect, request_body
from adapters.memory import Memory
from adapters.vendors import vendor_url

API_VERSION = "v1beta"  # where preview models and newer fields are


class GeminiAdapter(Adapter):
    """One configured Gemini API; its memory of signatures is shared by all its calls."""

    operations: frozenset[Operation] = frozenset({"chat", "embeddings"})

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._memory = Memory()

    def exchange(self, call: Call) -> Exchange:
        if call.operation not in self.operations:
            raise UnsupportedParameterError("model", f"Gemini has no {call.operation} here.")
        name = bare_name(call.upstream_model)
        version = self.endpoint.options.get("api_version") or API_VERSION
        collection = "tunedModels" if call.upstream_model.startswith("tunedModels/") else "models"
        base = f"{self.endpoint.base_url or vendor_url('gemini')}/{version}/{collection}/{quote(name, safe='')}"
        if call.operation == "embeddings":
            body, dropped = orjson.dumps(batch_body(call, name)), dropped_of(call.body)
            return GoogleExchange(call, self._memory, url=f"{base}:batchEmbedContents", body=body, dropped=dropped)
        recall = signatures_in(self._memory)[0]
        dialect = Dialect(vertex=False, model=model_of(name, self.endpoint.quirks), recall=recall)
        body, dropped = request_body(call, dialect)
        method = "streamGenerateContent?alt=sse" if call.stream else "generateContent"
        return GoogleExchange(call, self._memory, url=f"{base}:{method}", body=body, dropped=dropped)

    def wanted_media(self, call: Call) -> tuple[str, ...]:
        if call.operation != "chat":
            return ()
        model = model_of(bare_name(call.upstream_model), self.endpoint.quirks)
        return wanted_urls(call.body, model)
