"""P2: a request cannot cost more than its hold. The limit that was granted goes upstream, and a stream that passes it is ended."""

import json

import pytest

from tests.sidecars import HELLO, HELLO_TOKENS, MODEL, house, rows_of, total

SMALL = "admission: {min_completion: 16, unbounded_share: 0.25}\n"
OUTPUT_100 = 'budgets: [{subject: "user:alice", output_tokens: 100, period: day}]\n' + SMALL
OUTPUT_1000 = 'budgets: [{subject: "user:alice", output_tokens: 1000, period: day}]\n' + SMALL

# what each kind of provider is sent for a granted limit of 100
FIELDS = [
    ('{{kind: openai, base_url: "{fake}", api_keys: [k-0123456789]}}', MODEL, ("max_completion_tokens",)),
    ('{{kind: openai, base_url: "{fake}", api_keys: [k-0123456789]}}', "gpt-5", ("max_completion_tokens",)),
    ('{{kind: openai, base_url: "{fake}", api_keys: [k-0123456789]}}', "some-local-model", ("max_tokens",)),
    ('{{kind: azure, base_url: "{fake}", api_version: "2024-10-21", api_keys: [k-0123456789]}}', MODEL, ("max_completion_tokens",)),
    ('{{kind: xai, base_url: "{fake}", api_keys: [k-0123456789]}}', "grok-4", ("max_completion_tokens",)),
    ('{{kind: anthropic, base_url: "{fake}", api_keys: [k-0123456789]}}', "claude-haiku-4-5", ("max_tokens",)),
    ('{{kind: gemini, base_url: "{fake}", api_keys: [k-0123456789]}}', "gemini-2.5-flash", ("generationConfig", "maxOutputTokens")),
    ('{{kind: bedrock, base_url: "{fake}", region: us-east-1, api_keys: [k-0123456789]}}', "amazon.nova-lite-v1:0", ("inferenceConfig", "maxTokens")),
    ('{{preset: groq, base_url: "{fake}", api_keys: [k-0123456789]}}', "llama-3.3-70b-versatile", ("max_completion_tokens",)),
    ('{{preset: mistral, base_url: "{fake}", api_keys: [k-0123456789]}}', "mistral-large-latest", ("max_tokens",)),
]  # fmt: skip


@pytest.mark.parametrize(
    "asked",
    [{"max_tokens": 5000}, {"max_completion_tokens": 5000}, {}, {"max_tokens": 5000, "max_completion_tokens": 300}],
)
@pytest.mark.parametrize(("provider", "model", "path"), FIELDS)
async def test_the_granted_limit_goes_upstream_in_the_field_that_counts_there(
    store, tmp_path, provider, model, path, asked
):
    providers = "providers: {{fake: " + provider + "}}\n"
    more = OUTPUT_100.replace("0.25", "1") + "retries: {attempts: 1}\n"
    async with house(store, tmp_path, providers=providers, more=more) as h:
        await h.chat(model, **asked)
        sent = json.loads(h.fake.requests[0].body)
        value = sent
        for name in path:
            value = value[name]
        assert value == 100
        assert sum("max_" in name for name in sent) == (len(path) == 1)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/chat/completions", {"messages": HELLO, "max_completion_tokens": 500}, "max_completion_tokens"),
        ("/completions", {"prompt": "Say hello.", "max_tokens": 500}, "max_tokens"),
        ("/completions", {"prompt": "Say hello."}, "max_tokens"),
        ("/responses", {"input": "Say hello.", "max_output_tokens": 500}, "max_output_tokens"),
        ("/responses", {"input": "Say hello."}, "max_output_tokens"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_each_operation_is_clamped_and_says_so(store, tmp_path, path, body, field, stream):
    async with house(store, tmp_path, more=OUTPUT_100.replace("0.25", "1")) as h:
        reply = await h.post(path, model=MODEL + "?length=400", stream=stream, **body)
        assert reply.status == 200
        assert reply.headers["x-budget-clamped"] == "100"
        assert json.loads(h.fake.requests[0].body)[field] == 100
        await h.until_receipts(1)
        assert (await h.balances())["user:alice", "output_tokens"] == (100, 0)
        assert h.receipts[0].outcome == "ok"
        assert h.fake.invoice[0].outcome == "complete"


async def test_what_fits_goes_as_the_client_wrote_it(store, tmp_path):
    async with house(store, tmp_path, more=OUTPUT_1000) as h:
        raw = (
            b'{ "model":"gpt-4o",  "messages":[{"role":"user","content":"hi"}], "max_completion_tokens" : 50, "x":1.10}'
        )
        reply = await h.send("POST", "/chat/completions", data=raw)
        assert reply.status == 200
        assert "x-budget-clamped" not in reply.headers
        sent = h.fake.requests[0].body
        assert b'"x":1.10' in sent
        assert sent.startswith(b'{ "model":"gpt-4o",  "messages"')
        assert [v for k, v in json.loads(sent).items() if k.startswith("max_")] == [50]


async def test_without_a_hard_budget_no_limit_is_added_or_lowered(store, tmp_path):
    for more in (
        "",
        OUTPUT_100.replace("period: day", "period: day, mode: soft"),
        OUTPUT_100.replace("period: day", "period: day, mode: shadow"),
    ):
        async with house(store, tmp_path, more=more) as h:
            reply = await h.chat(MODEL + "?length=300")
            assert "x-budget-clamped" not in reply.headers
            assert not [name for name in json.loads(h.fake.requests[0].body) if name.startswith("max_")]
            assert reply.json["usage"]["completion_tokens"] == 300


TPM_200 = 'limits: [{subject: "user:alice", tpm: 200}]\nadmission: {min_completion: 16, unbounded_share: 0.25}\n'


@pytest.mark.parametrize(
    ("asked", "granted"),
    [
        ({"max_tokens": 5000}, 200 - HELLO_TOKENS),
        ({"max_tokens": 201 - HELLO_TOKENS}, 200 - HELLO_TOKENS),
        ({"max_tokens": 200 - HELLO_TOKENS}, None),
        ({"max_tokens": 5000, "n": 2}, (200 - HELLO_TOKENS) // 2),
        ({}, (200 - HELLO_TOKENS) // 4),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_limit_of_tokens_per_minute_lowers_what_is_sent_only_where_it_is_less(
    store, tmp_path, asked, granted, stream
):
    async with house(store, tmp_path, more=TPM_200) as h:
        reply = await h.chat(MODEL + "?length=9000", stream=stream, **asked)
        assert reply.status == 200
        sent = {name: n for name, n in json.loads(h.fake.requests[0].body).items() if name.startswith("max_")}
        if granted is None:
            assert sent == {name: n for name, n in asked.items() if name.startswith("max_")}, "as the client wrote it"
            assert "x-budget-clamped" not in reply.headers
            return
        assert list(sent.values()) == [granted]
        assert reply.headers["x-budget-clamped"] == str(granted)
        await h.until_receipts(1)
        assert h.receipts[0].usage.total <= 200


async def test_a_limit_of_tokens_that_lowers_nothing_adds_no_limit(store, tmp_path):
    async with house(store, tmp_path, more=TPM_200.replace("200", "1000000")) as h:
        reply = await h.chat(MODEL + "?length=300")
        assert "x-budget-clamped" not in reply.headers
        assert not [name for name in json.loads(h.fake.requests[0].body) if name.startswith("max_")]


async def test_a_call_without_a_limit_of_its_own_gets_a_share_of_what_is_free(store, tmp_path):
    async with house(store, tmp_path, more=OUTPUT_1000) as h:
        first = await h.chat(MODEL + "?length=400")
        assert first.headers["x-budget-clamped"] == "250"
        assert first.json["choices"][0]["finish_reason"] == "length"
        second = await h.chat(MODEL + "?length=400")
        assert second.headers["x-budget-clamped"] == str(750 // 4)
        named = await h.chat(MODEL + "?length=400", max_tokens=2000)
        assert named.headers["x-budget-clamped"] == str(750 - 750 // 4)


async def test_the_share_is_never_less_than_the_least_completion(store, tmp_path):
    more = OUTPUT_100.replace("min_completion: 16", "min_completion: 60")
    async with house(store, tmp_path, more=more) as h:
        assert (await h.chat(MODEL + "?length=400")).headers["x-budget-clamped"] == "60"


async def test_each_choice_gets_its_part(store, tmp_path):
    async with house(store, tmp_path, more=OUTPUT_1000) as h:
        reply = await h.chat(MODEL + "?length=900", n=4, max_tokens=900)
        assert reply.headers["x-budget-clamped"] == "250"
        assert json.loads(h.fake.requests[0].body)["n"] == 4
        await h.until_receipts(1)
        assert (await h.balances())["user:alice", "output_tokens"] == (1000, 0)


async def test_each_prompt_of_a_legacy_completion_gets_its_part(store, tmp_path):
    async with house(store, tmp_path, more=OUTPUT_1000) as h:
        reply = await h.post(
            "/completions", model=MODEL + "?length=900", prompt=["a", "b"], n=2, best_of=2, max_tokens=900
        )
        assert reply.headers["x-budget-clamped"] == "250"
        await h.until_receipts(1)
        assert (await h.balances())["user:alice", "output_tokens"] == (1000, 0)


@pytest.mark.parametrize("place", ["thinking", "reasoning"])
async def test_the_grant_is_never_below_a_thinking_budget_and_the_least_completion(store, tmp_path, place):
    async with house(store, tmp_path, more=OUTPUT_1000) as h:
        name = "budget_tokens" if place == "thinking" else "max_tokens"
        fits = await h.chat(**{place: {name: 900}})
        assert fits.headers["x-budget-clamped"] == "916"
        await h.until_receipts(1)
        refused = await h.chat(**{place: {name: 990}})
        assert (refused.status, refused.error["code"]) == (429, "insufficient_quota")


async def test_a_grant_below_the_least_completion_is_refused_and_a_small_wish_is_not(store, tmp_path):
    more = OUTPUT_100.replace("min_completion: 16", "min_completion: 200")
    async with house(store, tmp_path, more=more) as h:
        refused = await h.chat(max_tokens=300)
        assert (refused.status, refused.error["budget"]["requested"]) == (429, 200)
        assert (await h.chat(max_tokens=90)).status == 200


async def test_a_full_hold_is_all_or_nothing(store, tmp_path):
    more = 'budgets: [{subject: "user:alice", output_tokens: 100, period: day, hold: full}]\n' + SMALL
    async with house(store, tmp_path, more=more) as h:
        refused = await h.chat(max_tokens=101)
        assert (refused.status, refused.error["budget"]["requested"]) == (429, 101)
        reply = await h.chat(max_tokens=100)
        assert reply.status == 200
        assert "x-budget-clamped" not in reply.headers


@pytest.mark.parametrize("show", [False, True])
@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
async def test_a_stream_that_passes_its_grant_is_ended_as_openai_would_end_it(store, tmp_path, show, path):
    async with house(store, tmp_path, more=OUTPUT_100) as h:
        options = {"stream_options": {"include_usage": True}} if show else {}
        words = {"messages": HELLO} if "chat" in path else {"prompt": "Say hello to the treasurer."}
        reply = await h.post(
            path, model=MODEL + "?ignore_limit&length=20000&pace=4000", stream=True, max_tokens=500, **words, **options
        )
        assert reply.status == 200
        assert reply.headers["x-budget-clamped"] == "100"
        assert reply.body.endswith(b"data: [DONE]\n\n")
        chunks = rows_of(reply.body)
        finishes = [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
        assert finishes == ["length"]
        assert len({chunk["id"] for chunk in chunks}) == 1
        pieces = [
            c for chunk in chunks for c in chunk["choices"] if (c.get("text") or c.get("delta", {}).get("content"))
        ]
        assert 100 < len(pieces) <= 100 + 16 + 2 + 40
        last = chunks[-1]
        if show:
            assert last["choices"] == []
            assert last["usage"]["completion_tokens"] == len(pieces)
        else:
            assert not any(chunk.get("usage") for chunk in chunks)
        await h.fake.until(lambda: h.fake.cancelled == 1)
        await h.until_receipts(1)
        (receipt,) = h.receipts
        assert receipt.outcome == "cut"
        assert receipt.usage.estimated
        assert receipt.usage.output == len(pieces)
        assert (await h.balances())["user:alice", "output_tokens"] == (len(pieces), 0)
        found = await h.metrics()
        assert total(found, "bursar_usage_estimated_total") == 1
        refused = await h.chat(max_tokens=500)
        assert refused.status == 429


async def test_an_honest_provider_that_uses_all_of_its_grant_is_not_cut(store, tmp_path):
    async with house(store, tmp_path, more=OUTPUT_1000) as h:
        reply = await h.chat(
            MODEL + "?length=3000", stream=True, max_tokens=3000, stream_options={"include_usage": True}
        )
        chunks = rows_of(reply.body)
        assert chunks[-1]["usage"]["completion_tokens"] == 1000
        await h.until_receipts(1)
        assert h.receipts[0].outcome == "ok"
        assert h.fake.invoice[0].outcome == "complete"


async def test_a_whole_answer_that_cost_more_than_its_hold_is_charged_and_told(store, tmp_path):
    more = 'budgets: [{subject: "user:alice", usd: 0.001, period: day}]\n' + SMALL
    async with house(store, tmp_path, more=more) as h:
        reply = await h.chat(MODEL + "?ignore_limit&length=1000", max_tokens=100)
        assert reply.status == 200
        await h.until_receipts(1)
        cost = HELLO_TOKENS * 1000 + 1000 * 2000
        assert (await h.balances())["user:alice", "usd"] == (cost, 0)
        over = total(await h.metrics(), "bursar_overspend_usd_total")
        assert over == pytest.approx((cost - HELLO_TOKENS * 1000 - 100 * 2000) / 1e9)


@pytest.mark.parametrize(("policy", "status"), [("refuse", 400), ("dearest", 429), ("free", 200)])
async def test_an_unknown_price_follows_the_policy(store, tmp_path, policy, status):
    more = 'budgets: [{subject: "user:alice", usd: 0.000001, period: day}]\n' + SMALL.replace(
        "}", f", unknown_price: {policy}}}"
    )
    async with house(store, tmp_path, prices="", more=more) as h:
        reply = await h.chat(max_tokens=100)
        assert reply.status == status
        if status == 200:
            assert "x-bursar-cost-usd" not in reply.headers


async def test_one_hold_covers_the_dearest_of_all_targets(store, tmp_path):
    providers = 'providers: {{cheap: {{kind: fake, base_url: "{fake}"}}, dear: {{kind: fake, base_url: "{fake}"}}}}\n'
    models = "models: {gpt-4o: [cheap/gpt-4o, dear/gpt-4o]}\n"
    prices = 'prices: {"cheap/*": {input: 1, output: 1}, "dear/*": {input: 10, output: 100}}\n'
    more = 'budgets: [{subject: "user:alice", usd: 1, period: day}]\n' + SMALL
    async with house(store, tmp_path, providers=providers, models=models, prices=prices, more=more) as h:
        reply = await h.chat(max_tokens=100)
        held = 1 - float(reply.headers["x-budget-remaining-usd"])
        assert held == pytest.approx((37 * 10 + 100 * 100) / 1e6)
