"""Whatever a provider sends: it translates, or it becomes a clean upstream error. No crash, no hang, bounded memory."""

import asyncio
import json
import zlib

import orjson
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters import sse
from adapters.base import Call, Endpoint
from adapters.errors import InvalidRequestError, UpstreamError
from adapters.eventstream import encode
from adapters.registry import make_adapter
from tests import recorded
from tests.constructed import MODELS, TABLES, asking, reply
from tests.replay import Reply, bursar_before
from tests.stream_rules import broken_rules

URL = "http://127.0.0.1:9/v1"
OPTIONS = {"region": "us-east-1", "project": "p", "location": "us-central1", "api_version": "2024-10-21"}
ADAPTERS = {
    kind: make_adapter(Endpoint(name=kind, kind=kind, base_url=URL, repair=True, options=OPTIONS))
    for kind in ("openai", "anthropic", "gemini", "vertex", "bedrock", "azure", "xai")
} | {"deepseek": make_adapter(Endpoint(name="d", kind="openai", preset="deepseek", base_url=URL, repair=True))}
OPERATIONS = [(name, operation) for name, made in ADAPTERS.items() for operation in sorted(made.operations)]
INPUTS = {"chat": {"messages": [{"role": "user", "content": "hi"}]}, "completions": {"prompt": "hi"}, "embeddings": {"input": "hi"}, "responses": {"input": "hi"}}  # fmt: skip
EMBEDDERS = {
    "bedrock": "amazon.titan-embed-text-v2:0",
    "gemini": "gemini-embedding-001",
    "vertex": "gemini-embedding-001",
}
BODY_BYTES_MAX = 64 * 1024 * 1024

KEYS = st.sampled_from(
    "id object created model choices index delta message role content text refusal tool_calls function name arguments type "
    "finish_reason usage prompt_tokens completion_tokens total_tokens error code status details data embedding embeddings values "
    "output candidates parts functionCall args finishReason usageMetadata promptFeedback blockReason thought inlineData "
    "groundingMetadata logprobsResult logprobs stop_reason input content_block thinking signature partial_json citations "
    "contentBlockIndex start toolUse toolUseId stopReason reasoningContent metrics predictions statistics response item".split()
) | st.text(max_size=4)  # fmt: skip
WORDS = st.sampled_from(
    "text tool_use thinking message_start content_block_start content_block_delta content_block_stop message_delta message_stop "
    "text_delta input_json_delta thinking_delta error stop length STOP MAX_TOKENS SAFETY end_turn assistant function custom "
    "response.created response.completed response.failed chat.completion list".split()
)  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.integers(-2, 3) | st.floats() | st.text(max_size=6) | WORDS
    | st.sampled_from([10**30, -1, 1e308, "\ud800", "\0"])
)  # fmt: skip
JSONS = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20
)
OBJECTS = st.dictionaries(KEYS, JSONS, max_size=6)


def dumps(value) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def shaped(value):
    """Put any JSON where each dialect looks first, so that the deeper readers meet it too."""
    return st.sampled_from([
        {"choices": [{"index": 0, "delta": value, "message": value}]}, {"choices": value}, {"choices": [value], "usage": value},
        {"candidates": [{"content": {"parts": [value]}, "finishReason": "STOP"}], "usageMetadata": value}, {"candidates": [value]},
        {"type": "message", "content": [value], "stop_reason": value, "usage": value}, {"type": "content_block_start", "index": 0, "content_block": value},
        {"type": "content_block_delta", "index": 0, "delta": value}, {"type": "message_delta", "delta": value, "usage": value},
        {"output": {"message": {"content": [value]}}, "usage": value, "stopReason": value}, {"data": [value]}, {"embeddings": [value]},
        {"output": [value]}, {"type": "response.completed", "response": value}, {"error": value}, value,
    ])  # fmt: skip


SHAPED = OBJECTS.flatmap(shaped) | JSONS.flatmap(shaped)


def exchange_of(name, operation, stream, **more):
    body = {"model": "m", "stream": stream, **INPUTS[operation], **more}
    upstream = EMBEDDERS.get(name, "m") if operation == "embeddings" else MODELS.get(name, "m")
    return ADAPTERS[name].exchange(
        Call(
            operation=operation,
            raw=orjson.dumps(body),
            body=body,
            upstream_model=upstream,
            stream=stream,
            show_usage=True,
            call_id="req_0123456789abcdef",
            created=1,
        )  # fmt: skip
    )


def clean(error: UpstreamError) -> None:
    told = error.body()["error"]
    assert told.keys() >= {"message", "type", "param", "code"}
    assert isinstance(told["message"], str)
    assert told["message"]
    assert told["code"] is None or isinstance(told["code"], str)
    assert 400 <= error.status <= 599
    orjson.dumps(told["message"].encode("utf-8", "replace").decode())


def translated(name, operation, body: bytes, headers=None) -> None:
    try:
        answer = exchange_of(name, operation, stream=False).completion(body, headers or {})
    except UpstreamError as error:
        clean(error)
        return
    assert isinstance(answer.completion, dict)
    assert isinstance(json.loads(answer.body), dict)


def streamed(name, operation, pieces, *, cut=False) -> None:
    translator = exchange_of(name, operation, stream=True).stream()
    out = []
    for piece in pieces:
        out.append(translator.feed(piece))
        translator.take()
        if translator.finished:
            break
    out.append(b"" if translator.finished else translator.cut() if cut else translator.eof())
    assert translator.finished
    assert translator.feed(b"more") == translator.eof() == b""
    if translator.error is not None:
        clean(translator.error)
    if operation == "chat" and translator.started:
        written = b"".join(out)
        if translator.error is not None:
            written += sse.encode(translator.error.body())
        broken = broken_rules(written, error=translator.error is not None)
        assert not [rule for rule in broken if rule.startswith("S") and not rule.startswith(allowed(name))]


def allowed(name) -> tuple[str, ...]:
    """What a provider in OpenAI's format may do of its own: end before it breaks, and leave a call without a name."""
    return () if name in ("anthropic", "gemini", "vertex", "bedrock") else ("S9: a finish reason", "S3: ")


FAST = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
CHATS = sorted(ADAPTERS)


@pytest.mark.parametrize(("name", "operation"), OPERATIONS)
@FAST
@given(body=st.binary(max_size=200) | JSONS.map(dumps) | SHAPED.map(dumps))
def test_any_answer_is_translated_or_a_clean_error(name, operation, body):
    translated(name, operation, body)


@pytest.mark.parametrize("name", CHATS)
@FAST
@given(
    status=st.integers(300, 599),
    body=st.binary(max_size=200) | SHAPED.map(dumps) | st.sampled_from([b"", b"[", b"[[[", b"<html>", b"null", b'"x"']),
    headers=st.dictionaries(
        st.sampled_from(["retry-after", "x-amzn-errortype", "content-type", "request-id", "retry-after-ms"]), st.text(max_size=8), max_size=3
    ),
)  # fmt: skip
def test_any_error_is_a_clean_one(name, status, body, headers):
    clean(exchange_of(name, "chat", stream=False).error(status, headers, body))


EVENTS = st.lists(
    SHAPED.map(lambda v: b"data: " + dumps(v) + b"\n\n") | st.binary(max_size=40) | st.sampled_from([b"data: [DONE]\n\n", b": x\n\n", b"event: error\n", b"\n\n"]),
    max_size=8,
)  # fmt: skip
FRAMES = st.lists(
    st.tuples(st.sampled_from("messageStart contentBlockStart contentBlockDelta contentBlockStop messageStop metadata x".split()), SHAPED).map(
        lambda f: encode({":message-type": "event", ":event-type": f[0]}, dumps(f[1]))
    )
    | st.tuples(st.sampled_from(["exception", "error", "event", "?"]), st.text(max_size=5), st.binary(max_size=20)).map(
        lambda f: encode({":message-type": f[0], ":exception-type": f[1]}, f[2])
    )
    | st.binary(max_size=40),
    max_size=8,
)  # fmt: skip


@pytest.mark.parametrize(("name", "operation"), [o for o in OPERATIONS if o[1] != "embeddings"])
@FAST
@given(
    made=st.data(), size=st.sampled_from([0, 1, 5]), cut=st.booleans()
)  # fmt: skip
def test_any_stream_ends_well_or_in_a_clean_error(name, operation, made, size, cut):
    data = b"".join(made.draw(FRAMES if name == "bedrock" else EVENTS))
    streamed(name, operation, recorded.pieces(data, size), cut=cut)


@pytest.mark.parametrize("name", sorted(TABLES))
@FAST
@given(made=st.data())
def test_a_good_stream_that_was_damaged_ends_well_or_in_a_clean_error(name, made):
    body = bytearray(TABLES[name][made.draw(st.sampled_from(sorted(TABLES[name])))][0])
    for _ in range(made.draw(st.integers(1, 4))):
        if body:
            at = made.draw(st.integers(0, len(body) - 1))
            action = made.draw(st.sampled_from(["flip", "drop", "double"]))
            if action == "flip":
                body[at] ^= 1 << made.draw(st.integers(0, 7))
            elif action == "drop":
                del body[at : at + made.draw(st.integers(1, 40))]
            else:
                body[at:at] = body[at : at + 40]
    if name == "bedrock":
        body = resealed(bytes(body)) if made.draw(st.booleans()) else body
    streamed(name, "chat", recorded.pieces(bytes(body), made.draw(st.sampled_from([0, 1, 7]))))


def resealed(body: bytes) -> bytes:
    """Give the frames of a damaged stream right checksums again, as far as their lengths still make sense."""
    out, at = b"", 0
    while at + 16 <= len(body):
        size = int.from_bytes(body[at : at + 4], "big")
        if not 16 <= size <= len(body) - at:
            break
        frame = body[at : at + size]
        head = frame[:8] + zlib.crc32(frame[:8]).to_bytes(4, "big")
        sealed = head + frame[12:-4]
        out += sealed + zlib.crc32(sealed).to_bytes(4, "big")
        at += size
    return out + body[at:]


ENDLESS = {
    "a line": b"x" * 65536, "an event": b"data: " + b"x" * 65530, "data lines": b"data: x\n" * 8192, "zeros": b"\0" * 65536,
    "no text": b"\xff" * 65536, "braces": b"{" * 65536, "blank lines": b"\n" * 65536, "comments": b": x\n\n" * 13107,
}  # fmt: skip
CHEAP = {"a line", "an event", "braces"}  # the others are many lines, of which a piece is enough


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openai", "anthropic", "gemini", "bedrock"])
@pytest.mark.parametrize("data", sorted(ENDLESS))
def test_a_stream_without_end_is_ended_and_never_kept(name, data):
    """The same piece again and again: what is held back stays below what one event may be, or the stream is ended."""
    translator = exchange_of(name, "chat", stream=True).stream()
    written, count, data = 0, (160 if data in CHEAP else 6), ENDLESS[data]
    for _ in range(count):
        written += len(translator.feed(data))
        translator.take()
        if translator.finished:
            break
    held = held_bytes(translator)
    assert held < 6 * 1024 * 1024
    assert written <= count * len(data)


def held_bytes(thing, seen=None) -> int:
    """Return how many bytes of text an object keeps, all it refers to included."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, bytes | bytearray | str):
        return len(thing)
    if isinstance(thing, dict):
        return sum(held_bytes(k, seen) + held_bytes(v, seen) for k, v in thing.items())
    if isinstance(thing, list | tuple | set | frozenset):
        return sum(held_bytes(item, seen) for item in thing)
    fields = [getattr(thing, name, None) for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    return sum(held_bytes(item, seen) for item in [*fields, *getattr(thing, "__dict__", {}).values()])


@pytest.mark.parametrize("name", CHATS)
@FAST
@given(body=OBJECTS, stream=st.booleans())
def test_any_request_is_built_or_refused_by_name(name, body, stream):
    body = {k: v for k, v in body.items() if k not in ("model", "stream", "messages")}
    raw = {"model": "m", "stream": stream, **INPUTS["chat"], **body}
    try:
        text = dumps(raw)
    except (ValueError, UnicodeEncodeError):
        return
    call = Call(raw=text, body=raw, upstream_model=MODELS.get(name, "m"), stream=stream, call_id="req_1", created=1)
    try:
        built = ADAPTERS[name].exchange(call)
    except InvalidRequestError:
        return
    assert built.request.body


# over sockets ---------------------------------------------------------------------------------------------------------

SOUP = [
    b"", b"\0" * 300, b"\xff\xfe\xfd", b"{}", b"[]", b"null", b'"x"', b"{" * 5000, b"[" * 100_000, b"<html>no</html>", b"data: {}\n\n",
    b"data: \n\n", b"data: [DONE]\n\n", b'{"choices": null}', b'{"choices": [null]}', b'{"candidates": [null]}', b'{"content": [null]}',
    b'{"output": {}}', b'{"output": {"message": {"content": [{}]}}}', b'{"error": null}', b'{"error": {}}', b'{"error": []}', b'{"error": "x"}',
    b'{"data": [null]}', b'data: {"choices": [{"delta": {"tool_calls": [{"index": 9999999999}]}}]}\n\n', b"data: 1e999\n\n", b"\r\r\r\r",
    b'{"choices": [{"message": {"content": "' + b"\xed\xa0\x80" + b'"}}]}', b'{"a":' * 3000 + b"1" + b"}" * 3000,
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bursar():
    async with bursar_before() as running:
        yield running


PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions", "embeddings": "/v1/embeddings", "responses": "/v1/responses"}  # fmt: skip
SOCKETS = [o for o in OPERATIONS]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("name", "operation"), SOCKETS)
async def test_soup_over_a_socket_is_an_answer_or_a_clean_error(bursar, name, operation):
    model = f"{name}/{EMBEDDERS.get(name, 'm') if operation == 'embeddings' else MODELS.get(name, 'm')}"
    for stream in (False, True) if operation != "embeddings" else (False,):
        for number, soup in enumerate(SOUP):
            body = {"model": model, "stream": stream, **INPUTS[operation]}
            status_sent = (200, 200, 201, 400, 503, 302)[number % 6]
            bursar.replay.serve(
                Reply(body=soup, status=status_sent, size=100, headers={"content-type": "text/event-stream"})
            )
            async with asyncio.timeout(10):
                status, headers, answer = await bursar.post(PATHS[operation], body)
            told(status, headers, answer)


def told(status, headers, answer) -> None:
    if status != 200:
        error = orjson.loads(answer)["error"]
        assert error["message"]
        assert error.keys() >= {"message", "type", "param", "code"}
    elif headers["content-type"].startswith("application/json"):
        assert isinstance(json.loads(answer), dict)
    else:
        assert answer.endswith((b"\n\n", b"\r\n\r\n", b"\n", b"\r"))


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", sorted(TABLES))
async def test_a_connection_that_breaks_anywhere_in_a_stream_never_looks_like_success(bursar, name):
    """wire 3.18, 3.81: the chunked body has no last chunk."""
    table = TABLES[name]["a plain answer"][0]
    for part in range(1, 8):
        body = table[: len(table) * part // 9]
        whole = reply(name, "a plain answer")
        bursar.replay.serve(Reply(body=body, headers=whole.headers, size=50, close=True))
        async with asyncio.timeout(10):
            status, _, answer = await bursar.post("/v1/chat/completions", asking(name))
        if status == 200:
            assert [rule for rule in broken_rules(answer, error=True) if not rule.startswith(allowed(name))] == []
            assert b"[DONE]" not in answer
        else:
            assert status == 502
            assert orjson.loads(answer)["error"]["code"]
