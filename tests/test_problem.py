"""Error bodies of every form become OpenAI's four keys (wire 3.69, 3.80, 2.7's list)."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.errors import UpstreamAuthError, UpstreamError
from adapters.problem import TEXT_MAX, problem_in_success, read_problem

# name, status, body -> status, type, code, param, start of the message
CASES = [
    ("openai", 400, {"error": {"message": "Bad n", "type": "invalid_request_error", "param": "n", "code": "invalid_value"}},
     (400, "invalid_request_error", "invalid_value", "n", "Bad n")),
    ("text", 400, {"error": "model is required"}, (400, "invalid_request_error", None, None, "model is required")),
    ("list", 400, [{"error": {"message": "No", "code": 400, "status": "INVALID_ARGUMENT"}}],
     (400, "invalid_request_error", None, None, "No")),
    ("detail", 404, {"detail": "Not Found"}, (404, "invalid_request_error", None, None, "Not Found")),
    ("fastapi", 422, {"detail": [{"loc": ["body", "messages", 0], "msg": "Field required", "type": "missing"}]},
     (422, "invalid_request_error", None, "messages.0", "messages.0: Field required")),
    ("vllm", 400, {"object": "error", "message": "too big", "type": "BadRequestError", "param": None, "code": 400},
     (400, "invalid_request_error", None, None, "too big")),
    ("vllm context", 400, {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400},
     (400, "invalid_request_error", "context_length_exceeded", None, "This model's")),
    ("xai prose", 404, {"code": "Some requested entity was not found", "error": "The model grok-x does not exist or no access."},
     (404, "invalid_request_error", "model_not_found", None, "The model grok-x")),
    ("novita", 400, {"code": 400, "reason": "INVALID_PARAMETER", "message": "bad max_tokens"},
     (400, "invalid_request_error", None, None, "bad max_tokens")),
    ("flat", 429, {"message": "slow down", "code": "429"}, (429, "rate_limit_error", "rate_limit_exceeded", None, "slow down")),
    ("azure throttle", 429, {"error": {"code": "429", "message": "Rate limit is exceeded."}},
     (429, "rate_limit_error", "rate_limit_exceeded", None, "Rate limit")),
    ("azure deployment", 404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment does not exist."}},
     (404, "invalid_request_error", "model_not_found", None, "The API deployment")),
    ("azure gateway", 404, {"statusCode": 404, "message": "Resource not found"}, (404, "invalid_request_error", None, None, "Resource")),
    ("quota", 429, {"error": {"message": "quota", "type": "insufficient_quota", "code": "insufficient_quota"}},
     (429, "insufficient_quota", "insufficient_quota", None, "quota")),
    ("payment", 402, {"error": {"message": "Insufficient Balance", "type": "unknown_error", "code": "invalid_request_error"}},
     (402, "unknown_error", "invalid_request_error", None, "Insufficient")),
    ("server", 500, {"error": {"message": "boom", "type": None, "code": None}}, (500, "server_error", None, None, "boom")),
    ("overloaded", 529, {"error": "overloaded"}, (529, "server_error", None, None, "overloaded")),
    ("odd status", 302, {"message": "moved"}, (502, "invalid_request_error", None, None, "moved")),
    ("model error", 424, {"message": "model broke"}, (502, "invalid_request_error", None, None, "model broke")),
    ("json then text", 400, b'{"error":{"message":"bad"}}\nsee https://example.org/help', (400, "invalid_request_error", None, None, "bad see https")),
    ("html", 502, b"<html><head><title>502 Bad Gateway</title>", (502, "server_error", None, None, "<html><head>")),
    ("text only", 503, b"upstream connect error", (503, "server_error", None, None, "upstream connect")),
    ("empty", 500, b"", (500, "server_error", None, None, "The provider answered with HTTP 500")),
    ("null", 500, b"null", (500, "server_error", None, None, "The provider answered with HTTP 500")),
    ("empty list", 500, b"[]", (500, "server_error", None, None, "The provider answered with HTTP 500")),
    ("nested message", 400, {"error": {"message": {"detail": "deep"}}}, (400, "invalid_request_error", None, None, "deep")),
    ("no utf-8", 400, b"\xff\xfe\x00", (400, "invalid_request_error", None, None, "\ufffd")),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "expected"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_an_error_body_becomes_the_four_keys(status, body, expected):
    error = read_problem(status, {}, body if isinstance(body, bytes) else json.dumps(body).encode())
    said = error.body()["error"]
    assert (error.status, said["type"], said["code"], said["param"]) == expected[:4]
    assert said["message"].startswith(expected[4])


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, {"error": {"message": "Access denied due to invalid subscription key.", "code": "401"}}),
        (401, {"error": {"message": "Incorrect API key provided: sk-abc***wxyz.", "code": "invalid_api_key"}}),
        (401, {}),
        (403, {"error": {"message": "Your API key was reported as leaked", "code": 403}}),
        (400, {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***yz."}),
        (403, {"error": {"message": "no", "code": "invalid_api_key"}}),
    ],
)
def test_a_refused_key_is_the_operators_matter_and_never_shown(status, body):
    """The design wins over keeping the status: 401 would tell the client that its own key is wrong."""
    error = read_problem(status, {"x-request-id": "r", "retry-after": "1"}, json.dumps(body).encode())
    assert isinstance(error, UpstreamAuthError)
    assert (error.status, error.type, error.code) == (502, "upstream_error", "upstream_auth_error")
    assert "***" not in error.message
    assert "abc" not in error.message
    assert "wxyz" not in error.message
    assert error.headers == {"x-request-id": "r"}


def test_a_403_about_something_else_stays_the_clients():
    error = read_problem(403, {}, b'{"error":{"message":"Country not supported","code":"unsupported_country"}}')
    assert (error.status, error.type, error.code) == (403, "permission_error", "unsupported_country")


def test_what_a_provider_adds_to_its_error_is_kept():
    """wire 2.5: innererror; 2.7: failed_generation."""
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"jailbreak": {"filtered": True}}}
    body = {
        "error": {"message": "filtered", "type": None, "param": "prompt", "code": "content_filter", "innererror": inner}
    }
    said = read_problem(400, {}, json.dumps(body).encode()).body()["error"]
    assert said["innererror"] == inner
    assert (said["code"], said["param"], said["type"]) == ("content_filter", "prompt", "invalid_request_error")


def test_headers_that_say_when_to_come_back_are_kept_under_their_names():
    """wire 3.69."""
    sent = {
        "retry-after": "7", "retry-after-ms": "6500", "x-should-retry": "true", "x-ratelimit-remaining-tokens": "0",
        "apim-request-id": "az-1", "set-cookie": "a=b", "content-encoding": "gzip", "content-length": "3",
    }  # fmt: skip
    assert read_problem(429, sent, b"{}").headers == {
        "retry-after": "7", "retry-after-ms": "6500", "x-should-retry": "true", "x-ratelimit-remaining-tokens": "0",
        "x-request-id": "az-1",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["x-request-id", "request-id", "apim-request-id", "x-amzn-requestid"])
def test_every_name_of_a_request_id_becomes_one(name):
    assert read_problem(500, {name: "abc"}, b"").headers == {"x-request-id": "abc"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"error": {"message": "slow", "code": 429}}, 429),
        ({"error": {"message": "slow", "code": "503"}}, 503),
        ({"error": {"message": "bad", "status_code": 400, "code": "tool_use_failed"}}, 400),
        ({"error": "free pool is empty"}, 502),
        ({"error": {"message": "odd", "code": 200}}, 502),
        ({"error": {"message": "late", "code": 500}, "choices": [{"delta": {}}]}, 500),
        ({"object": "error", "message": "bad", "code": 404}, 404),
        ({"detail": "Unauthorised region"}, 502),
    ],
)
def test_an_error_inside_a_success_is_an_error(body, status):
    """wire 3.22."""
    error = problem_in_success(body)
    assert isinstance(error, UpstreamError)
    assert error.status == status
    assert error.message


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "text",
        {},
        {"choices": [], "error": None},
        {"object": "response", "error": {"message": "failed"}},
        {"type": "ping"},
    ],
)
def test_a_success_is_no_error(body):
    assert problem_in_success(body) is None


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["error", "errors", "message", "detail", "code", "type", "param", "msg", "loc", "status", "innererror", "choices"]), inner, max_size=5),
    max_leaves=15,
)  # fmt: skip


@settings(deadline=None)
@given(st.integers(100, 700), st.binary(max_size=200) | ANY_JSON.map(lambda v: json.dumps(v).encode()))
def test_any_body_has_a_message_and_a_text_or_no_code(status, body):
    error = read_problem(status, {}, body)
    said = json.loads(json.dumps(error.body()))["error"]
    assert isinstance(said["message"], str)
    assert said["message"]
    assert len(said["message"]) <= TEXT_MAX + 100
    assert said["code"] is None or isinstance(said["code"], str)
    assert isinstance(said["type"], str)
    assert said["param"] is None or isinstance(said["param"], str)
    assert 400 <= error.status <= 599


@settings(deadline=None)
@given(ANY_JSON)
def test_any_event_is_an_error_or_not(value):
    problem = problem_in_success(value)
    assert problem is None or problem.message


def test_a_deep_or_long_body_is_read_without_harm():
    assert read_problem(500, {}, b"[" * 100_000 + b"x").status == 500
    assert len(read_problem(500, {}, b"x" * 5_000_000).message) <= TEXT_MAX
