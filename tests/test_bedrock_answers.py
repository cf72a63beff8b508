"""Converse's whole answers, and recorded ones of both kinds, as OpenAI's clients get them."""

import pytest

from adapters.errors import UpstreamError, UpstreamProtocolError
from tests import recorded
from tests.bedrock import (
    CLAUDE,
    CLAUDE_4,
    NOVA,
    START,
    adapter,
    answer,
    call,
    delta,
    event,
    message_stop,
    metadata,
    stop,
    tool_start,
)
from tests.bedrock_answers import CITY, ONE_TOOL, completed, streamed

# The judge counts a call that Bedrock ran itself as the client's; wire 3.83 says that it is not, and so do we.
JUDGED_OTHERWISE = {"bedrock-converse-non-stream-tools-010"}


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
@pytest.mark.parametrize("case_id", recorded.case_ids("bedrock-converse"))
def test_a_recorded_answer_keeps_every_fact_however_it_is_cut(case_id):
    case = recorded.load(case_id)
    whole = recorded.problems(adapter(), case)
    if case_id in JUDGED_OTHERWISE:
        assert [problem for problem in whole if "tool names" not in problem] == []
        return
    assert whole == []
    if case["request"]["openai"].get("stream"):
        for size in (1, 7, 1000):
            assert recorded.problems(adapter(), case, size) == []


def test_a_text_answer_has_an_id_of_the_call_the_model_asked_for_and_consistent_usage():
    """wire 3.36, 3.85."""
    completion = completed(answer({"text": "Hi"}, {"text": " there"}))
    assert completion == {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": CLAUDE,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hi there", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        },
    }


REASONS = [
    ("end_turn", False, "stop"),
    ("stop_sequence", False, "stop"),
    ("tool_use", True, "tool_calls"),
    ("end_turn", True, "tool_calls"),
    ("tool_use", False, "stop"),
    ("max_tokens", False, "length"),
    ("max_tokens", True, "length"),
    ("model_context_window_exceeded", False, "length"),
    ("guardrail_intervened", False, "content_filter"),
    ("content_filtered", False, "content_filter"),
    ("malformed_model_output", False, "stop"),
    ("malformed_tool_use", False, "stop"),
    ("a_reason_of_next_year", False, "stop"),
    (None, False, "stop"),
    ({"not": "a string"}, False, "stop"),
]


@pytest.mark.parametrize(("reason", "with_call", "expected"), REASONS)
def test_every_stop_reason_is_one_of_openais_streamed_and_not(reason, with_call, expected):
    """wire 3.42, 3.43."""
    block = {"toolUse": {"toolUseId": "t1", "name": "f", "input": {}}} if with_call else {"text": "x"}
    assert completed(answer(block, reason=reason))["choices"][0]["finish_reason"] == expected
    content = tool_start(0, "t1", "f") + stop(0) if with_call else delta(0, text="x")
    end = event("messageStop", {"stopReason": reason})
    _, snapshot = streamed(START + content + end + metadata(), {"tools": ONE_TOOL})
    assert snapshot.choices[0].finish_reason == expected


USAGE = [
    ("no cache", {"inputTokens": 7, "outputTokens": 3, "totalTokens": 10}, NOVA, (7, 3, 10, 0, 0)),
    (
        "cache read and written",
        {"inputTokens": 1, "outputTokens": 2, "cacheReadInputTokens": 4, "cacheWriteInputTokens": 8, "totalTokens": 15},
        NOVA,
        (13, 2, 15, 4, 8),
    ),
    (
        "total leaves the cache out of the sum but input holds it",
        {"inputTokens": 12, "outputTokens": 2, "cacheReadInputTokens": 4, "totalTokens": 14},
        NOVA,
        (12, 2, 14, 4, 0),
    ),
    ("the old names", {"inputTokens": 1, "outputTokens": 1, "cacheReadInputTokenCount": 5}, NOVA, (6, 1, 7, 5, 0)),
    ("absurd", {"inputTokens": -5, "outputTokens": "x", "cacheReadInputTokens": True}, NOVA, (0, 0, 0, 0, 0)),
]


@pytest.mark.parametrize(("usage", "model", "expected"), [row[1:] for row in USAGE], ids=[row[0] for row in USAGE])
def test_usage_counts_the_cache_once_and_adds_up_streamed_and_not(usage, model, expected):
    """wire 3.32, 3.33, 3.34, 3.36."""
    whole = completed(answer({"text": "x"}, usage=usage), model=model)["usage"]
    frame = event("metadata", {"usage": usage})
    chunks, _ = streamed(START + delta(0, text="x") + message_stop() + frame, model=model)
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole
    details = whole["prompt_tokens_details"]
    assert expected == (
        whole["prompt_tokens"],
        whole["completion_tokens"],
        whole["total_tokens"],
        details["cached_tokens"],
        details["cache_write_tokens"],
    )


def test_an_openai_model_that_counts_its_cache_twice_when_it_streams_is_counted_once():
    """wire 3.32."""
    usage = {"inputTokens": 4995, "outputTokens": 19, "cacheWriteInputTokens": 4993, "totalTokens": 10007}
    frame = event("metadata", {"usage": usage})
    chunks, _ = streamed(START + delta(0, text="x") + message_stop() + frame, model="openai.gpt-5.6")
    assert chunks[-1]["usage"]["prompt_tokens"] == 4995
    whole = completed(
        answer({"text": "x"}, usage={**usage, "inputTokens": 2, "totalTokens": 5014}), model="openai.gpt-5.6"
    )
    assert whole["usage"]["prompt_tokens"] == 4995


def test_the_part_of_the_cache_that_lives_an_hour_is_told():
    usage = {
        "inputTokens": 1,
        "outputTokens": 1,
        "cacheWriteInputTokens": 9,
        "cacheDetails": [{"ttl": "1h", "inputTokens": 6}, {"ttl": "5m", "inputTokens": 3}, "?"],
    }
    details = completed(answer({"text": "x"}, usage=usage))["usage"]["prompt_tokens_details"]
    assert details == {"cached_tokens": 0, "cache_write_tokens": 9, "cache_write_1h_tokens": 6}


def test_text_and_calls_come_together_and_no_arguments_are_an_empty_object():
    """wire 3.8, 3.10, 3.89."""
    blocks = [
        {"text": "Let me see."},
        {"toolUse": {"toolUseId": "a", "name": "f", "input": {"b": 36893488147419103233, "a": "é🙂"}}},
        {"toolUse": {"toolUseId": "b", "name": "g"}},
        {"toolUse": {"name": "h", "input": {}}},
    ]
    message = completed(answer(*blocks, reason="tool_use"))["choices"][0]["message"]
    assert message["content"] == "Let me see."
    calls = message["tool_calls"]
    assert [c["function"]["arguments"] for c in calls] == ['{"b":36893488147419103233,"a":"é🙂"}', "{}", "{}"]
    assert [c["id"] for c in calls[:2]] == ["a", "b"]
    again = completed(answer(*blocks, reason="tool_use"))["choices"][0]["message"]["tool_calls"]
    assert calls[2]["id"].startswith("call_")
    assert again == calls


def test_a_call_without_text_has_content_null():
    block = {"toolUse": {"toolUseId": "a", "name": "f", "input": {}}}
    assert completed(answer(block, reason="tool_use"))["choices"][0]["message"]["content"] is None


def test_what_bedrock_ran_itself_is_no_call_of_the_client():
    """wire 3.83."""
    blocks = [
        {"toolUse": {"toolUseId": "s", "name": "nova_code_interpreter", "input": {}, "type": "server_tool_use"}},
        {"toolResult": {"toolUseId": "s", "content": [{"json": {}}]}},
        {"text": "42"},
    ]
    choice = completed(answer(*blocks))["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("42", "stop")
    assert "tool_calls" not in choice["message"]
    frames = (
        tool_start(0, "s", "nova_code_interpreter", type="server_tool_use")
        + delta(0, toolUse={"input": '{"snippet":1}'})
        + stop(0)
        + event("contentBlockStart", {"contentBlockIndex": 1, "start": {"toolResult": {"toolUseId": "s"}}})
        + delta(1, toolResult=[{"text": "hidden"}])
        + stop(1)
        + delta(2, text="42")
    )
    _, snapshot = streamed(START + frames + message_stop() + metadata())
    assert snapshot.choices[0].message.content == "42"
    assert not snapshot.choices[0].message.tool_calls


def test_reasoning_is_told_in_words_and_with_its_signature():
    blocks = [
        {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "sig"}}},
        {"reasoningContent": {"redactedContent": "AAAA"}},
        {"text": "4"},
    ]
    message = completed(answer(*blocks))["choices"][0]["message"]
    assert message["reasoning_content"] == "Hm."
    told = [
        (d["index"], d["type"], d.get("text"), d.get("signature"), d.get("data")) for d in message["reasoning_details"]
    ]
    assert told == [(0, "reasoning.text", "Hm.", "sig", None), (1, "reasoning.encrypted", None, None, "AAAA")]
    frames = (
        delta(0, reasoningContent={"text": "H"})
        + delta(0, reasoningContent={"text": "m."})
        + delta(0, reasoningContent={"signature": "sig"})
        + stop(0)
        + delta(1, reasoningContent={"redactedContent": "AAAA"})
        + stop(1)
        + delta(2, text="4")
    )
    _, snapshot = streamed(START + frames + message_stop() + metadata())
    streamed_message = snapshot.choices[0].message.model_dump()
    assert streamed_message["reasoning_content"] == "Hm."
    assert streamed_message["reasoning_details"] == message["reasoning_details"]


def test_citations_of_pages_are_annotations_and_their_text_is_text():
    """wire 3.87."""
    cited = {"title": "T", "location": {"web": {"url": "https://example.com", "domain": "example.com"}}}
    elsewhere = {"title": "D", "location": {"documentPage": {"documentIndex": 0}}}
    block = {"citationsContent": {"content": [{"text": "So."}], "citations": [cited, elsewhere]}}
    message = completed(answer(block))["choices"][0]["message"]
    assert message["content"] == "So."
    assert [a["url_citation"]["url"] for a in message["annotations"]] == ["https://example.com"]
    frames = delta(0, text="So.") + delta(0, citation=cited) + delta(0, citation=elsewhere) + delta(0, citation=cited)
    chunks, snapshot = streamed(START + frames + stop(0) + message_stop() + metadata())
    assert len(snapshot.choices[0].message.annotations or []) == 2
    assert sum("annotations" in c["choices"][0]["delta"] for c in chunks if c["choices"]) == 1


def test_structured_output_by_a_tool_is_text_that_ends_with_stop():
    """wire 3.84."""
    request = {"response_format": CITY}
    blocks = [{"text": "Here:"}, {"toolUse": {"toolUseId": "t", "name": "json", "input": {"city": "Paris"}}}]
    choice = completed(answer(*blocks, reason="tool_use"), request, CLAUDE_4)["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ('{"city":"Paris"}', "stop")
    assert "tool_calls" not in choice["message"]
    frames = (
        delta(0, text="Here:")
        + stop(0)
        + tool_start(1, "t", "json")
        + delta(1, toolUse={"input": '{"city":'})
        + delta(1, toolUse={"input": '"Paris"}'})
        + stop(1)
    )
    _, snapshot = streamed(START + frames + message_stop("tool_use") + metadata(), request, CLAUDE_4)
    assert snapshot.choices[0].message.content == '{"city":"Paris"}'
    assert snapshot.choices[0].finish_reason == "stop"
    assert not snapshot.choices[0].message.tool_calls


def test_structured_output_that_was_not_given_leaves_the_text():
    request = {"response_format": CITY}
    assert completed(answer({"text": "No."}), request, CLAUDE_4)["choices"][0]["message"]["content"] == "No."
    frames = delta(0, text="N") + delta(0, text="o.") + stop(0)
    _, snapshot = streamed(START + frames + message_stop() + metadata(), request, CLAUDE_4)
    assert snapshot.choices[0].message.content == "No."


def test_a_tool_named_json_of_the_client_is_a_call():
    request = {"tools": [{"type": "function", "function": {"name": "json"}}]}
    block = {"toolUse": {"toolUseId": "t", "name": "json", "input": {}}}
    choice = completed(answer(block, reason="tool_use"), request)["choices"][0]
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "json"


def test_a_client_of_the_old_form_is_answered_in_it():
    request = {"functions": [{"name": "f"}]}
    block = {"toolUse": {"toolUseId": "t", "name": "f", "input": {"a": 1}}}
    choice = completed(answer(block, reason="tool_use"), request)["choices"][0]
    assert choice["message"]["function_call"] == {"name": "f", "arguments": '{"a":1}'}
    assert choice["finish_reason"] == "function_call"
    assert "tool_calls" not in choice["message"]
    frames = (
        tool_start(0, "t", "f") + delta(0, toolUse={"input": '{"a"'}) + delta(0, toolUse={"input": ":1}"}) + stop(0)
    )
    _, snapshot = streamed(START + frames + message_stop("tool_use") + metadata(), request)
    old = snapshot.choices[0].message.function_call
    assert old is not None
    assert (old.name, old.arguments) == ("f", '{"a":1}')
    assert snapshot.choices[0].finish_reason == "function_call"


TIERS = [("priority", "priority"), ("default", "default"), ("flex", "flex"), ("reserved", None), (5, None)]


@pytest.mark.parametrize(("tier", "expected"), TIERS)
def test_the_tier_that_served_is_told_where_openai_has_a_word_for_it(tier, expected):
    assert completed(answer({"text": "x"}, serviceTier={"type": tier})).get("service_tier") == expected


NO_ANSWERS = [
    (b"", UpstreamProtocolError),
    (b"[]", UpstreamProtocolError),
    (b"<html>", UpstreamProtocolError),
    (b"{}", UpstreamProtocolError),
    (b'{"output": 5}', UpstreamProtocolError),
    (b'{"message": "Too many requests"}', UpstreamError),
    (b'{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}', UpstreamError),
    (b'{"output":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}", UpstreamProtocolError),
]


@pytest.mark.parametrize(("body", "error"), NO_ANSWERS)
def test_a_body_that_is_no_answer_is_an_error_and_never_an_empty_success(body, error):
    """wire 3.22."""
    with pytest.raises(error) as caught:
        adapter().exchange(call()).completion(body, {})
    assert caught.value.status >= 400
    assert caught.value.message
