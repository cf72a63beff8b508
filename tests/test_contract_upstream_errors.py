"""Every row of the error table that a provider is to blame for: status, type, code, and the exception that OpenAI's SDK makes of it."""

import openai
import pytest

from proxy.fake import FakeProvider, Script
from tests.contract import free, told
from tests.misbehaving import provider as peer
from tests.sidecars import HELLO, house

__all__ = ["free"]


UPSTREAM = [
    ("gpt-4o?close", 502, "upstream_error", "upstream_unavailable"),
    ("gpt-4o?cut=3", 502, "upstream_error", "upstream_unavailable"),
    ("gpt-4o?empty", 502, "upstream_error", "upstream_protocol_error"),
    ("gpt-4o?malformed", 502, "upstream_error", "upstream_protocol_error"),
    ("gpt-4o?status=401", 502, "upstream_error", "upstream_auth_error"),
    ("gpt-4o?status=403&code=invalid_api_key", 502, "upstream_error", "upstream_auth_error"),
    ("gpt-4o?status=400", 400, "invalid_request_error", None),
    ("gpt-4o?status=404", 404, "invalid_request_error", "model_not_found"),
    ("gpt-4o?status=422", 422, "invalid_request_error", None),
    ("gpt-4o?status=429&retry_after=7", 429, "requests", "rate_limit_exceeded"),
    ("gpt-4o?status=429&code=insufficient_quota", 429, "insufficient_quota", "insufficient_quota"),
    ("gpt-4o?status=500", 500, "server_error", None),
    ("gpt-4o?status=503", 503, "server_error", None),
    ("gpt-4o?html_error", 502, "server_error", None),
]
CLASSES = {
    400: openai.BadRequestError, 401: openai.AuthenticationError, 404: openai.NotFoundError, 422: openai.UnprocessableEntityError,
    429: openai.RateLimitError, 500: openai.InternalServerError, 502: openai.InternalServerError, 503: openai.InternalServerError,
    504: openai.InternalServerError,
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "status", "kind", "code"), UPSTREAM)
async def test_a_providers_failure_before_its_first_event_is_a_status(free, model, status, kind, code, stream):
    if stream and ("cut=3" in model or "malformed" in model):
        pytest.skip("with a stream this is no failure before the first event")
    reply = await free.chat(model, stream=stream)
    error = told(reply)
    assert (reply.status, error["type"], error["code"]) == (status, kind, code)
    if "retry_after" in model:
        assert reply.headers["retry-after"] == "7"
    assert "x-request-id" in reply.headers
    async with free.sdk() as sdk:
        with pytest.raises(CLASSES[status]) as caught:
            await sdk.chat.completions.create(model=model, messages=HELLO, stream=stream)
        assert caught.value.status_code == status
        assert caught.value.code == code
    await free.until_receipts(2)
    assert all(r.outcome in ("refused", "upstream_error") for r in free.receipts)


async def test_a_provider_that_cannot_be_reached_is_502(store, tmp_path):
    async with FakeProvider() as fake:
        pass
    async with house(store, tmp_path, fake=fake, more="retries: {attempts: 1}\n") as h:
        reply = await h.chat()
        assert (reply.status, told(reply)["code"]) == (502, "upstream_unavailable")
        await h.until_receipts(1)
        assert h.receipts[0].usage.total == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_that_takes_too_long_is_504(store, tmp_path, stream):
    async with house(store, tmp_path, more="timeouts: {first_token: 0.1}\n") as h:
        reply = await h.chat("gpt-4o?hang", stream=stream)
        assert (reply.status, told(reply)["type"], reply.error["code"]) == (504, "upstream_error", "upstream_timeout")
        await h.fake.until(lambda: h.fake.cancelled == 1)


async def test_the_request_id_of_a_refusing_provider_is_kept(store, tmp_path):
    async def refuse(p):
        await p.request()
        await p.write(
            b"HTTP/1.1 400 Bad Request\r\nx-request-id: theirs-1\r\nretry-after-ms: 250\r\ncontent-length: 2\r\n\r\n{}"
        )

    async with peer(refuse) as p:
        providers = (
            f'providers: {{{{fake: {{{{kind: openai, base_url: "{p.url("/v1")}", api_keys: [k-0123456789]}}}}}}}}\n'
        )
        async with house(store, tmp_path, providers=providers) as h:
            reply = await h.chat()
            assert reply.status == 400
            assert reply.headers["x-request-id"] == "theirs-1"
            assert reply.headers["retry-after-ms"] == "250"


async def test_what_a_provider_says_of_our_key_is_not_told_to_clients(store, tmp_path):
    async with (
        FakeProvider(api_keys=["something else"], script=Script()) as fake,
        house(store, tmp_path, fake=fake) as h,
    ):
        reply = await h.chat()
        assert (reply.status, told(reply)["code"]) == (502, "upstream_auth_error")
