"""OpenAI's embeddings on Bedrock's three families."""

import base64
import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from openai.types import CreateEmbeddingResponse

from adapters.errors import InvalidRequestError, UnsupportedParameterError, UpstreamError
from tests.bedrock import BASE_URL, adapter, call

TITAN, COHERE, NOVA = "amazon.titan-embed-text-v2:0", "cohere.embed-v4:0", "amazon.nova-2-multimodal-embeddings-v1:0"


def exchange(body: dict[str, Any], model: str = TITAN):
    wanted = replace(call(model=model, operation="embeddings"), body={"model": "m", **body})
    return adapter().exchange(wanted)


REQUESTS = [
    (TITAN, {"input": "Hi"}, {"inputText": "Hi"}),
    (
        TITAN,
        {"input": ["Hi"], "dimensions": 256, "normalize": False},
        {"inputText": "Hi", "dimensions": 256, "normalize": False},
    ),
    (
        COHERE,
        {"input": ["a", "b"], "dimensions": 256},
        {"texts": ["a", "b"], "input_type": "search_document", "embedding_types": ["float"], "output_dimension": 256},
    ),
    (
        COHERE,
        {"input": "a", "input_type": "search_query"},
        {"texts": ["a"], "input_type": "search_query", "embedding_types": ["float"]},
    ),
    (
        NOVA,
        {"input": "a", "dimensions": 1024},
        {
            "taskType": "SINGLE_EMBEDDING",
            "singleEmbeddingParams": {
                "embeddingPurpose": "GENERIC_INDEX",
                "text": {"truncationMode": "NONE", "value": "a"},
                "embeddingDimension": 1024,
            },
        },
    ),
]


@pytest.mark.parametrize(("model", "body", "native"), REQUESTS)
def test_the_request_is_in_the_familys_own_form(model, body, native):
    request = exchange(body, model).request
    assert json.loads(request.body) == native
    assert request.url == f"{BASE_URL}/model/{model.replace(':', '%3A')}/invoke"


REFUSED = [
    ({"input": ["a", "b"]}, TITAN, "input"),
    ({"input": [1, 2]}, TITAN, "input"),
    ({"input": ""}, TITAN, "input"),
    ({}, TITAN, "input"),
    ({"input": "a", "dimensions": "x"}, TITAN, "dimensions"),
    ({"input": "a", "encoding_format": "hex"}, TITAN, "encoding_format"),
    ({"input": ["a"] * 97}, COHERE, "input"),
    ({"input": "a"}, "anthropic.claude-v2", "model"),
]


@pytest.mark.parametrize(("body", "model", "param"), REFUSED)
def test_what_cannot_be_embedded_is_refused_by_field(body, model, param):
    with pytest.raises(InvalidRequestError) as caught:
        exchange(body, model)
    assert caught.value.param == param


def test_what_is_left_out_is_told_and_other_operations_are_refused():
    assert exchange({"input": "a", "user": "u", "dimensions": None}).dropped == ("user",)
    with pytest.raises(UnsupportedParameterError):
        adapter().exchange(call(operation="responses"))


ANSWERS = [
    ({"embedding": [0.5, -1], "inputTextTokenCount": 3}, {}, 3),
    ({"embeddings": [[0.5, -1]]}, {"x-amzn-bedrock-input-token-count": "7"}, 7),
    ({"embeddings": {"float": [[0.5, -1]]}}, {"x-amzn-bedrock-input-token-count": "x"}, 0),
    ({"embeddings": [{"embeddingType": "TEXT", "embedding": [0.5, -1]}]}, {}, 0),
]


@pytest.mark.parametrize(("answer", "headers", "tokens"), ANSWERS)
def test_an_answer_honours_the_format_that_was_asked_for(answer, headers, tokens):
    """wire 3.66."""
    body = json.dumps(answer).encode()
    floats = exchange({"input": "a"}).completion(body, headers)
    CreateEmbeddingResponse.model_validate(floats.completion)
    assert json.loads(floats.body) == floats.completion
    assert floats.completion["data"] == [{"object": "embedding", "index": 0, "embedding": [0.5, -1]}]
    assert floats.completion["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    packed = exchange({"input": "a", "encoding_format": "base64"}).completion(body, headers)
    assert struct.unpack("<2f", base64.b64decode(packed.completion["data"][0]["embedding"])) == (0.5, -1)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda x: (
        st.lists(x, max_size=3)
        | st.dictionaries(
            st.sampled_from(["embedding", "embeddings", "float", "message", "inputTextTokenCount"]), x, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(ANY, st.sampled_from(["float", "base64"]))
def test_any_json_is_an_answer_or_a_documented_error(value, wanted):
    try:
        answer = exchange({"input": "a", "encoding_format": wanted}).completion(json.dumps(value).encode(), {})
    except UpstreamError as error:
        message = error.message
        assert message
    else:
        assert answer.completion["data"]
