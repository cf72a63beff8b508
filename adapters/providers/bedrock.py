"""Amazon Bedrock: chat by Converse, embeddings by the models' own bodies.

A model's id may be an ARN with colons and slashes: it is one segment of the path, percent-encoded, and the signature
encodes the path once more. Pictures given as URLs are fetched beforehand (`wanted_media`), as Converse takes bytes only.
Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html
"""

from collections.abc import Mapping
from urllib.parse import quote

from adapters.base import Adapter, Answer, Call, Endpoint, Exchange, Operation, StreamTranslator, UpstreamRequest
from adapters.bedrock.answer import Reading, completion_of
from adapters.bedrock.blocks import urls_of
from adapters.bedrock.embeddings import EmbeddingsExchange
from adapters.bedrock.errors import error_of_body, error_of_response
from adapters.bedrock.request import converse
from adapters.bedrock.stream import ConverseStream
from adapters.errors import InvalidRequestError, UnsupportedParameterError, UpstreamError, UpstreamProtocolError
from adapters.exact import dumps_exact, loads_exact
from adapters.lenient import loads
from adapters.memory import Memory
from adapters.messages import normalise


class BedrockAdapter(Adapter):
    """One region's runtime. Remembers signed reasoning for clients that do not echo it."""

    operations: frozenset[Operation] = frozenset({"chat", "embeddings"})

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._memory = Memory()

    def exchange(self, call: Call) -> Exchange:
        model = f"{self.endpoint.base_url}/model/{quote(call.upstream_model, safe='')}"
        if call.operation == "embeddings":
            return EmbeddingsExchange(call, f"{model}/invoke")
        if call.operation != "chat":
            raise UnsupportedParameterError("model", f"Bedrock has no {call.operation} here.")
        return ConverseExchange(call, model, self._memory)

    def wanted_media(self, call: Call) -> tuple[str, ...]:
        if call.operation != "chat":
            return ()
        try:
            return urls_of(normalise(call.body))
        except InvalidRequestError:  # `exchange` tells the client what is wrong
            return ()


class ConverseExchange(Exchange):
    """One call of Converse or ConverseStream."""

    def __init__(self, call: Call, model_url: str, memory: Memory) -> None:
        built = converse(call, memory)
        accept = "application/vnd.amazon.eventstream" if call.stream else "application/json"
        self.request = UpstreamRequest(
            url=f"{model_url}/converse-stream" if call.stream else f"{model_url}/converse",
            headers=(("content-type", "application/json"), ("accept", accept)),
            body=dumps_exact(built.body),
        )
        self.dropped = built.dropped
        self._reading = Reading(call=call, json_tool=built.json_tool, legacy=built.legacy, memory=memory)

    def completion(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        answer = _object(body)
        if not isinstance(answer.get("output"), dict):
            raise error_of_body(answer, headers) or UpstreamProtocolError("The provider's answer has no output.")
        try:
            completion = completion_of(answer, self._reading)
            return Answer(body=dumps_exact(completion), completion=completion)
        except InvalidRequestError as error:  # nested too deeply to be written again
            raise UpstreamProtocolError("The provider's answer cannot be written as JSON.") from error

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return error_of_response(status, headers, body)

    def stream(self) -> StreamTranslator:
        return ConverseStream(self._reading)


def _object(body: bytes) -> dict[str, object]:
    try:
        answer = loads_exact(body)
    except ValueError:
        try:
            answer = loads(body)
        except ValueError as error:
            raise UpstreamProtocolError("The provider's answer is no JSON.") from error
    if not isinstance(answer, dict):
        raise UpstreamProtocolError("The provider's answer is no JSON object.")
    return answer
