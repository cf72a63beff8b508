"""Streams that providers could send, healthy and not, through the whole of Bursar: every rule of the format is kept."""

import orjson
import pytest
import pytest_asyncio

from tests.constructed import STREAMS, asking, expected, reply
from tests.replay import bursar_before
from tests.stream_rules import accumulated, broken_rules, events_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bursar():
    async with bursar_before() as running:
        yield running


@pytest.mark.parametrize(("provider", "name"), STREAMS)
async def test_a_stream_keeps_every_rule_and_every_fact_however_it_is_cut(bursar, provider, name):
    """wire 3.1 to 3.22, 3.25, 3.26, 3.40 to 3.43, 3.86 to 3.88"""
    wanted = expected(provider, name)
    for size in (0, 1, 7):
        bursar.replay.serve(reply(provider, name, size))
        status, headers, answer = await bursar.post("/v1/chat/completions", asking(provider, **wanted.body))
        assert status == wanted.status, answer
        if status != 200:
            told = orjson.loads(answer)["error"]
            assert told["message"]
            assert told.keys() >= {"message", "type", "param", "code"}
            continue
        shown = None if wanted.error else wanted.usage is not None
        assert broken_rules(answer, usage=shown, error=wanted.error) == []
        if wanted.error:
            continue
        chunks = events_of(answer)[0]
        first = accumulated(chunks).choices[0]
        message = first.message
        calls = tuple((call.function.name, call.function.arguments) for call in message.tool_calls or [])
        assert (message.content or "", calls, first.finish_reason) == (wanted.text, wanted.calls, wanted.finish)
        assert message.refusal == wanted.refusal
        if wanted.reasoning is not None:
            assert message.model_extra["reasoning_content"] == wanted.reasoning
        if wanted.usage is not None:
            usage = chunks[-1]["usage"]
            assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == wanted.usage


@pytest.mark.parametrize(
    ("provider", "name"), [s for s in STREAMS if not expected(*s).error and expected(*s).status == 200]
)
async def test_usage_that_was_not_asked_for_is_never_seen(bursar, provider, name):
    """wire 3.13, also for an explicit false"""
    for options in (None, {"include_usage": False}):
        bursar.replay.serve(reply(provider, name))
        body = asking(provider, **expected(provider, name).body) | {"stream_options": options}
        status, _, answer = await bursar.post("/v1/chat/completions", body)
        assert status == 200
        assert broken_rules(answer, usage=False) == []
        assert not any("usage" in chunk and chunk["usage"] for chunk in events_of(answer)[0])
