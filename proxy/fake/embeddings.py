"""The fake provider's embeddings: vectors of length one, made of the input's hash, as floats or as base64.

OpenAI's SDKs ask for base64 by default and read it as little-endian 32-bit floats.
Source: https://platform.openai.com/docs/api-reference/embeddings
"""

import base64
import struct
from collections.abc import Sequence

from adapters.base import JSON
from proxy.fake.plan import BadRequestError, Count, count_input, generator, inputs
from proxy.fake.words import vector

_DIMENSIONS = 256
_DIMENSIONS_MAX = 4096


def embeddings(raw: bytes, body: JSON, *, model: str, count: Count) -> JSON:
    """Return the whole answer. Raises BadRequestError."""
    dimensions = body.get("dimensions", _DIMENSIONS)
    if not isinstance(dimensions, int) or not 1 <= dimensions <= _DIMENSIONS_MAX:
        raise BadRequestError(f"'dimensions' must be an integer from 1 to {_DIMENSIONS_MAX}.", "dimensions")
    rng, rows = generator(raw), inputs(body.get("input"))
    tokens = sum(count_input(row, count) for row in rows)
    packed = body.get("encoding_format") == "base64"
    vectors = [vector(rng, dimensions) for _ in rows]
    data = [
        {"object": "embedding", "index": index, "embedding": _pack(v) if packed else v}
        for index, v in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": model, "usage": usage}


def _pack(values: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
