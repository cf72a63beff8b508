"""Bedrock's errors as OpenAI's clients get them."""

import json

import pytest

from adapters.errors import UpstreamAuthError
from tests.bedrock import adapter, call

ERRORS = [
    (400, "ValidationException:http://internal.amazon.com/", "Bad.", 400, "invalid_request_error", None),
    (400, "ValidationException", "Input is too long for requested model.", 400, "invalid_request_error", "context_length_exceeded"),
    (400, "", "The provided model identifier is invalid.", 400, "invalid_request_error", "model_not_found"),
    (403, "AccessDeniedException", "You don't have access to the model with the specified model ID.", 403, "invalid_request_error", "model_access_denied"),
    (404, "ResourceNotFoundException", "Not found.", 404, "invalid_request_error", "model_not_found"),
    (408, "ModelTimeoutException", "Slow.", 504, "upstream_error", "upstream_timeout"),
    (424, "ModelErrorException", "Odd.", 502, "server_error", "model_error"),
    (424, "", "Odd.", 502, "server_error", "model_error"),
    (429, "ThrottlingException", "Wait.", 429, "rate_limit_error", "rate_limit_exceeded"),
    (429, "ModelNotReadyException", "Wait.", 429, "rate_limit_error", "model_not_ready"),
    (429, "", "Model is not ready for inference.", 429, "rate_limit_error", "rate_limit_exceeded"),
    (400, "ServiceQuotaExceededException", "Enough.", 429, "rate_limit_error", "rate_limit_exceeded"),
    (500, "InternalServerException", "Ouch.", 500, "server_error", "server_error"),
    (503, "ServiceUnavailableException", "Later.", 503, "server_error", "overloaded"),
    (418, "", "Teapot.", 418, "invalid_request_error", None),
]  # fmt: skip


@pytest.mark.parametrize(("status", "kind", "message", "to", "type_", "code"), ERRORS)
def test_an_error_becomes_openais_with_amazons_words(status, kind, message, to, type_, code):
    """wire 3.80."""
    headers = {"x-amzn-errortype": kind, "x-amzn-requestid": "r-1", "retry-after": "3"} if kind else {}
    for key in ("message", "Message"):
        error = adapter().exchange(call()).error(status, headers, json.dumps({key: message}).encode())
        assert not isinstance(error, UpstreamAuthError)
        assert (error.status, error.type, error.code, error.message) == (to, type_, code, message)
        assert set(error.body()["error"]) >= {"message", "type", "param", "code"}
        if kind:
            assert error.headers == {"retry-after": "3", "x-request-id": "r-1"}


AUTH = [
    (403, "UnrecognizedClientException", "The security token included in the request is invalid."),
    (403, "ExpiredTokenException", "The security token included in the request is expired"),
    (403, "InvalidSignatureException", "Signature expired."),
    (403, "AccessDeniedException", "The request signature we calculated does not match the signature you provided."),
    (403, "AccessDeniedException", "Authentication failed: Please make sure your API Key is valid."),
    (403, "", "The security token included in the request is invalid."),
    (403, "MissingAuthenticationTokenException", ""),
    (401, "", "No."),
]


@pytest.mark.parametrize(("status", "kind", "message"), AUTH)
def test_a_refusal_of_our_own_credentials_is_the_operators_matter(status, kind, message):
    body = json.dumps({"message": message}).encode()
    error = adapter().exchange(call()).error(status, {"x-amzn-errortype": kind}, body)
    assert isinstance(error, UpstreamAuthError)
    assert (error.status, error.code, error.type) == (502, "upstream_auth_error", "upstream_error")


BODIES = [
    (b"", "status 503"),
    (
        b"<html><head><style>p{}</style></head><body><h1>503</h1> Service  Unavailable</body></html>",
        "503 Service Unavailable",
    ),
    (b"upstream connect error", "upstream connect error"),
    (b'"text"', '"text"'),
    (b'{"error":{"message":"inner"}}', "inner"),
    (b'{"error":"flat"}', "flat"),
    (b'{"detail":"d"}', "d"),
    (b"\xff\xfe\x00", ""),
]


@pytest.mark.parametrize(("body", "words"), BODIES)
def test_every_form_of_an_errors_body_gives_four_keys_and_a_message(body, words):
    """wire 3.80."""
    error = adapter().exchange(call()).error(503, {}, body)
    assert error.status == 503
    assert error.message
    assert words in error.message
    assert len(error.message) <= 2000
