"""A stream that Bursar ends at its grant tells the usage that was counted, where the provider told none or less."""

import pytest

from tests.constructed import BEGIN, crlf, google, greeting, measured, piece, said, start
from tests.constructed_openai import HI, ROLE, chunk, sse
from tests.stream_rules import broken_rules, events_of
from tests.test_soup import exchange_of

HINT = {"prompt_tokens": 7, "completion_tokens": 40, "total_tokens": 47}
LITTLE = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
MUCH = {"prompt_tokens": 3, "completion_tokens": 90, "total_tokens": 93}
TEXT = [start(0, "text", text=""), piece(0, "text_delta", text="hi")]
COUNTED = {"promptTokenCount": 3, "candidatesTokenCount": 90, "totalTokenCount": 93}

CUTS = {
    "openai tells none": ("openai", sse(ROLE, HI, done=False), (7, 40, 47)),
    "openai tells less": ("openai", sse(ROLE, chunk({"content": "x"}, usage=LITTLE), done=False), (3, 40, 43)),
    "openai tells more": ("openai", sse(ROLE, chunk({"content": "x"}, usage=MUCH), done=False), (3, 90, 93)),
    "claude tells the input": ("anthropic", sse(greeting(), *TEXT, done=False), (3, 40, 43)),
    "claude tells nothing": ("anthropic", sse({"type": "message_start", "message": {"id": "x"}}, *TEXT, done=False), (7, 40, 47)),
    "gemini tells none": ("gemini", crlf({k: v for k, v in google({"text": "hi"}).items() if k != "usageMetadata"}), (7, 40, 47)),
    "gemini tells the input": ("gemini", crlf(google({"text": "hi"}, usageMetadata={"promptTokenCount": 3, "totalTokenCount": 3})), (3, 40, 43)),
    "gemini tells more": ("gemini", crlf(google({"text": "hi"}, usageMetadata=COUNTED)), (3, 90, 93)),
    "vertex tells only its traffic": ("vertex", crlf(google({"text": "hi"}, usageMetadata={"trafficType": "ON_DEMAND"})), (7, 40, 47)),
    "bedrock tells none": ("bedrock", BEGIN + said(0, text="hi"), (7, 40, 47)),
    "bedrock tells it before the end": ("bedrock", BEGIN + said(0, text="hi") + measured(), (3, 40, 43)),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CUTS))
@pytest.mark.parametrize("hinted", [True, False])
def test_the_usage_at_a_cut_is_what_was_told_and_no_less_than_what_was_counted(name, hinted):
    provider, data, counts = CUTS[name]
    translator = exchange_of(provider, "chat", stream=True).stream()
    out = translator.feed(data)
    seen = translator.take()
    translator.usage_hint = HINT if hinted else None
    out += translator.cut()
    assert broken_rules(out) == []
    chunks = events_of(out)[0]
    assert [c["finish_reason"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]] == ["length"]
    if hinted:
        usage = chunks[-1]["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == counts
        told = [chunk["usage"] for chunk in seen + translator.take() if chunk.get("usage")]
        assert told[-1] == usage  # the last one that the meter gets
