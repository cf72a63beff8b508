"""OpenAI's embeddings on Bedrock, which has one body for each family: Titan, Cohere and Nova.

Titan and Nova take one text per call, Cohere up to 96. OpenAI's SDKs ask for base64 of little-endian floats unless told
otherwise, and break on anything else then. The token count is in a header, in Titan's body too.
Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-titan-embed-text.html and
https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-embed.html
"""

import base64
import math
import struct
from collections.abc import Mapping
from typing import Any, Literal, NoReturn, TypeAlias

import orjson

from adapters.base import JSON, Answer, Call, Exchange, UpstreamRequest
from adapters.bedrock.errors import error_of_body, error_of_response
from adapters.errors import InvalidRequestError, UnsupportedParameterError, UpstreamError, UpstreamProtocolError
from adapters.exact import dumps_exact

Family: TypeAlias = Literal["titan", "cohere", "nova"]
TEXTS_MAX: Mapping[Family, int] = {"titan": 1, "cohere": 96, "nova": 1}
_NATIVE: Mapping[Family, tuple[str, ...]] = {
    "titan": ("normalize",),
    "cohere": ("input_type", "truncate"),
    "nova": ("taskType",),
}
_KNOWN = frozenset({"model", "input", "dimensions", "encoding_format"})
_FLOAT_MAX = 3.4028234663852886e38
TOKENS_MAX = 2**40


class EmbeddingsExchange(Exchange):
    """One InvokeModel call."""

    def __init__(self, call: Call, url: str) -> None:
        """Build the request. Raises InvalidRequestError and UnsupportedParameterError."""
        self._call = call
        family = _family(call.upstream_model)
        body = _body(call, family, _texts(call.body.get("input"), family))
        native = {name: call.body[name] for name in _NATIVE[family] if call.body.get(name) is not None}
        headers = (("content-type", "application/json"), ("accept", "application/json"))
        self.request = UpstreamRequest(url=url, headers=headers, body=dumps_exact({**body, **native}))
        known = _KNOWN | set(_NATIVE[family])
        self.dropped = tuple(name for name, value in call.body.items() if name not in known and value is not None)
        wanted = call.body.get("encoding_format")
        if wanted not in (None, "float", "base64"):
            raise InvalidRequestError("'encoding_format' must be float or base64.", param="encoding_format")
        self._base64 = wanted == "base64"

    def completion(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        try:
            answer = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise UpstreamProtocolError("The provider's answer is no JSON.") from error
        if not isinstance(answer, dict):
            raise UpstreamProtocolError("The provider's answer is no JSON object.")
        vectors = _vectors(answer)
        if not vectors:
            raise error_of_body(answer, headers) or UpstreamProtocolError("The provider's answer has no embeddings.")
        tokens = _tokens(answer, headers)
        completion: JSON = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": self._encoded(vector)}
                for index, vector in enumerate(vectors)
            ],
            "model": self._call.upstream_model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return Answer(body=orjson.dumps(completion), completion=completion)

    def error(self, status: int, headers: Mapping[str, str], body: bytes) -> UpstreamError:
        return error_of_response(status, headers, body)

    def stream(self) -> NoReturn:
        raise InvalidRequestError("Embeddings are not streamed.", param="stream")

    def _encoded(self, vector: list[float]) -> list[float] | str:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if self._base64 else vector


def _family(upstream_model: str) -> Family:
    if "titan-embed" in upstream_model:
        return "titan"
    if "cohere.embed" in upstream_model:
        return "cohere"
    if "amazon.nova" in upstream_model and "embed" in upstream_model:
        return "nova"
    raise UnsupportedParameterError("model", "Bursar knows no embeddings of this model on Bedrock.")


def _texts(given: Any, family: Family) -> list[str]:
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise InvalidRequestError("'input' must be a text or a list of texts here, none of them empty.", param="input")
    if len(texts) > TEXTS_MAX[family]:
        raise UnsupportedParameterError("input", f"This model takes at most {TEXTS_MAX[family]} texts in one call.")
    return texts


def _body(call: Call, family: Family, texts: list[str]) -> JSON:
    size = call.body.get("dimensions")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise InvalidRequestError("'dimensions' must be a positive integer.", param="dimensions")
    if family == "titan":
        return {"inputText": texts[0], **({"dimensions": size} if size else {})}
    if family == "cohere":
        sized = {"output_dimension": size} if size else {}
        return {"texts": texts, "input_type": "search_document", "embedding_types": ["float"], **sized}
    text = {"truncationMode": "NONE", "value": texts[0]}
    params: JSON = {"embeddingPurpose": "GENERIC_INDEX", "text": text}
    if size:
        params["embeddingDimension"] = size
    return {"taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": params}


def _vectors(answer: JSON) -> list[list[float]]:
    found = answer.get("embeddings", answer.get("embedding"))
    if isinstance(found, dict):
        found = found.get("float")
    if not isinstance(found, list):
        return []
    rows: list[Any] = found if found and isinstance(found[0], list | dict) else [found]
    vectors: list[Any] = [row.get("embedding") if isinstance(row, dict) else row for row in rows]
    return vectors if all(map(_is_vector, vectors)) else []


def _is_vector(row: Any) -> bool:
    return (
        isinstance(row, list)
        and bool(row)
        and all(
            isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) and abs(x) <= _FLOAT_MAX
            for x in row
        )
    )


def _tokens(answer: JSON, headers: Mapping[str, str]) -> int:
    count = answer.get("inputTextTokenCount")
    if isinstance(count, int) and not isinstance(count, bool) and 0 <= count <= TOKENS_MAX:
        return count
    text = headers.get("x-amzn-bedrock-input-token-count", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(TOKENS_MAX)) else 0
