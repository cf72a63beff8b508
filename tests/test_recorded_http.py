"""Every recorded exchange through the whole of Bursar, over real sockets: the judge, the official SDK, and what was sent on."""

import base64
import json
import struct
from typing import Any

import openai
import orjson
import pytest
import pytest_asyncio

from tests import native_oracle, recorded
from tests.replay import Bursar, Reply, bursar_before, provider_of, reply_of, request_of

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT),
]

SIZES = (0, 1, 7, 1000)
LARGE_BYTES = 20_000  # above it, one byte at a time is for the slow half
_OURS = (
    "a refusal of Bursar's own key is the operator's trouble: 502 and upstream_auth_error, as the contract's table says"
)
KNOWN_EXCEPTIONS = {
    "anthropic-msg-non-stream-error-007": _OURS,
    "azure-chat-non-stream-error-003": _OURS,
    "bedrock-converse-non-stream-tools-010": (
        "the judge counts nova_code_interpreter, which Bedrock runs itself, as a call of the client's; wire 3.83 forbids that"
    ),
}
SERVER_TOOL = "bedrock-converse-non-stream-tools-010"

CHAT = ("openai-chat", "anthropic-messages", "gemini", "bedrock-converse")
VERBATIM = ("openai-responses", "openai-completions", "openai-embeddings")
ALL = recorded.case_ids(*CHAT, *VERBATIM, "gemini-embeddings")
CHECK = recorded.judge() if recorded.PRESENT else None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bursar():
    async with bursar_before() as running:
        yield running


def is_stream(case: dict[str, Any]) -> bool:
    return bool(request_of(case)[1].get("stream"))


def fails(case: dict[str, Any]) -> bool:
    return case["response"]["status"] >= 400 or "stream_error" in case["expected"]


def judged(case: dict[str, Any], status: int, answer: bytes) -> list[str]:
    """Return what the judge finds wrong with an answer to the request of `case`."""
    assert CHECK is not None
    body = request_of(case)[1]
    if status >= 400 and "error" in case["expected"]:
        return list(CHECK.check_error(case, status, orjson.loads(answer)))
    if status >= 400:
        told = orjson.loads(answer)["error"]
        return [] if "stream_error" in case["expected"] and told["message"] else [f"{status}: {told}"]
    if case["upstream_format"] not in CHAT:
        return []
    if not body.get("stream"):
        return list(CHECK.check_completion(case, orjson.loads(answer)))
    chunks, done = recorded.chunks_of(answer)
    wants = bool((body.get("stream_options") or {}).get("include_usage"))
    return list(CHECK.check_stream(case, chunks, done, wants))


def sizes(case: dict[str, Any]) -> tuple[int, ...]:
    if len(recorded.response_bytes(case)) > LARGE_BYTES:
        return tuple(size for size in SIZES if size != 1)
    return SIZES


async def _served(bursar: Bursar, case: dict[str, Any], size: int) -> tuple[int, dict[str, str], bytes]:
    bursar.replay.serve(reply_of(case, size))
    path, body = request_of(case)
    return await bursar.post(path, body)


@pytest.mark.parametrize("case_id", ALL)
async def test_a_recorded_answer_keeps_its_facts_whole_and_in_pieces(bursar, case_id):
    case = recorded.load(case_id)
    answers = set()
    for size in sizes(case):
        status, headers, answer = await _served(bursar, case, size)
        found = judged(case, status, answer)
        if case_id not in KNOWN_EXCEPTIONS:
            assert found == []
        streamed = is_stream(case) and status == 200
        assert headers["content-type"].startswith("text/event-stream" if streamed else "application/json")
        assert headers["x-bursar-provider"] == provider_of(case) if status == 200 else "x-request-id" in headers
        answers.add((status, answer.replace(_own_id(headers), b"")))
    if not any(b'"created"' in answer for _, answer in answers) and case["upstream_format"] not in CHAT:
        assert len(answers) == 1


def _own_id(headers: dict[str, str]) -> bytes:
    return headers["x-request-id"].removeprefix("req_").encode()


@pytest.mark.slow
@pytest.mark.parametrize("case_id", [c for c in ALL if 1 not in sizes(recorded.load(c)) and c not in KNOWN_EXCEPTIONS])
async def test_a_large_recorded_answer_keeps_its_facts_byte_by_byte(bursar, case_id):
    case = recorded.load(case_id)
    status, _, answer = await _served(bursar, case, 1)
    assert judged(case, status, answer) == []


@pytest.mark.parametrize("case_id", sorted(set(KNOWN_EXCEPTIONS) & set(ALL)))
async def test_a_known_exception_still_is_one_and_for_its_reason(bursar, case_id):
    case = recorded.load(case_id)
    status, _, answer = await _served(bursar, case, 0)
    assert judged(case, status, answer) != []
    if case_id == SERVER_TOOL:
        calls = orjson.loads(answer)["choices"][0]["message"]["tool_calls"]
        assert [call["function"]["name"] for call in calls] == ["final_result"]
    else:
        told = orjson.loads(answer)["error"]
        assert (status, told["code"]) == (502, "upstream_auth_error")
        assert case["expected"]["error"]["message"][:40] in told["message"]


@pytest.mark.parametrize("case_id", recorded.case_ids(*VERBATIM))
async def test_responses_completions_and_embeddings_are_relayed_byte_for_byte(bursar, case_id):
    """wire 1.7: these formats need no translation, so nothing but a usage chunk that was not asked for may be missing."""
    case = recorded.load(case_id)
    status, _, answer = await _served(bursar, case, 7)
    body = recorded.response_bytes(case)
    if fails(case):
        assert judged(case, status, answer) == []
    elif is_stream(case) and case["upstream_format"] == "openai-completions":
        shown, done = recorded.chunks_of(answer)
        sent = recorded.chunks_of(body)[0]
        assert done
        assert shown == [chunk for chunk in sent if chunk["choices"]]
    else:
        assert answer == body


@pytest.mark.parametrize("case_id", recorded.case_ids("gemini-embeddings"))
async def test_googles_embeddings_become_openais_in_both_encodings(bursar, case_id):
    """wire 3.66"""
    case = recorded.load(case_id)
    path, body = request_of(case)
    client = sdk(bursar)
    for encoding in ({}, {"encoding_format": "base64"}, {"encoding_format": "float"}):
        bursar.replay.serve(reply_of(case))
        request = {"model": body["model"], "input": "hi", **encoding}
        if fails(case):
            with pytest.raises(openai.NotFoundError) as caught:
                await client.embeddings.create(**request)
            assert case["expected"]["error"]["message"][:40] in str(caught.value)
            continue
        answer = await client.embeddings.create(**request)
        native = orjson.loads(recorded.response_bytes(case))
        vectors = [v["values"] for v in native.get("embeddings", [])] or [
            p["embeddings"]["values"] for p in native.get("predictions", [])
        ]
        assert len(answer.data) == len(vectors) > 0
        for row, vector in zip(answer.data, vectors, strict=True):
            got = row.embedding
            if isinstance(got, str):  # asked for as base64, and so left as it is by the SDK
                got = list(struct.unpack(f"<{len(vector)}f", base64.b64decode(got)))
            assert got == pytest.approx(vector, rel=1e-6)


# what was sent on -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case_id", native_oracle.oracle_ids("anthropic-messages", "gemini", "bedrock-converse"))
async def test_the_request_that_reached_the_provider_is_the_recorded_one(bursar, case_id):
    case = recorded.load(case_id)
    await _served(bursar, case, 0)
    request = bursar.replay.requests[0]
    assert native_oracle.differences(case, request.json) == ""
    if case["provider"] != "vertex":
        url = case["endpoint"]["url"].partition("?beta=")[0]  # a hint of the recording client to itself
        assert url.removesuffix("-stream").endswith(request.path.removesuffix("-stream"))
    assert request.method == case["endpoint"]["method"]
    assert any(name in request.headers for name in ("authorization", "x-api-key", "x-goog-api-key"))


_QUIRKS = {"stream_options", "model", "max_completion_tokens", "max_tokens", "messages"}


@pytest.mark.parametrize("case_id", [c for c in recorded.case_ids("openai-chat", *VERBATIM)])
async def test_an_openai_request_reaches_its_provider_with_nothing_but_the_model_changed(bursar, case_id):
    """wire 3.67; what a preset must have otherwise is told by the tests of the presets."""
    case = recorded.load(case_id)
    _, body = request_of(case)
    await _served(bursar, case, 0)
    sent = bursar.replay.requests[0].json
    assert sent.pop("model") == body.pop("model").partition("/")[2]
    if sent.get("stream_options") != body.get("stream_options"):
        assert sent.pop("stream_options") == {**(body.pop("stream_options", None) or {}), "include_usage": True}
    if provider_of(case) in ("openai", "xai"):
        assert list(sent) == list(body)
        assert sent == body
    else:
        assert {k: v for k, v in sent.items() if k not in _QUIRKS} == {
            k: v for k, v in body.items() if k not in _QUIRKS and k in sent
        }


# the official SDK -----------------------------------------------------------------------------------------------------


def sdk(bursar: Bursar, *, strict: bool = False) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{bursar.url}/v1", api_key="any", max_retries=0, _strict_response_validation=strict
    )


@pytest.mark.parametrize("case_id", recorded.case_ids(*CHAT))
async def test_the_official_sdk_reads_every_recorded_chat(bursar, case_id):
    """wire 3.17, 3.20, 3.85: the stream helper, and the strict client for whole answers; errors are its own classes."""
    case = recorded.load(case_id)
    body = request_of(case)[1]
    rest = {k: v for k, v in body.items() if k not in ("model", "messages", "stream")}
    bursar.replay.serve(reply_of(case, 1000))
    async with sdk(bursar, strict=True) as client:
        if fails(case):
            with pytest.raises(openai.APIError) as caught:
                await _read(client, body, rest)
            assert caught.value.body["message"]
            return
        made = await _read(client, body, rest)
    expected = {choice["index"]: choice for choice in case["expected"]["choices"]}
    for choice in made.choices:
        assert (choice.message.content or "") == (expected[choice.index]["text"] or "")
        assert choice.finish_reason is not None
        if case_id != SERVER_TOOL:
            names = [call.function.name for call in choice.message.tool_calls or [] if call.type == "function"]
            assert names == [call["name"] for call in expected[choice.index]["tool_calls"]]


async def _read(client: openai.AsyncOpenAI, body: dict[str, Any], rest: dict[str, Any]) -> Any:
    if not body.get("stream"):
        return await client.chat.completions.create(model=body["model"], messages=body["messages"], extra_body=rest)
    async with client.chat.completions.stream(
        model=body["model"], messages=body["messages"], extra_body={**rest, "stream": True}
    ) as stream:
        async for _ in stream:
            pass
        return stream.current_completion_snapshot


async def test_a_recorded_error_is_a_status_also_when_a_stream_was_asked_for(bursar):
    """wire 3.20"""
    for case_id in recorded.case_ids(*CHAT):
        case = recorded.load(case_id)
        if case["response"]["status"] < 400 or case_id in KNOWN_EXCEPTIONS:
            continue
        bursar.replay.serve(Reply(body=recorded.response_bytes(case), status=case["response"]["status"], chunked=False))
        path, body = request_of(case)
        status, headers, answer = await bursar.post(path, {**body, "stream": True})
        assert headers["content-type"].startswith("application/json")
        assert json.loads(answer)["error"].keys() >= {"message", "type", "param", "code"}
        assert judged(case, status, answer) == []
