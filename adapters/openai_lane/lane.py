"""The adapter of every server that speaks OpenAI's format. Providers differ in address, quirks and little else.

What a stranger would get wrong: the body and the answer are never serialised anew. The request is the client's bytes
with a few members changed (`adapters.splice`), the answer is the provider's bytes unless something in it would break
OpenAI's SDKs and the endpoint is to be repaired.
"""

from collections.abc import Mapping

from adapters.base import Adapter, Answer, Call, Endpoint, Exchange, Operation, StreamTranslator, UpstreamRequest
from adapters.errors import UpstreamError, UpstreamProtocolError
from adapters.memory import Memory
from adapters.openai_lane.chat_stream import ChatStream
from adapters.openai_lane.mended_stream import MendedStream
from adapters.openai_lane.parsing import dumps, parse
from adapters.openai_lane.request import build_body
from adapters.openai_lane.responses_stream import ResponsesStream
from adapters.openai_lane.thoughts import Thoughts
from adapters.problem import problem_in_success, read_problem
from adapters.quirks import Quirks, quirks_of
from adapters.repair import repair_completion
from adapters.splice import splice

PATHS: Mapping[Operation, str] = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "embeddings": "/embeddings",
    "responses": "/responses",
}
_NEEDED: Mapping[Operation, str] = {
    "chat": "choices",
    "completions": "choices",
    "embeddings": "data",
    "responses": "output",
}


_WHOLE = (("content-type", "application/json"), ("accept", "application/json"), ("accept-encoding", "identity"))
_STREAM = (("content-type", "application/json"), ("accept", "text/event-stream"), ("accept-encoding", "identity"))


class OpenAILane(Adapter):
    """An endpoint in OpenAI's format. Raises ValueError when its quirks are not in `adapters.quirks.TABLE`."""

    operations = frozenset(PATHS)

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self.quirks = self.settled_quirks(endpoint)
        self._memory = Memory() if self.quirks.reasoning_echo else None
        self._urls = {operation: endpoint.base_url.rstrip("/") + path for operation, path in PATHS.items()}

    def exchange(self, call: Call) -> Exchange:
        model = self.model_name(call)
        thoughts = None
        if self._memory is not None and call.operation == "chat":
            thoughts = Thoughts(self._memory, call.body.get("messages"))
        body, dropped = build_body(call, model, self.quirks, thoughts.recalled if thoughts else None)
        request = UpstreamRequest(url=self.url(call, model), headers=_STREAM if call.stream else _WHOLE, body=body)
        return OpenAIExchange(
            call, request, dropped, repair=self.endpoint.repair, quirks=self.quirks, thoughts=thoughts
        )

    def settled_quirks(self, endpoint: Endpoint) -> Quirks:
        """Return what this endpoint does otherwise."""
        return quirks_of(endpoint)

    def model_name(self, call: Call) -> str:
        """Return the name that the server knows the model by."""
        return call.upstream_model

    def url(self, call: Call, model: str) -> str:
        """Return where this call goes."""
        del model
        return self._urls[call.operation]


class OpenAIExchange(Exchange):
    """One call in OpenAI's format."""

    def __init__(
        self, call: Call, request: UpstreamRequest, dropped: tuple[str, ...], *, repair: bool, quirks: Quirks,
        thoughts: Thoughts | None = None,
    ) -> None:  # fmt: skip
        self.request, self.dropped = request, dropped
        self._call, self._repair, self._quirks, self._thoughts = call, repair, quirks, thoughts

    def completion(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        completion = parse(body)
        needed = completion.get(_NEEDED[self._call.operation]) if isinstance(completion, dict) else None
        if not isinstance(needed, list) or completion.get("error") or completion.get("object") == "error":
            problem = problem_in_success(completion, headers)
            if problem is not None:
                raise problem
            if not isinstance(needed, list):
                raise UpstreamProtocolError("The provider's answer is not in OpenAI's format.")
        if self._repair and self._call.operation == "chat":
            changed = repair_completion(completion, self._call, reasoning_apart=self._quirks.reasoning_apart)
            if changed:
                new = {key: dumps(completion[key]) if key in completion else None for key in changed}
                body = splice(body, new, read=frozenset())
        if self._thoughts is not None:
            self._thoughts.completion(completion)
        return Answer(body=body, completion=completion)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return read_problem(status, headers, body)

    def stream(self) -> StreamTranslator:
        if self._call.operation == "responses":
            return ResponsesStream(self._call)
        if self._repair and self._call.operation == "chat":
            return MendedStream(self._call, reasoning_apart=self._quirks.reasoning_apart, thoughts=self._thoughts)
        return ChatStream(
            self._call, reasoning_apart=self._quirks.reasoning_apart, fill_first=self._quirks.fill_first_chunk,
            thoughts=self._thoughts,
        )  # fmt: skip
