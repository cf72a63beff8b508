"""After a mixed run with misbehaviour, everyone names the same number: provider, ledger, metrics, usage records, totals."""

import asyncio
import datetime as dt
import json
import random
import sys

import pytest

from accounting.reading import Reader
from tests.sidecars import HELLO, MODEL, ROOT, house, total
from tests.test_disconnects import begin

BUDGETS = """budgets:
  - {subject: "user:alice", tokens: 100000000, input_tokens: 100000000, output_tokens: 100000000, requests: 100000, usd: 1000, period: day}
  - {subject: "tenant:default", tokens: 100000000, period: total}
retries: {attempts: 2, budget: 1.0}
"""
PROVIDERS = 'providers: {{fake: {{kind: fake, base_url: "{fake}"}}, hasty: {{kind: fake, base_url: "{fake}", timeouts: {{idle: 0.5}}}}}}\n'
MODELS = 'models: {"hasty/*": "hasty/*", "*": "fake/*"}\n'
PRICES = 'prices: {"fake/*": {input: 1, output: 2}, "hasty/*": {input: 1, output: 2}}\n'


async def leave(h, rng):
    point = rng.randrange(1, 30)
    reader, writer = await begin(h, f"{MODEL}?length=40&stall={point}", seed=rng.randrange(10**6))
    seen = b""
    while seen.count(b'"content":') <= point:
        seen += await reader.readuntil(b"\n\n")
    writer.close()


async def chat(h, script, **more):
    await h.chat(f"{MODEL}?{script}", **more)


def call(h, rng):
    """One call of any kind that a provider can bill exactly for."""
    k, stream = rng.randrange(1, 30), rng.random() < 0.7
    usage = {"stream_options": {"include_usage": True}} if stream and rng.random() < 0.5 else {}
    seed = rng.randrange(10**6)
    kinds = [
        lambda: leave(h, rng),
        lambda: chat(h, f"length={k}", stream=stream, seed=seed, **usage),
        lambda: chat(h, f"length={k}&no_usage", stream=True, seed=seed, **usage),
        lambda: chat(h, f"length={k}&no_done", stream=True, seed=seed),
        lambda: chat(h, f"length={k}&no_finish", stream=True, seed=seed),
        lambda: chat(h, f"length={k}&bytes=7&crlf", stream=True, seed=seed, **usage),
        lambda: chat(h, f"length={k}&comments=2&role_every", stream=True, seed=seed),
        lambda: h.chat(f"hasty/{MODEL}?length=40&stall={k}", stream=True, seed=seed),  # until our idle limit
        lambda: chat(h, f"length=40&cut={k}", stream=True, seed=seed),
        lambda: chat(h, f"length=40&error_after={k}", stream=True, seed=seed),
        lambda: chat(h, f"length={k}&reasoning=20&cached=5", stream=stream, seed=seed, **usage),
        lambda: chat(h, f"length={k}", stream=stream, n=3, seed=seed),
        lambda: chat(h, f"length={k}", stream=stream, max_tokens=5, seed=seed),
        lambda: chat(h, "status=500", stream=stream, seed=seed),
        lambda: chat(h, "status=429&code=insufficient_quota", stream=stream, seed=seed),
        lambda: chat(h, f"status=503&times=1&length={k + 100}", stream=stream, seed=seed),
        lambda: chat(h, "status=400", stream=stream, seed=seed),
        lambda: h.post("/completions", model=f"{MODEL}?length={k}", prompt=["one", "two words"], stream=stream),
        lambda: h.post("/responses", model=f"{MODEL}?length={k}", input="Say hello to the treasurer.", stream=stream),
        lambda: h.post("/embeddings", model="text-embedding-3-small", input=["some text", "more of it"]),
        lambda: chat(h, f"length={k}&last", stream=stream, messages=[*HELLO, {"role": "assistant", "content": "hi " * k}, *HELLO]),
    ]  # fmt: skip
    return rng.choice(kinds)()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))])
async def test_invoice_ledger_metrics_and_records_agree_to_the_token(store, tmp_path, seed):
    rng = random.Random(seed)
    async with house(store, tmp_path, providers=PROVIDERS, models=MODELS, prices=PRICES, more=BUDGETS) as h:
        for _ in range(10):
            await asyncio.gather(*(call(h, rng) for _ in range(20)))
        await h.until_receipts(200)
        await h.fake.until(lambda: h.fake.in_flight == 0)
        assert len(h.receipts) == 200
        billed_in, billed_out = h.fake.invoice.prompt_tokens, h.fake.invoice.completion_tokens
        assert billed_in > 2000
        assert billed_out > 2000
        _say_where(h)

        used = await h.balances()
        assert used["user:alice", "input_tokens"] == (billed_in, 0)
        assert used["user:alice", "output_tokens"] == (billed_out, 0)
        assert used["user:alice", "tokens"] == (billed_in + billed_out, 0)
        assert used["tenant:default", "tokens"] == (billed_in + billed_out, 0)
        cost, _ = used["user:alice", "usd"]

        records = await h.records()
        assert len(records) == len({record["id"] for record in records}) == 200
        assert sum(r["input"] for r in records) == billed_in
        assert sum(r["output"] for r in records) == billed_out
        assert sum(r["cost_nanousd"] for r in records) == cost
        served = sum(bool(r["input"]) for r in records)
        assert used["user:alice", "requests"] == (served, 0)

        totals = await Reader(h.sidecar.store).totals([_day(h)])
        assert sum(row["input"] for row in totals.values()) == billed_in
        assert sum(row["output"] for row in totals.values()) == billed_out
        assert sum(row["cost"] for row in totals.values()) == cost

        if seed == 0:
            told = await _usage_command(h, tmp_path)
            assert told["total"]["input_tokens"] == billed_in
            assert told["total"]["output_tokens"] == billed_out
            assert told["total"]["cost_nanousd"] == cost

        found = await h.metrics()
        assert total(found, "bursar_tokens_total", type="input") == billed_in
        assert total(found, "bursar_tokens_total", type="output") == billed_out
        assert round(total(found, "bursar_cost_usd_total") * 1e9) == cost
        assert total(found, "bursar_requests_total") == 200
        assert total(found, "bursar_budget_used", subject="user:alice", unit="output_tokens") == billed_out
        assert total(found, "bursar_budget_held") == 0
        assert total(found, "bursar_in_flight") == 0


async def _usage_command(h, folder):
    """What `bursar usage --json` prints."""
    file = folder / "usage.yaml"
    file.write_text(h.text)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "proxy", "usage", "-c", str(file), "--json", cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(out)


def _day(h):
    return dt.datetime.fromtimestamp(h.sidecar.ledger.now_ms() / 1000, dt.UTC).strftime("%Y%m%d")


def _say_where(h):
    """Compare call by call: a sum that differs tells nobody where."""
    billed = {}
    for entry in h.fake.invoice:
        before = billed.get(entry.request_id, (0, 0))
        billed[entry.request_id] = (before[0] + entry.prompt_tokens, before[1] + entry.completion_tokens)
    models = {entry.request_id: entry for entry in h.fake.invoice}
    wrong = [
        (receipt.model, receipt.outcome, receipt.usage, billed[receipt.request_id], models[receipt.request_id])
        for receipt in h.receipts
        if billed[receipt.request_id] != (receipt.usage.input, receipt.usage.output)
    ]
    assert not wrong, wrong[:5]
