"""Embeddings: OpenAI's request as batchEmbedContents (Gemini) or predict (Vertex), and the answers back.

Gemini counts no tokens, so its answers have a usage of zeros that the meter must not believe; Vertex counts them. The
official clients ask for base64 unless told otherwise: 32-bit floats, little-endian.
Source: https://ai.google.dev/api/embeddings, https://platform.openai.com/docs/api-reference/embeddings
"""

import base64
import struct
from typing import Any

import orjson

from adapters.base import JSON, Answer, Call
from adapters.errors import InvalidRequestError, UnsupportedParameterError, UpstreamProtocolError
from adapters.google.answer import response_of
from adapters.lenient import items, member

INPUTS_MAX = 2048


def batch_body(call: Call, model: str) -> JSON:
    """Return the body of batchEmbedContents. Raises InvalidRequestError and UnsupportedParameterError."""
    requests = []
    for text in _inputs(call.body.get("input")):
        request: JSON = {"model": f"models/{model}", "content": {"parts": [{"text": text}]}}
        requests.append({**request, **_options(call.body, "taskType", "title")})
    return {"requests": requests}


def predict_body(call: Call) -> JSON:
    """Return the body of Vertex' predict. Raises InvalidRequestError and UnsupportedParameterError."""
    options = _options(call.body, "taskType", "title")
    dimensions = options.pop("outputDimensionality", None)
    task = {"task_type": options["taskType"]} if "taskType" in options else {}
    body: JSON = {"instances": [{"content": text, **task} for text in _inputs(call.body.get("input"))]}
    return body if dimensions is None else {**body, "parameters": {"outputDimensionality": dimensions}}


def dropped_of(body: JSON) -> tuple[str, ...]:
    """Return the names of the fields that have no place in either."""
    known = {"input", "model", "dimensions", "encoding_format", "taskType", "task_type", "title"}
    return tuple(key for key, value in body.items() if value is not None and key not in known)


def embeddings_of(body: bytes, call: Call) -> Answer:
    """Translate the answer of either. Raises UpstreamError and UpstreamProtocolError."""
    response = response_of(body)
    found = items(response.get("embeddings"))
    tokens = _count(member(response, "usageMetadata").get("promptTokenCount"))
    for prediction in items(response.get("predictions")):
        embedding = member(prediction, "embeddings")
        found.append(embedding)
        tokens += _count(member(embedding, "statistics").get("token_count"))
    wanted = len(_inputs(call.body.get("input")))
    if len(found) != wanted:
        raise UpstreamProtocolError(f"The provider gave {len(found)} embeddings for {wanted} inputs.")
    as_floats = call.body.get("encoding_format") != "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(embedding.get("values"), as_floats=as_floats)}
        for index, embedding in enumerate(found)
    ]
    completion: JSON = {
        "object": "list",
        "data": data,
        "model": call.upstream_model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return Answer(body=orjson.dumps(completion), completion=completion)


def _inputs(given: Any) -> list[str]:
    inputs = [given] if isinstance(given, str) else given
    if not isinstance(inputs, list) or not inputs or len(inputs) > INPUTS_MAX:
        raise InvalidRequestError("'input' must be a string or a list of 1 to 2048 strings.", param="input")
    if any(isinstance(text, int | list) for text in inputs):
        raise UnsupportedParameterError("input", "This provider takes text, not tokens.")
    if not all(isinstance(text, str) and text for text in inputs):
        raise InvalidRequestError("'input' must not hold anything but strings with text in them.", param="input")
    return inputs


def _options(body: JSON, *native: str) -> JSON:
    options: JSON = {key: body[key] for key in native if body.get(key) is not None}
    if body.get("task_type") is not None:
        options["taskType"] = body["task_type"]
    dimensions = body.get("dimensions")
    if dimensions is not None:
        if isinstance(dimensions, bool) or not isinstance(dimensions, int) or dimensions < 1:
            raise InvalidRequestError("'dimensions' must be an integer of at least 1.", param="dimensions")
        options["outputDimensionality"] = dimensions
    return options


def _vector(values: Any, *, as_floats: bool) -> list[float] | str:
    if not isinstance(values, list) or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
        raise UpstreamProtocolError("The provider gave an embedding that is no list of numbers.")
    if as_floats:
        return values
    try:
        return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
    except (OverflowError, struct.error) as error:
        raise UpstreamProtocolError("The provider gave an embedding that holds no 32-bit floats.") from error


def _count(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**40 else 0
