"""What an attempt is marked with before its answer has begun, for the proxy and the client library alike: may it be billed, and for what."""

import json
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from accounting.meter import Meter
from adapters.base import Call, Endpoint, UpstreamRequest
from adapters.credentials.base import Credentials, HeaderKey, NoCredentials, Secret, signed
from adapters.errors import UpstreamAuthError, UpstreamError, UpstreamProtocolError, UpstreamUnavailableError
from adapters.opening import opened, sent
from adapters.registry import make_adapter
from adapters.transport.base import Timeouts
from adapters.transport.options import TransportOptions
from adapters.transport.raw import RawTransport
from tests.misbehaving import ok, provider

JSON = b"content-type: application/json\r\n"
WHOLE = json.dumps(
    {
        "id": "x", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 40, "total_tokens": 49},
    }
).encode()  # fmt: skip


def head(status, body=b"{}"):
    return b"HTTP/1.1 %d No\r\n%scontent-length: %d\r\n\r\n%s" % (status, JSON, len(body), body)


async def attempted(url, *, stream):
    """Return the trial, and what came of it."""
    endpoint = Endpoint(name="p", kind="openai", base_url=url)
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": stream}
    call = Call(raw=json.dumps(body).encode(), body=body, upstream_model="m", stream=stream, call_id="c", created=1)
    exchange, transport = make_adapter(endpoint).exchange(call), RawTransport(TransportOptions())
    trial = SimpleNamespace(billable=True, meter=Meter("m", lambda: 9))
    try:
        response = await sent(transport, exchange.request, Timeouts(), trial)
        return trial, await opened(exchange, response, trial, stream=stream)
    except UpstreamError as error:
        return trial, error
    finally:
        await transport.close()


@pytest.mark.parametrize(
    ("answer", "stream", "kind", "billable", "output"),
    [
        (ok(WHOLE, JSON), True, UpstreamProtocolError, True, 40),  # it was worked for, though nobody gets it
        (ok(b"", JSON), False, UpstreamProtocolError, True, None),
        (ok(b"{", JSON), False, UpstreamProtocolError, True, None),
        (ok(b'{"error": {"message": "no", "code": 500}}', JSON), False, UpstreamError, False, None),
        (ok(b'{"error": {"message": "no", "code": 500}}', JSON), True, UpstreamError, False, None),
        (head(401), False, UpstreamAuthError, False, None),
        (head(500), True, UpstreamError, False, None),
        (head(302), False, UpstreamError, False, None),
        (b"", False, UpstreamUnavailableError, True, None),  # read, then hung up: it may have begun
        (ok(b"data: ", b"content-type: text/event-stream\r\n"), True, UpstreamError, True, None),
    ],
    ids=["whole for a stream", "empty", "cut JSON", "200 error", "200 error for a stream", "401", "500", "302", "hung up", "no event"],
)  # fmt: skip
async def test_an_answer_that_does_not_begin_says_whether_it_may_be_billed(answer, stream, kind, billable, output):
    async def script(peer):
        await peer.request()
        if answer:
            await peer.write(answer)

    async with provider(script) as p:
        trial, error = await attempted(p.url("/v1"), stream=stream)
    assert isinstance(error, kind), error
    assert trial.billable == billable
    assert (trial.meter.reported.output if trial.meter.reported else None) == output


async def test_what_was_never_delivered_is_never_billed():
    async with provider(lambda peer: peer.request()) as p:
        url = p.url("/v1")
    trial, error = await attempted(url, stream=False)
    assert isinstance(error, UpstreamUnavailableError)
    assert not trial.billable


async def test_a_whole_answer_is_counted_once():
    async with provider(lambda peer: peer.answer(WHOLE, JSON)) as p:
        trial, found = await attempted(p.url("/v1"), stream=False)
    assert found.answer.completion["usage"]["completion_tokens"] == 40
    assert (trial.meter.chunks, trial.meter.reported.output) == (1, 40)


class Signs(Credentials):
    """Signs what it sees."""

    async def apply(self, request):
        names = ",".join(name for name, _ in request.headers)
        return replace(request, headers=(*request.headers, ("signed", names)))


@pytest.mark.parametrize(
    "credentials", [HeaderKey(Secret("k"), header="x-api-key", prefix=""), NoCredentials(), Signs()]
)
async def test_credentials_are_put_on_alike_with_headers_of_the_call_and_after_them(credentials):
    request, more = (
        UpstreamRequest(url="http://a/", headers=(("a", "1"),), body=b"{}"),
        (("x-request-id", "c"), ("b", "2")),
    )
    expected = await credentials.apply(replace(request, headers=(*request.headers, *more)))
    assert await signed(request, credentials, more) == expected
    assert isinstance(credentials, NoCredentials) or len(expected.headers) == 4
