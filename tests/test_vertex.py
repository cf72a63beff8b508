"""Vertex AI: hosts and paths, what differs from the Gemini API, and Claude in Anthropic's format."""

import json

import orjson
import pytest
from google.genai import types

from adapters.base import Call, Endpoint
from adapters.errors import UnsupportedParameterError, UpstreamAuthError
from adapters.providers.vertex import VertexAdapter
from tests import recorded

USER = {"role": "user", "content": "hi"}
PLACE = "projects/my-project/locations"


def adapter(location="us-central1", base_url="", project="my-project", **options) -> VertexAdapter:
    known = {"location": location, "project": project, **options}
    return VertexAdapter(Endpoint(name="v", kind="vertex", base_url=base_url, options=known))


def call(model="gemini-2.5-flash", body=None, **changes):
    body = {"model": model, "messages": [USER], **(body or {})}
    fields = {
        "raw": orjson.dumps(body),
        "body": body,
        "upstream_model": model,
        "stream": bool(body.get("stream")),
        "call_id": "req_1",
        "created": 1_700_000_000,
    }
    return Call(**{**fields, **changes})


@pytest.mark.parametrize(
    ("location", "base_url", "start"),
    [
        ("us-central1", "", "https://us-central1-aiplatform.googleapis.com"),
        (
            "us-central1",
            "https://{location}-aiplatform.googleapis.com",
            "https://us-central1-aiplatform.googleapis.com",
        ),
        ("global", "https://global-aiplatform.googleapis.com", "https://aiplatform.googleapis.com"),
        ("global", "", "https://aiplatform.googleapis.com"),
        ("us", "", "https://aiplatform.us.rep.googleapis.com"),
        ("eu", "https://{location}-aiplatform.googleapis.com", "https://aiplatform.eu.rep.googleapis.com"),
        ("eu", "http://127.0.0.1:9", "http://127.0.0.1:9"),
    ],
)
def test_the_location_decides_the_host(location, base_url, start):
    url = adapter(location, base_url).exchange(call()).request.url
    assert url == f"{start}/v1/{PLACE}/{location}/publishers/google/models/gemini-2.5-flash:generateContent"


@pytest.mark.parametrize(
    ("model", "body", "end"),
    [
        ("gemini-2.5-flash", {"stream": True}, "v1/{place}/publishers/google/models/gemini-2.5-flash:streamGenerateContent?alt=sse"),
        ("gemini-3-pro-preview", {}, "v1beta1/{place}/publishers/google/models/gemini-3-pro-preview:generateContent"),
        ("google/gemini-2.5-flash", {}, "v1/{place}/publishers/google/models/gemini-2.5-flash:generateContent"),
        ("publishers/google/models/gemini-2.5-flash", {}, "v1/{place}/publishers/google/models/gemini-2.5-flash:generateContent"),
        ("endpoints/123", {}, "v1/{place}/endpoints/123:generateContent"),
        ("claude-haiku-4-5@20251001", {}, "v1/{place}/publishers/anthropic/models/claude-haiku-4-5@20251001:rawPredict"),
        ("anthropic/claude-opus-4-5", {"stream": True}, "v1/{place}/publishers/anthropic/models/claude-opus-4-5:streamRawPredict"),
    ],
)  # fmt: skip
def test_the_model_decides_the_path(model, body, end):
    url = adapter().exchange(call(model, body)).request.url
    place = f"{PLACE}/us-central1"
    assert url == "https://us-central1-aiplatform.googleapis.com/" + end.format(place=place)


def test_without_a_project_the_express_mode_is_meant():
    url = adapter(project=None).exchange(call()).request.url
    assert url == "https://aiplatform.googleapis.com/v1/publishers/google/models/gemini-2.5-flash:generateContent"


def test_the_version_of_the_api_can_be_set():
    assert "/v1beta1/" in adapter(api_version="v1beta1").exchange(call()).request.url


@pytest.mark.parametrize("model", ["meta/llama-4", "publishers/mistralai/models/mistral-large", "gemini/../../x"])
def test_models_of_other_publishers_are_refused_with_the_way_to_them(model):
    if model.startswith("publishers"):
        model = model.removeprefix("publishers/").replace("/models/", "/")
    with pytest.raises(UnsupportedParameterError) as caught:
        adapter().exchange(call(model))
    assert caught.value.param == "model"


def test_metadata_become_labels():
    exchange = adapter().exchange(call(body={"metadata": {"Team": "R&D", "9": "x", "env": "a" * 80, "n": 3}}))
    labels = json.loads(exchange.request.body)["labels"]
    assert labels == {"team": "r_d", "env": "a" * 63}
    assert exchange.dropped == ()


def test_labels_and_model_armor_go_through_and_store_is_told():
    armor = {"promptTemplateName": "t"}
    exchange = adapter().exchange(call(body={"labels": {"a": "b"}, "model_armor_config": armor, "store": True}))
    native = json.loads(exchange.request.body)
    assert (native["labels"], native["modelArmorConfig"]) == ({"a": "b"}, armor)
    assert exchange.dropped == ("store",)


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
@pytest.mark.parametrize("case_id", [c for c in recorded.case_ids("gemini") if c.startswith("vertex")])
@pytest.mark.parametrize("size", [0, 7])
def test_a_recorded_answer_keeps_every_fact(case_id, size):
    case = recorded.load(case_id)
    assert recorded.problems(adapter("global"), case, size) == []
    exchange = adapter("global").exchange(recorded.call_for(case))
    for content in json.loads(exchange.request.body)["contents"]:
        types.Content.model_validate_json(json.dumps(content))
    publisher, theirs = "/publishers/google/", case["endpoint"]["url"]
    if publisher in theirs:
        assert exchange.request.url.split(publisher)[1] == theirs.split(publisher)[1]


def test_embeddings_have_their_own_method_and_count_tokens():
    body = {"input": ["a", "b"], "dimensions": 3, "task_type": "RETRIEVAL_QUERY"}
    exchange = adapter().exchange(call("gemini-embedding-001", body, operation="embeddings"))
    assert exchange.request.url.endswith("/publishers/google/models/gemini-embedding-001:predict")
    assert json.loads(exchange.request.body) == {
        "instances": [{"content": text, "task_type": "RETRIEVAL_QUERY"} for text in "ab"],
        "parameters": {"outputDimensionality": 3},
    }
    one = {"embeddings": {"values": [1.0, 2.0], "statistics": {"token_count": 4}}}
    completion = exchange.completion(orjson.dumps({"predictions": [one, one]}), {}).completion
    assert [d["embedding"] for d in completion["data"]] == [[1.0, 2.0], [1.0, 2.0]]
    assert completion["usage"] == {"prompt_tokens": 8, "total_tokens": 8}


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
def test_recorded_embeddings():
    case = recorded.load("vertex-gemini-embeddings-non-stream-001")
    asked = call("gemini-embedding-001", {"input": "Hello, world!"}, operation="embeddings")
    completion = adapter().exchange(asked).completion(recorded.response_bytes(case), {}).completion
    assert len(completion["data"]) == 1
    assert completion["usage"]["total_tokens"] == 4


# Claude ---------------------------------------------------------------------------------------------------------------


def test_claude_is_sent_anthropics_body_without_the_model():
    """wire 3.73: tools and system come before the messages."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
    body = {"messages": [{"role": "system", "content": "S"}, USER], "tools": tools, "max_tokens": 9}
    native = json.loads(adapter().exchange(call("claude-haiku-4-5", body, output_limit=5)).request.body)
    assert native["anthropic_version"] == "vertex-2023-10-16"
    assert native["max_tokens"] == 5
    assert "model" not in native
    keys = list(native)
    assert keys.index("tools") < keys.index("system") < keys.index("messages")


def test_claude_answers_through_vertex():
    answer = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5",
        "content": [{"type": "text", "text": "yo"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 1},
    }
    completion = adapter().exchange(call("claude-haiku-4-5")).completion(orjson.dumps(answer), {}).completion
    assert completion["choices"][0]["message"]["content"] == "yo"
    assert completion["usage"]["total_tokens"] == 4


def test_claude_on_vertex_fetches_no_urls():
    image = {"type": "image_url", "image_url": {"url": "https://x.example/a.png"}}
    asked = call("claude-haiku-4-5", {"messages": [{"role": "user", "content": [image]}]})
    assert adapter().wanted_media(asked) == ("https://x.example/a.png",)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (429, {"error": {"code": 429, "message": "Quota exceeded", "status": "RESOURCE_EXHAUSTED", "details": [{"retryDelay": "7.5s"}]}}, (429, "rate_limit_exceeded")),
        (404, [{"error": {"code": 404, "message": "Publisher Model x not found", "status": "NOT_FOUND"}}], (404, "model_not_found")),
    ],
)  # fmt: skip
def test_what_vertex_itself_refuses_is_read_in_googles_form(status, body, expected):
    error = adapter().exchange(call("claude-haiku-4-5")).error(status, {}, orjson.dumps(body))
    assert (error.status, error.code) == expected
    assert error.headers.get("retry-after") == ("8" if status == 429 else None)


def test_what_claude_refuses_is_read_in_anthropics_form():
    body = {"type": "error", "error": {"type": "invalid_request_error", "message": "too hot"}}
    error = adapter().exchange(call("claude-haiku-4-5")).error(400, {}, orjson.dumps(body))
    assert (error.status, error.message) == (400, "too hot")


def test_a_token_that_vertex_rejects_is_the_operators_trouble():
    body = {"error": {"code": 401, "message": "invalid token", "status": "UNAUTHENTICATED"}}
    for model in ("claude-haiku-4-5", "gemini-2.5-flash"):
        assert isinstance(adapter().exchange(call(model)).error(401, {}, orjson.dumps(body)), UpstreamAuthError)
