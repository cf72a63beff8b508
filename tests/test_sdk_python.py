"""The official openai Python SDK works unchanged: sync, async, `.stream()`, tools, images, strict validation of every shape."""

import asyncio
import json

import openai
import pydantic
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.sidecars import HELLO, HELLO_TOKENS, MODEL, house

BUDGET = 'budgets: [{subject: "user:alice", usd: 5, tokens: 1000000, period: day}]\n'
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather.",
        "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"], "additionalProperties": False,
        },
        "strict": True,
    },
}  # fmt: skip
PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


@pytest.fixture
async def h(store, tmp_path):
    async with house(store, tmp_path, more=BUDGET) as made:
        yield made


@pytest.fixture
async def sdk(h):
    async with h.sdk() as client:
        yield client


async def test_a_completion(h, sdk):
    answer = await sdk.chat.completions.create(model=MODEL + "?length=12", messages=HELLO)
    assert isinstance(answer, ChatCompletion)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.role == "assistant"
    assert answer.usage.prompt_tokens == HELLO_TOKENS
    assert answer.usage.completion_tokens == 12
    assert answer._request_id.startswith("req_")
    raw = await sdk.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO)
    assert raw.headers["x-bursar-provider"] == "fake"
    assert raw.parse().choices


async def test_a_stream(sdk):
    chunks = [
        chunk
        async for chunk in await sdk.chat.completions.create(model=MODEL + "?length=12", messages=HELLO, stream=True)
    ]
    assert all(isinstance(chunk, ChatCompletionChunk) for chunk in chunks)
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert len({chunk.id for chunk in chunks}) == 1


async def test_a_stream_with_usage(sdk):
    stream = await sdk.chat.completions.create(
        model=MODEL + "?length=12", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 12
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_the_stream_helper_assembles_the_answer(sdk):
    seen = []
    async with sdk.chat.completions.stream(
        model=MODEL + "?length=12", messages=HELLO, stream_options={"include_usage": True}
    ) as stream:
        async for event in stream:
            seen.append(event.type)
        final = await stream.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= set(seen)
    assert seen.count("content.delta") >= 12
    assert len(final.choices[0].message.content.split()) >= 8
    assert final.usage.completion_tokens == 12


async def test_the_stream_helper_assembles_tool_calls(h, sdk):
    messages = [{"role": "user", "content": "call get_weather please"}]
    async with sdk.chat.completions.stream(model=MODEL, messages=messages, tools=[TOOL]) as stream:
        events = [event.type async for event in stream]
        final = await stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city", "days"}
    assert final.choices[0].finish_reason == "tool_calls"
    assert "tool_calls.function.arguments.done" in events
    assert json.loads(h.fake.requests[0].body)["tools"] == [TOOL]


async def test_a_tools_whole_round(h, sdk):
    messages = [{"role": "user", "content": "call get_weather please"}]
    first = await sdk.chat.completions.create(
        model=MODEL, messages=messages, tools=[TOOL], tool_choice="required", parallel_tool_calls=False
    )
    said = first.choices[0].message
    answer = {"role": "tool", "tool_call_id": said.tool_calls[0].id, "content": '{"weather": "fine"}'}
    second = await sdk.chat.completions.create(model=MODEL, messages=[*messages, said, answer], tools=[TOOL])
    assert second.choices[0].finish_reason == "stop"
    sent = json.loads(h.fake.requests[1].body)["messages"]
    assert sent[1]["tool_calls"][0]["id"] == said.tool_calls[0].id
    assert sent[2] == answer


@pytest.mark.parametrize("stream", [False, True])
async def test_images_files_and_sound_go_through_as_they_are(h, sdk, stream):
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": "UklGRiQAAABXQVZF", "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"}},
    ]
    answer = await sdk.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": content}], stream=stream
    )
    if stream:
        assert [chunk async for chunk in answer]
    assert json.loads(h.fake.requests[0].body)["messages"][0]["content"] == content


async def test_every_field_that_the_sdk_knows_goes_through(h, sdk):
    more = {
        "temperature": 0.25, "top_p": 0.5, "seed": 7, "stop": ["zzz"], "presence_penalty": 0.1, "frequency_penalty": -0.1,
        "logit_bias": {"50256": -100}, "user": "u-1", "n": 2, "logprobs": True, "top_logprobs": 2, "store": False,
        "metadata": {"a": "b"}, "response_format": {"type": "json_object"}, "reasoning_effort": "low", "verbosity": "low",
        "prompt_cache_key": "k", "safety_identifier": "s",
    }  # fmt: skip
    answer = await sdk.chat.completions.create(
        model=MODEL, messages=HELLO, extra_body={"x_vendor": {"deep": [1, 2.50]}}, **more
    )
    assert len(answer.choices) == 2
    sent = json.loads(h.fake.requests[0].body)
    assert {k: sent[k] for k in more} == more
    assert sent["x_vendor"] == {"deep": [1, 2.5]}


async def test_structured_output_is_parsed(sdk):
    class Anything(pydantic.BaseModel):
        model_config = {"extra": "allow"}

    with pytest.raises(
        (pydantic.ValidationError, json.JSONDecodeError)
    ):  # the fake provider writes prose: the SDK's own parser ran
        await sdk.chat.completions.parse(model=MODEL, messages=HELLO, response_format=Anything)


async def test_completions_embeddings_responses_and_models(h, sdk):
    legacy = await sdk.completions.create(model=MODEL + "?length=5", prompt="Once")
    assert legacy.usage.completion_tokens == 5
    async with h.sdk(
        _strict_response_validation=False
    ) as lenient:  # its type forbids the null that OpenAI itself sends
        stream = await lenient.completions.create(model=MODEL + "?length=5", prompt="Once", stream=True)
        chunks = [chunk async for chunk in stream]
        packed = await lenient.embeddings.create(
            model="text-embedding-3-small", input="a"
        )  # asked for as base64, read as floats
    assert isinstance(packed.data[0].embedding[0], float)
    assert chunks[-1].choices[0].finish_reason == "stop"
    vectors = await sdk.embeddings.create(
        model="text-embedding-3-small", input=["a", "b"], dimensions=8, encoding_format="float"
    )
    assert [len(row.embedding) for row in vectors.data] == [8, 8]
    response = await sdk.responses.create(model=MODEL + "?length=9", input="Say hello.")
    assert response.output_text
    assert response.usage.output_tokens == 9
    types = [
        event.type
        async for event in await sdk.responses.create(model=MODEL + "?length=9", input="Say hello.", stream=True)
    ]
    assert types[0] == "response.created"
    assert types[-1] == "response.completed"
    assert [model.id async for model in await sdk.models.list()] == ["fake-1", "org/with/slashes"]
    await h.until_receipts(6)
    assert len(h.receipts) == 6
    assert not any(r.usage.estimated for r in h.receipts)


async def test_the_sync_client_works_as_well(h):
    def calls():
        with h.sync_sdk() as client:
            whole = client.chat.completions.create(model=MODEL + "?length=6", messages=HELLO)
            streamed = list(client.chat.completions.create(model=MODEL + "?length=6", messages=HELLO, stream=True))
            with client.chat.completions.stream(model=MODEL + "?length=6", messages=HELLO) as stream:
                final = stream.get_final_completion()
            listed = [model.id for model in client.models.list()]
            with client.chat.completions.with_streaming_response.create(model=MODEL, messages=HELLO) as raw:
                status = raw.status_code
        return whole, streamed, final, listed, status

    whole, streamed, final, listed, status = await asyncio.to_thread(calls)
    assert whole.usage.completion_tokens == 6
    assert streamed[-1].choices[0].finish_reason == "stop"
    assert final.choices[0].message.content
    assert listed
    assert status == 200


@pytest.mark.parametrize(
    ("model", "error", "code"),
    [
        (MODEL + "?status=400", openai.BadRequestError, None),
        (MODEL + "?status=404", openai.NotFoundError, "model_not_found"),
        (MODEL + "?status=422", openai.UnprocessableEntityError, None),
        (MODEL + "?status=429", openai.RateLimitError, "rate_limit_exceeded"),
        (MODEL + "?status=500", openai.InternalServerError, None),
        (MODEL + "?close", openai.InternalServerError, "upstream_unavailable"),
        (MODEL + "?status=401", openai.InternalServerError, "upstream_auth_error"),
    ],
)
async def test_errors_are_the_exceptions_that_callers_catch(store, tmp_path, model, error, code):
    async with house(store, tmp_path, more="retries: {attempts: 1}\n") as h, h.sdk() as sdk:
        with pytest.raises(error) as caught:
            await sdk.chat.completions.create(model=model, messages=HELLO)
        assert caught.value.code == code
        assert caught.value.request_id
        assert set(caught.value.body) >= {"message", "type", "param", "code"}


async def test_our_own_refusals_are_those_exceptions_too(h):
    async with h.sdk(key="sk-wrong") as sdk:
        with pytest.raises(openai.AuthenticationError) as caught:
            await sdk.chat.completions.create(model=MODEL, messages=HELLO)
        assert caught.value.code == "invalid_api_key"
    async with h.sdk() as sdk:
        with pytest.raises(openai.BadRequestError) as caught:
            await sdk.chat.completions.create(model=MODEL, messages=[])
        assert caught.value.param == "messages"
        with pytest.raises(openai.NotFoundError):
            await sdk.files.list()


async def test_the_sdks_own_retries_succeed_on_a_second_try(store, tmp_path):
    async with house(store, tmp_path, more=BUDGET + "retries: {attempts: 1}\n") as h, h.sdk(max_retries=2) as sdk:
        answer = await sdk.chat.completions.create(model=MODEL + "?status=503&times=1&retry_after=0", messages=HELLO)
        assert answer.choices
        await h.until_receipts(2)
        assert sum(bool(r.usage.total) for r in h.receipts) == 1


async def test_a_stream_that_is_closed_early_is_given_up_upstream(h, sdk):
    stream = await sdk.chat.completions.create(model=MODEL + "?length=40&stall=10", messages=HELLO, stream=True)
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.close()
    await h.fake.until(lambda: h.fake.cancelled == 1)
    await h.until_receipts(1)
    assert h.receipts[0].outcome == "disconnect"


async def test_fifty_at_once_are_all_answered(h, sdk):
    async def one(number):
        stream = await sdk.chat.completions.create(
            model=MODEL + "?length=20", messages=[*HELLO, {"role": "user", "content": f"{number}"}], stream=True
        )
        return len([c async for c in stream if c.choices[0].delta.content])

    assert await asyncio.gather(*(one(number) for number in range(50))) == [20] * 50
    await h.until_receipts(50)
    used, held = (await h.balances())["user:alice", "tokens"]
    assert (used, held) == (h.fake.invoice.prompt_tokens + h.fake.invoice.completion_tokens, 0)
