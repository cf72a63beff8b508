"""The client library: answers, streams, errors, retries, rotation, fallbacks, batches, cache and cost, against a real server."""

import asyncio
import io
import subprocess
import sys
from contextlib import aclosing
from datetime import date

import pytest

import adapters
import adapters.clients
from accounting.callbacks import CallbackRunner, CustomAsyncCallbackHandler
from accounting.prices.table import PriceBook
from adapters.clients import (
    AnthropicClient,
    AuthenticationError,
    AzureOpenAIClient,
    BaseLLMClient,
    BedrockClient,
    BudgetExceededError,
    CompatibleClient,
    CostController,
    GoogleAIClient,
    LLMClientError,
    LLMMessage,
    LLMResponse,
    ModelNotFoundError,
    OpenAIClient,
    ProviderNotAvailableError,
    RateLimitError,
    ResponseCache,
    Retry,
    VertexAIClient,
    XAIClient,
    create_client,
    generate_batch,
)
from adapters.clients.texts import refuses_sampling
from adapters.transport.plain import PlainTransport
from proxy.fake import FakeProvider
from tests.sidecars import counted

HELLO = [LLMMessage("user", "Say hello to the treasurer.")]
HELLO_TOKENS = 14
QUICK = Retry(attempts=3, base_s=0.001, max_s=0.002, patience_s=1)
PRICES = PriceBook({"openai/*": {"input": 1, "output": 2}})


class Ear(CustomAsyncCallbackHandler):
    """Keeps what it hears; read it after the runner has drained."""

    def __init__(self):
        self.heard = []

    async def on_llm_start(self, messages, **kwargs):
        self.heard.append(("start", messages, kwargs))

    async def on_llm_end(self, response, **kwargs):
        self.heard.append(("end", response, kwargs))

    async def on_llm_error(self, error, **kwargs):
        self.heard.append(("error", error, kwargs))

    def of(self, kind):
        return [(what, kwargs) for k, what, kwargs in self.heard if k == kind]


@pytest.fixture
async def fake():
    async with FakeProvider(count=counted) as provider:
        yield provider


@pytest.fixture
async def make(fake):
    made = []

    def build(key="sk-test", **options):
        options = {"model": "fake-1", "retry": QUICK, "base_url": fake.url} | options
        made.append(OpenAIClient(key, **options))
        return made[-1]

    yield build
    for client in made:
        await client.close()


async def streamed(client, model, pieces=None):
    """The pieces of a stream; put in `pieces` as they come."""
    pieces = [] if pieces is None else pieces
    async for piece in client.stream_text(HELLO, model):
        pieces.append(piece)
    return pieces


# --- the interface


@pytest.mark.parametrize("name", adapters.clients.__all__)
def test_every_name_can_be_imported_from_adapters_and_has_documentation(name):
    assert getattr(adapters, name) is getattr(adapters.clients, name)
    assert getattr(adapters, name).__doc__


def test_importing_adapters_imports_neither_the_clients_nor_accounting():
    code = "import sys, adapters, adapters.base; print(sorted(m for m in sys.modules if m.startswith(('accounting', 'adapters.'))))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "accounting" not in out
    assert "adapters.clients.client" not in out


@pytest.mark.parametrize("role", ["system", "user", "assistant", "tool", "developer"])
def test_a_message_has_one_of_five_roles(role):
    assert LLMMessage(role, "x").as_dict() == {"role": role, "content": "x"}


@pytest.mark.parametrize(
    ("role", "content", "named"),
    [
        ("robot", "x", "robot"),
        ("", "x", "''"),
        ("user", "", "user"),
        ("user", " \n\t", "user"),
        ("user", [], "user"),
        ("assistant", None, "assistant"),
    ],
)
def test_a_message_without_content_or_with_another_role_is_a_value_error_that_names_it(role, content, named):
    with pytest.raises(ValueError, match=named):
        LLMMessage(role, content)


def test_an_assistant_that_only_calls_tools_needs_no_content():
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert LLMMessage("assistant", None, {"tool_calls": [call]}).as_dict()["tool_calls"] == [call]


@pytest.mark.parametrize(
    ("given", "total"),
    [((None, 3, 4), 7), ((9, 3, 4), 9), ((None, 3, None), None), ((None, 0, 0), 0), ((5, None, None), 5)],
)
def test_the_total_of_a_response_is_the_sum_of_its_parts_if_only_those_are_known(given, total):
    assert LLMResponse("x", "openai", "m", *given).tokens_used == total


def test_a_base_client_estimates_tokens_and_costs(make):
    client = make()
    assert isinstance(client, BaseLLMClient)
    assert client._count_tokens_estimate("12345") == 2
    assert client._count_tokens_estimate("") == 0
    assert client.count_tokens("hello world", "gpt-4o") == 2
    assert client._estimate_cost("m", 1_000_000, 500_000, {"m": {"input": 3.0, "output": 8.0}}) == 7.0
    with pytest.raises(ValueError, match="other"):
        client._estimate_cost("other", 1, 1, {})


# --- one call


async def test_an_answer_has_its_text_tokens_cost_and_time(make, fake):
    response = await make(prices=PRICES).generate_text(HELLO, max_tokens=8)
    entry = list(fake.invoice)[-1]
    assert response.content
    assert (response.provider, response.model) == ("openai", "fake-1")
    assert (response.prompt_tokens, response.completion_tokens) == (HELLO_TOKENS, entry.completion_tokens)
    assert response.tokens_used == HELLO_TOKENS + entry.completion_tokens
    assert response.cost_estimate == pytest.approx((HELLO_TOKENS + 2 * entry.completion_tokens) / 1e6)
    assert response.response_time > 0
    assert response.finish_reason == "length"


async def test_what_is_asked_goes_upstream_and_what_is_for_callbacks_does_not(make, fake):
    await make().generate_text(HELLO, temperature=0.2, max_tokens=5, user="alice", request_id="r-1", top_p=0.5)
    sent = __import__("json").loads(fake.requests[-1].body)
    assert (sent["temperature"], sent["top_p"], sent["model"]) == (0.2, 0.5, "fake-1")
    assert 5 in (sent.get("max_tokens"), sent.get("max_completion_tokens"))
    assert "user" not in sent
    assert "request_id" not in sent


async def test_a_stream_yields_the_same_text_as_the_whole_answer(make):
    client = make()
    whole = await client.generate_text(HELLO, max_tokens=20)
    pieces = [piece async for piece in client.stream_text(HELLO, max_tokens=20)]
    assert len(pieces) > 5
    assert all(pieces)
    assert len("".join(pieces)) > 0
    assert whole.content


@pytest.mark.parametrize("model", ["o1", "o3-mini", "gpt-5", "openai/gpt-5-mini"])
def test_a_reasoning_model_is_not_sent_a_temperature_that_nobody_asked_for(model):
    assert refuses_sampling(model)
    assert not any(map(refuses_sampling, ["gpt-4o", "gpt-5-chat-latest", "claude-haiku-4-5", "fake-1"]))


async def test_a_client_without_a_model_wants_one(make):
    with pytest.raises(ValueError, match="model"):
        await make(model=None).generate_text(HELLO)
    with pytest.raises(ValueError, match="empty"):
        await make().generate_text([])


async def test_a_closed_client_takes_no_calls_and_may_be_closed_twice(make):
    client = make()
    async with client:
        await client.generate_text(HELLO, max_tokens=2)
    await client.close()
    with pytest.raises(LLMClientError, match="closed"):
        await client.generate_text(HELLO)
    assert (await client.health_check())["status"] == "unhealthy"


# --- errors


@pytest.mark.parametrize(
    ("script", "kind", "status", "retry_after"),
    [
        ("status=429&retry_after=7&times=99", RateLimitError, 429, 7.0),
        ("status=429&code=insufficient_quota", RateLimitError, 429, None),
        ("status=401", AuthenticationError, 401, None),
        ("status=404", ModelNotFoundError, 404, None),
        ("status=500", ProviderNotAvailableError, 500, None),
        ("status=503", ProviderNotAvailableError, 503, None),
        ("status=400", LLMClientError, 400, None),
        ("html_error", ProviderNotAvailableError, 502, None),
        ("close", ProviderNotAvailableError, None, None),
        ("malformed", ProviderNotAvailableError, None, None),
        ("empty", ProviderNotAvailableError, None, None),
        ("error_body", ProviderNotAvailableError, None, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_has_its_class_status_and_wait(make, script, kind, status, retry_after, stream):
    if stream and script == "malformed":
        pytest.skip("the fake provider's streams are never malformed JSON as a whole")
    client = make(retry=Retry(attempts=1))
    asking = streamed(client, f"fake-1?{script}") if stream else client.generate_text(HELLO, f"fake-1?{script}")
    with pytest.raises(LLMClientError) as caught:
        await asking
    error = caught.value
    assert type(error) is kind
    if status is not None:
        assert error.status == status
    assert error.retry_after == retry_after
    assert error.provider == "openai"
    if "insufficient_quota" in script:
        assert error.code == "insufficient_quota"


async def test_a_provider_that_nobody_can_reach_is_not_available():
    async with OpenAIClient("k", base_url="http://127.0.0.1:9/v1", model="m", retry=QUICK) as client:
        with pytest.raises(ProviderNotAvailableError) as caught:
            await client.generate_text(HELLO)
        assert caught.value.status is None
        assert (await client.health_check())["status"] == "unhealthy"


async def test_a_stream_that_breaks_in_the_middle_raises_after_its_pieces(make):
    pieces = []
    with pytest.raises(ProviderNotAvailableError):
        await streamed(make(), "fake-1?cut=6&length=40", pieces)
    assert pieces


async def test_no_error_holds_the_key_or_the_prompt(make):
    with pytest.raises(LLMClientError) as caught:
        await make("sk-secret-0123456789").generate_text(
            [LLMMessage("user", "my prompt is private")], "fake-1?status=401"
        )
    for text in (str(caught.value), repr(caught.value)):
        assert "sk-secret" not in text
        assert "private" not in text


# --- retries, keys, fallbacks


@pytest.mark.parametrize("script", ["status=429&times=2", "status=503&times=2", "status=429&retry_after=0&times=2"])
async def test_a_rate_limit_or_server_error_is_retried_with_backoff(make, fake, script):
    assert (await make().generate_text(HELLO, f"fake-1?{script}")).content
    assert len(fake.invoice) == 3


@pytest.mark.parametrize("script", ["status=400", "status=404", "status=403"])
async def test_a_refusal_that_will_not_change_is_not_retried(make, fake, script):
    with pytest.raises(LLMClientError):
        await make().generate_text(HELLO, f"fake-1?{script}")
    assert len(fake.invoice) == 1


async def test_a_provider_that_asks_for_more_patience_than_we_have_is_not_asked_again(make, fake):
    with pytest.raises(RateLimitError) as caught:
        await make(retry=Retry(attempts=3, patience_s=1)).generate_text(HELLO, "fake-1?status=429&retry_after=60")
    assert caught.value.retry_after == 60
    assert len(fake.invoice) == 1


async def test_a_refused_key_gives_way_to_the_next_and_rests(fake):
    async with FakeProvider(api_keys=["sk-good"]) as strict:
        async with OpenAIClient(
            ["sk-bad", "sk-good"], base_url=strict.url, model="fake-1", retry=Retry(attempts=1)
        ) as client:
            for _ in range(4):
                assert (await client.generate_text(HELLO, max_tokens=2)).content
            refused = [entry for entry in strict.invoice if entry.status == 401]
            assert len(refused) == 1


async def test_a_limited_key_gives_way_to_the_next_without_waiting(make, fake):
    client = make(["sk-1", "sk-2"], retry=Retry(attempts=1, base_s=60, max_s=60))
    async with asyncio.timeout(5):
        assert (await client.generate_text(HELLO, "fake-1?status=429&times=1", max_tokens=2)).content
    keys = [seen.headers["authorization"] for seen in fake.requests]
    assert len(set(keys)) == 2


async def test_a_fallback_model_answers_where_the_first_cannot(make, fake):
    client = make(
        model="fake-1?status=503", fallback_models=["fake-1?status=404", "fake-1-mini"], retry=Retry(attempts=1)
    )
    assert (await client.generate_text(HELLO, max_tokens=3)).model == "fake-1-mini"
    assert "".join([piece async for piece in client.stream_text(HELLO, max_tokens=3)])


@pytest.mark.parametrize("stream", [False, True])
async def test_no_more_calls_than_the_bound_are_in_flight(fake, make, stream):
    client = make(concurrency=3)
    most = 0

    async def call(number):
        nonlocal most
        model = f"fake-1?delay_ms=5&length={number + 1}"
        await (streamed(client, model) if stream else client.generate_text(HELLO, model))
        most = max(most, fake.in_flight)

    async def look():
        nonlocal most
        while True:
            await fake.until(lambda: fake.in_flight > most)
            most = fake.in_flight

    looking = asyncio.create_task(look())
    await asyncio.gather(*(call(n) for n in range(9)))
    looking.cancel()
    assert most == 3


# --- callbacks of a client


async def drained(client):
    assert await client.runner.drain(10)


async def test_callbacks_hear_of_start_and_end_with_what_the_interface_names(make):
    ear = Ear()
    client = make(callbacks=[ear], prices=PRICES)
    response = await client.generate_text(HELLO, max_tokens=4, user="alice", request_id="r-1")
    await drained(client)
    (messages, kwargs), (told, end) = ear.of("start")[0], ear.of("end")[0]
    assert messages == [{"role": "user", "content": "Say hello to the treasurer."}]
    assert kwargs == {
        "provider": "openai",
        "model": "fake-1",
        "temperature": 0.7,
        "max_tokens": 4,
        "request_id": "r-1",
        "user": "alice",
    }
    assert end["request_id"] == "r-1"
    assert set(told) == {
        "content",
        "tokens_used",
        "prompt_tokens",
        "completion_tokens",
        "provider",
        "model",
        "response_time",
        "cost_estimate",
    }
    assert (told["content"], told["tokens_used"]) == (response.content, response.tokens_used)


async def test_a_callback_given_with_a_call_hears_of_that_call_alone(make):
    ear, client = Ear(), make()
    await client.generate_text(HELLO, max_tokens=2, callbacks=[ear])
    await client.generate_text(HELLO, max_tokens=2)
    await drained(client)
    assert len(ear.of("end")) == 1


async def test_defect_streams_recorded_a_quarter_of_their_length_and_prompt_zero_whatever_was_reported(make, fake):
    ear = Ear()
    client = make(callbacks=[ear])
    text = "".join([piece async for piece in client.stream_text(HELLO, max_tokens=30)])
    await drained(client)
    told, _ = ear.of("end")[0]
    entry = list(fake.invoice)[-1]
    assert told["content"] == text
    assert (told["prompt_tokens"], told["completion_tokens"]) == (entry.prompt_tokens, entry.completion_tokens)


async def test_defect_a_cancelled_stream_recorded_nothing(make, fake):
    ear = Ear()
    client = make(callbacks=[ear])
    async with aclosing(client.stream_text(HELLO, "gpt-4o?stall=10&length=40")) as stream:
        seen = ""
        async for piece in stream:
            seen += piece
            if counted(seen) >= 5:
                break
    await drained(client)
    told, kwargs = ear.of("end")[0]
    assert kwargs["cancelled"] is True
    assert told["prompt_tokens"] == HELLO_TOKENS
    assert told["completion_tokens"] >= 5
    assert told["content"].startswith(seen)


async def test_a_stream_whose_task_is_cancelled_is_recorded_too(make, fake):
    ear = Ear()
    client = make(callbacks=[ear])
    first = asyncio.Event()

    async def read():
        async for _ in client.stream_text(HELLO, "gpt-4o?stall=10&length=40"):
            first.set()

    task = asyncio.create_task(read())
    await first.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await drained(client)
    assert ear.of("end")[0][0]["tokens_used"] > HELLO_TOKENS
    await fake.until(lambda: fake.cancelled == 1)


async def test_a_stream_that_breaks_off_tells_of_its_error_and_of_what_was_billed(make):
    ear = Ear()
    client = make(callbacks=[ear])
    with pytest.raises(ProviderNotAvailableError):
        [piece async for piece in client.stream_text(HELLO, "gpt-4o?cut=9&length=40")]
    await drained(client)
    error, kwargs = ear.of("error")[0]
    assert isinstance(error, ProviderNotAvailableError)
    assert kwargs["prompt_tokens"] == HELLO_TOKENS
    assert kwargs["completion_tokens"] > 0
    assert not ear.of("end")


async def test_a_call_that_fails_tells_its_error_once_and_nothing_was_billed(make):
    ear = Ear()
    client = make(callbacks=[ear])
    with pytest.raises(RateLimitError):
        await client.generate_text(HELLO, "fake-1?status=429")
    await drained(client)
    assert [type(error) for error, _ in ear.of("error")] == [RateLimitError]
    assert "tokens_used" not in ear.of("error")[0][1]


async def test_a_provider_that_reports_no_usage_has_it_counted(make):
    response = await make().generate_text(HELLO, "gpt-4o?no_usage", max_tokens=20)
    assert response.prompt_tokens == HELLO_TOKENS
    assert response.completion_tokens >= counted(response.content)


async def test_a_reported_zero_is_believed(make):
    response = await make().generate_text(HELLO, "fake-1?usage_zero", max_tokens=20)
    assert (response.prompt_tokens, response.completion_tokens, response.tokens_used) == (0, 0, 0)


# --- around the calls


async def test_a_batch_keeps_the_order_and_each_failure_is_its_items_own(make, fake):
    done = []
    prompts = ["one", [LLMMessage("user", "two")], "  ", "four"]
    items = await generate_batch(
        make(), prompts, concurrency=2, max_tokens=3, progress=lambda n, of: done.append((n, of))
    )
    assert [item.index for item in items] == [0, 1, 2, 3]
    assert [item.error is None for item in items] == [True, True, False, True]
    assert isinstance(items[2].error, ValueError)
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]


async def test_a_batch_has_no_more_calls_in_flight_than_its_bound(make, fake):
    most = 0

    def look(done, of):
        nonlocal most
        most = max(most, fake.in_flight)

    items = await generate_batch(
        make(), [f"prompt {n}" for n in range(12)], concurrency=2, progress=look, model="fake-1?delay_ms=5"
    )
    assert all(item.response for item in items)
    assert most <= 2


async def test_a_batch_draws_a_bar_on_a_terminal_only(make):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal, file = Terminal(), io.StringIO()
    await generate_batch(make(), ["a", "b"], max_tokens=1, bar=terminal)
    await generate_batch(make(), ["a", "b"], max_tokens=1, bar=file)
    assert terminal.getvalue().endswith("2/2\n")
    assert "#" * 15 in terminal.getvalue()
    assert file.getvalue() == ""
    with pytest.raises(ValueError, match="concurrency"):
        await generate_batch(make(), ["a"], concurrency=0)


async def test_an_equal_request_comes_from_the_cache_and_costs_nothing(make, fake):
    ear, now = Ear(), [0.0]
    cache = ResponseCache(seconds=10, clock=lambda: now[0])
    client = make(cache=cache, callbacks=[ear])
    first = await client.generate_text(HELLO, max_tokens=4)
    again = await client.generate_text(HELLO, max_tokens=4)
    assert (again.content, again.cached, again.tokens_used, again.cost_estimate) == (first.content, True, 0, 0.0)
    assert len(fake.invoice) == 1
    await client.generate_text(HELLO, max_tokens=5)
    await client.generate_text(HELLO, max_tokens=4, user="bob")
    assert len(fake.invoice) == 3
    now[0] = 11
    await client.generate_text(HELLO, max_tokens=4)
    assert len(fake.invoice) == 4
    await drained(client)
    assert len(ear.of("end")) == 5


async def test_a_cache_keeps_its_bound_and_no_failure(make):
    cache = ResponseCache(entries_max=2)
    client = make(cache=cache)
    for n in (1, 2, 3):
        await client.generate_text(HELLO, max_tokens=n)
    with pytest.raises(LLMClientError):
        await client.generate_text(HELLO, "fake-1?status=400")
    assert len(cache) == 2


async def test_calls_that_run_at_once_cannot_pass_the_daily_budget_together(make, fake):
    # one call: 14 input at most bounded by its bytes, 900 output at 2 USD per million: about 0.0018 USD
    costs = CostController("0.0025")
    client = make(costs=costs, prices=PRICES)
    calls = [client.generate_text(HELLO, "fake-1?length=900", max_tokens=900) for _ in range(15)]
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(each, LLMResponse) for each in found) == 1
    assert sum(isinstance(each, BudgetExceededError) for each in found) == 14
    assert len(fake.invoice) == 1
    assert float(costs.spent_usd) == pytest.approx((HELLO_TOKENS + 1800) / 1e6)


async def test_a_call_gives_back_what_it_did_not_use_and_a_new_day_is_a_new_budget(make):
    day = [date(2026, 11, 5)]
    costs = CostController(0.01, today=lambda: day[0])
    client = make(costs=costs, prices=PRICES)
    await client.generate_text(HELLO, "fake-1?length=10", max_tokens=4000)
    assert float(costs.spent_usd) == pytest.approx((HELLO_TOKENS + 20) / 1e6)
    assert float(costs.remaining_usd) == pytest.approx(0.01 - (HELLO_TOKENS + 20) / 1e6)
    with pytest.raises(LLMClientError):
        await client.generate_text(HELLO, "fake-1?status=400", max_tokens=1000)
    assert float(costs.remaining_usd) == pytest.approx(0.01 - (HELLO_TOKENS + 20) / 1e6)
    day[0] = date(2026, 11, 6)
    assert costs.spent_usd == 0


async def test_a_budget_refuses_what_has_no_price(make, fake):
    with pytest.raises(BudgetExceededError) as caught:
        await make(costs=CostController(100)).generate_text(HELLO)
    assert caught.value.code == "unknown_price"
    assert not fake.invoice


async def test_a_client_says_whether_its_provider_can_be_reached_and_takes_its_key(make):
    assert (await make().health_check())["status"] == "healthy"
    assert set(await make().health_check()) == {"status", "timestamp"}


# --- which client


@pytest.mark.parametrize(
    ("name", "environ", "kind"),
    [
        ("openai", {"OPENAI_API_KEY": "k"}, OpenAIClient),
        ("OpenAI", {"OPENAI_API_KEY": "k"}, OpenAIClient),
        (" OPENAI ", {"OPENAI_API_KEY": "k"}, OpenAIClient),
        ("Anthropic", {"ANTHROPIC_API_KEY": "k"}, AnthropicClient),
        ("Google_AI", {"GOOGLE_AI_API_KEY": "k"}, GoogleAIClient),
        ("gemini", {"GEMINI_API_KEY": "k"}, GoogleAIClient),
        ("Vertex-AI", {"GOOGLE_CLOUD_PROJECT": "p"}, VertexAIClient),
        ("xAI", {"XAI_API_KEY": "k"}, XAIClient),
        (
            "Azure",
            {"AZURE_OPENAI_API_KEY": "k", "AZURE_OPENAI_ENDPOINT": "https://x.openai.azure.com"},
            AzureOpenAIClient,
        ),
        ("BedRock", {"AWS_BEARER_TOKEN_BEDROCK": "k", "AWS_REGION": "eu-west-1"}, BedrockClient),
        ("Groq", {"GROQ_API_KEY": "k"}, CompatibleClient),
        ("ollama", {}, CompatibleClient),
    ],
)
async def test_defect_provider_names_were_case_sensitive(name, environ, kind):
    async with create_client(name, environ=environ) as client:
        assert type(client) is kind


async def test_a_client_takes_its_key_and_defaults_from_the_environment(fake, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-1, sk-2")
    monkeypatch.setenv("OPENAI_BASE_URL", fake.url)
    monkeypatch.setenv("LLM_DEFAULT_MODEL", "fake-1")
    async with create_client("openai") as client:
        await client.generate_text(HELLO, max_tokens=1)
        await client.generate_text(HELLO, max_tokens=1)
    assert [seen.headers["authorization"] for seen in fake.requests] == ["Bearer sk-1", "Bearer sk-2"]


@pytest.mark.parametrize(
    ("name", "environ", "error", "named"),
    [
        ("openai", {}, AuthenticationError, "OPENAI_API_KEY"),
        ("anthropic", {"ANTHROPIC_API_KEY": ""}, AuthenticationError, "ANTHROPIC_API_KEY"),
        ("groq", {}, AuthenticationError, "groq"),
        ("opnai", {}, ValueError, "known are"),
        ("azure", {"AZURE_OPENAI_API_KEY": "k"}, ValueError, "AZURE_OPENAI_ENDPOINT"),
        ("bedrock", {"AWS_BEARER_TOKEN_BEDROCK": "k"}, ValueError, "AWS_REGION"),
        ("openai", {"OPENAI_API_KEY": "k", "LLM_TIMEOUT": "soon"}, ValueError, "LLM_TIMEOUT"),
    ],
)
def test_a_client_that_cannot_be_made_says_what_is_missing(name, environ, error, named):
    with pytest.raises(error, match=named):
        create_client(name, environ=environ)


async def test_a_client_without_a_vendors_address_has_no_vendors_prices(fake, make):
    assert (await make().generate_text(HELLO, "gpt-4o", max_tokens=2)).cost_estimate is None


@pytest.mark.parametrize(
    ("client", "path", "answer"),
    [
        (
            lambda url, t: AnthropicClient("k", base_url=url, transport=t),
            "/v1/messages",
            b'{"id":"m","type":"message","role":"assistant","model":"claude-x","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","usage":{"input_tokens":3,"output_tokens":2}}',
        ),
        (
            lambda url, t: GoogleAIClient("k", base_url=url, transport=t),
            ":generateContent",
            b'{"candidates":[{"content":{"parts":[{"text":"Hi"}],"role":"model"},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":2,"totalTokenCount":5}}',
        ),
        (
            lambda url, t: BedrockClient("us-east-1", api_key="k", base_url=url, transport=t),
            "/converse",
            b'{"output":{"message":{"role":"assistant","content":[{"text":"Hi"}]}},"stopReason":"end_turn","usage":{"inputTokens":3,"outputTokens":2,"totalTokens":5}}',
        ),
        (
            lambda url, t: VertexAIClient("p", "us-central1", access_token="k", base_url=url, transport=t),
            ":generateContent",
            b'{"candidates":[{"content":{"parts":[{"text":"Hi"}],"role":"model"},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":2,"totalTokenCount":5}}',
        ),
    ],
)
async def test_every_kind_of_provider_is_called_by_the_proxys_own_translator(client, path, answer):
    from aiohttp import web

    paths = []

    async def handle(request):
        paths.append(request.path)
        return web.Response(body=answer, content_type="application/json")

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    transport = PlainTransport()
    try:
        async with client(f"http://127.0.0.1:{runner.addresses[0][1]}", transport) as made:
            response = await made.generate_text(HELLO, "claude-haiku-4-5" if "messages" in path else "gemini-2.5-flash")
        assert response.content == "Hi"
        assert (response.prompt_tokens, response.completion_tokens) == (3, 2)
        assert paths[0].endswith(path)
    finally:
        await transport.close()
        await runner.cleanup()


async def test_a_shared_runner_is_left_open(make):
    ear = Ear()
    runner = CallbackRunner([ear])
    async with make(runner=runner) as client:
        await client.generate_text(HELLO, max_tokens=1)
    runner.start([], request_id="x")
    assert await runner.close()
    assert len(ear.of("start")) == 2
