"""OpenAI's chat requests as Converse gets them: recorded ones, limits, sampling and the fields of either side."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.bedrock.models import MAX_TOKENS_DEFAULT, model_of
from adapters.bedrock.request import TREATMENT
from adapters.errors import InvalidRequestError, UnsupportedParameterError
from tests import recorded
from tests.bedrock import BASE_URL, CLAUDE, CLAUDE_4, CLAUDE_47, LLAMA, MISTRAL, NOVA, UNKNOWN, adapter, call, sent
from tests.bedrock_requests import CALLED, PDF, PNG, RESULT, TOOLS, checked, complaints, dropped, file, image, text
from tests.native_oracle import bedrock, oracle_ids


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
@pytest.mark.parametrize("case_id", oracle_ids("bedrock-converse"))
def test_a_recorded_request_is_sent_as_it_was_recorded(case_id):
    case = recorded.load(case_id)
    ours = json.loads(adapter().exchange(recorded.call_for(case)).request.body)
    theirs = case["request"]["native"]
    assert bedrock(ours) == bedrock(theirs)
    config = dict(ours["inferenceConfig"])
    if "maxTokens" not in theirs.get("inferenceConfig", {}):
        assert config.pop("maxTokens") >= 2048
    assert config == theirs.get("inferenceConfig", {})


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
@pytest.mark.parametrize("case_id", recorded.case_ids("bedrock-converse"))
def test_every_recorded_request_becomes_one_that_amazons_sdk_takes(case_id):
    request = adapter().exchange(recorded.call_for(recorded.load(case_id))).request
    assert complaints(json.loads(request.body)) == []


URLS = [
    ("amazon.nova-micro-v1:0", "amazon.nova-micro-v1%3A0"),
    (
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
        "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2F"
        "us.anthropic.claude-sonnet-4-5-20250929-v1%3A0",
    ),
]


@pytest.mark.parametrize(("model", "segment"), URLS)
def test_the_model_is_one_segment_of_the_path(model, segment):
    request = adapter().exchange(call(model=model)).request
    assert request.url == f"{BASE_URL}/model/{segment}/converse"
    assert dict(request.headers) == {"content-type": "application/json", "accept": "application/json"}
    request = adapter().exchange(call({"stream": True}, model)).request
    assert request.url == f"{BASE_URL}/model/{segment}/converse-stream"
    assert dict(request.headers)["accept"] == "application/vnd.amazon.eventstream"


def test_the_same_request_gives_the_same_bytes_and_keeps_the_order_of_a_schemas_keys():
    """wire 3.74, 3.89."""
    parameters = {"type": "object", "properties": {"z": {"type": "integer"}, "a": {"const": 9007199254740993}}}
    body = {"tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}]}
    first, second = (adapter().exchange(call(body)).request.body for _ in range(2))
    assert first == second
    assert b'"properties":{"z":{"type":"integer"},"a":{"const":9007199254740993}}' in first


LIMITS = [
    ({"max_tokens": 5}, {}, 5),
    ({"max_tokens": 5, "max_completion_tokens": 7}, {}, 7),
    ({"max_tokens": 500}, {"output_limit": 40}, 40),
    ({}, {"output_limit": 40}, 40),
    ({}, {}, 64000),
    ({"inferenceConfig": {"maxTokens": 9}}, {}, 9),
    ({"inferenceConfig": {"maxTokens": 9000}}, {"output_limit": 40}, 40),
    ({"inferenceConfig": {"maxTokens": 9000}, "max_tokens": 3}, {}, 3),
]


@pytest.mark.parametrize(("body", "changes", "expected"), LIMITS)
def test_the_output_limit_is_always_sent_and_the_grant_wins(body, changes, expected):
    """wire 3.38, 3.58, 3.59."""
    assert checked(body, **changes)["inferenceConfig"]["maxTokens"] == expected


def test_an_unknown_model_gets_the_documented_limit():
    assert checked(model=UNKNOWN)["inferenceConfig"]["maxTokens"] == MAX_TOKENS_DEFAULT


def test_no_field_of_a_models_own_raises_the_limit_or_asks_for_more_answers():
    own = {
        "max_tokens": 10**6,
        "maxTokens": 10**6,
        "n": 50,
        "num_generations": 5,
        "top_k": 4,
        "inferenceConfig": {"maxTokens": 10**6, "topK": 3},
    }
    native = checked({"additionalModelRequestFields": own}, output_limit=40)
    assert native["additionalModelRequestFields"] == {"top_k": 4, "inferenceConfig": {"topK": 3}}
    assert "additionalModelRequestFields.max_tokens" in dropped({"additionalModelRequestFields": own})


SAMPLING = [
    (CLAUDE, {"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5}, ("top_p",)),
    (CLAUDE, {"top_p": 0.9}, {"topP": 0.9}, ()),
    (CLAUDE, {"temperature": 1.7}, {"temperature": 1}, ()),
    (CLAUDE_4, {"temperature": 0, "top_p": 1}, {"temperature": 0, "topP": 1}, ()),
    (CLAUDE_47, {"temperature": 0.5, "top_p": 0.9}, {}, ("temperature", "top_p")),
    (CLAUDE, {"temperature": 1, "reasoning_effort": "high"}, {}, ("temperature",)),
    (CLAUDE, {"temperature": 1, "thinking": {"type": "enabled", "budget_tokens": 2000}}, {}, ("temperature",)),
    (NOVA, {"temperature": 0.5, "top_p": 0.9}, {"temperature": 0.5, "topP": 0.9}, ()),
    (NOVA, {"stop": "END"}, {"stopSequences": ["END"]}, ()),
    (NOVA, {"stop": ["A", "", " "]}, {"stopSequences": ["A"]}, ()),
    (NOVA, {"stop": []}, {}, ()),
    (NOVA, {"temperature": None, "top_p": None, "stop": None}, {}, ()),
]


@pytest.mark.parametrize(("model", "body", "expected", "told"), SAMPLING)
def test_sampling_is_what_the_model_takes_and_the_rest_is_told(model, body, expected, told):
    """wire 3.60."""
    config = checked(body, model)["inferenceConfig"]
    config.pop("maxTokens")
    assert config == expected
    assert dropped(body, model) == told


def test_top_k_goes_where_the_model_looks_for_it():
    assert checked({"top_k": 5})["additionalModelRequestFields"] == {"top_k": 5}
    assert checked({"top_k": 5}, NOVA)["additionalModelRequestFields"] == {"inferenceConfig": {"topK": 5}}


def test_every_field_of_openais_has_one_treatment():
    """wire 3.71."""
    assert TREATMENT.complete


@pytest.mark.parametrize("name", sorted(TREATMENT.refused))
def test_a_field_that_cannot_be_honoured_is_refused_by_name(name):
    with pytest.raises(UnsupportedParameterError) as caught:
        sent({name: {"n": 2, "logprobs": True, "top_logprobs": 3, "modalities": ["audio"]}.get(name, {"x": 1})})
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, name, "unsupported_parameter")


def test_what_is_left_out_is_told():
    body = {"seed": 1, "user": "u", "logit_bias": {}, "parallel_tool_calls": False, "enable_thinking": True, "n": 1}
    assert dropped(body) == ("seed", "user", "logit_bias", "enable_thinking", "parallel_tool_calls")
    assert dropped({"parallel_tool_calls": True, "n": 1, "logprobs": False, "stream": False, "seed": None}) == ()


def test_fields_of_converses_own_pass_through():
    native = {
        "guardrailConfig": {"guardrailIdentifier": "abc", "guardrailVersion": "1"},
        "performanceConfig": {"latency": "optimized"},
        "additionalModelResponseFieldPaths": ["/stop_sequence"],
        "additionalModelRequestFields": {"anthropic_beta": ["x"]},
        "requestMetadata": {"team": "a"},
        "serviceTier": {"type": "reserved"},
    }
    sent_native = checked(native)
    assert {name: sent_native[name] for name in native} == native
    assert dropped(native) == ()


TIERS = [
    ("priority", "priority"),
    ("fast", "priority"),
    ("default", "default"),
    ("flex", "flex"),
    ("auto", None),
    ("scale", None),
]


@pytest.mark.parametrize(("tier", "expected"), TIERS)
def test_service_tiers(tier, expected):
    native = checked({"service_tier": tier})
    assert native.get("serviceTier") == ({"type": expected} if expected else None)
    assert ("service_tier" in dropped({"service_tier": tier})) is (tier == "scale")


def test_metadata_that_amazon_would_refuse_is_left_out_and_told():
    body = {"metadata": {"team": "a b", "odd": "é", "long": "x" * 300, "": "v"}}
    assert checked(body)["requestMetadata"] == {"team": "a b"}
    assert "metadata" in dropped(body)


BAD = [
    ({"messages": []}, "messages"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": "5"}, "max_tokens"),
    ({"temperature": "hot"}, "temperature"),
    ({"top_p": -1}, "top_p"),
    ({"stop": 5}, "stop"),
    ({"reasoning_effort": "much"}, "reasoning_effort"),
    ({"response_format": {"type": "xml"}}, "response_format"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"inferenceConfig": 5}, "inferenceConfig"),
    ({"additionalModelRequestFields": []}, "additionalModelRequestFields"),
    ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0]"),
]


@pytest.mark.parametrize(("body", "param"), BAD)
def test_a_request_that_is_wrong_is_refused_by_field(body, param):
    with pytest.raises(InvalidRequestError) as caught:
        sent(body)
    assert (caught.value.status, caught.value.param) == (400, param)


MODELS = [
    ("anthropic.claude-opus-4-20250514-v1:0", "budget", 32000),
    ("anthropic.claude-opus-4-1-20250805-v1:0", "budget", 32000),
    ("eu.anthropic.claude-3-7-sonnet-20250219-v1:0", "budget", 64000),
    ("anthropic.claude-3-haiku-20240307-v1:0", None, 4096),
    ("us-gov.anthropic.claude-haiku-4-5-20251001-v1:0", "budget", 64000),
    ("arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-pro-v1:0", None, 5000),
    ("moonshotai.kimi-k2-thinking", None, 8192),
    (UNKNOWN, None, MAX_TOKENS_DEFAULT),
    ("", None, MAX_TOKENS_DEFAULT),
]


@pytest.mark.parametrize(("name", "reasoning", "limit"), MODELS)
def test_a_model_is_known_through_region_prefixes_and_arns(name, reasoning, limit):
    assert (model_of(name).reasoning, model_of(name).max_tokens) == (reasoning, limit)


LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
)
ANY = st.recursive(
    LEAVES, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=5), x, max_size=3), max_leaves=6
)
FIELDS = st.dictionaries(
    st.sampled_from(sorted((TREATMENT.mapped | TREATMENT.dropped | TREATMENT.native) - {"messages"})), ANY, max_size=5
)
PART = st.one_of(
    st.builds(text, st.text(max_size=5)),
    st.sampled_from([image(f"data:image/png;base64,{PNG}"), file(PDF, "a.pdf")]),
    st.builds(lambda words: {**text(words), "cache_control": {"type": "ephemeral"}}, st.text(max_size=3)),
)
MESSAGE = st.one_of(
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["user", "user", "assistant"]),
        st.lists(PART, max_size=3) | st.text(max_size=5),
    ),
    st.builds(lambda words: {"role": "system", "content": words}, st.text(max_size=5)),
    st.sampled_from([CALLED, RESULT]),
)
SOME_MODELS = st.sampled_from([CLAUDE, CLAUDE_4, CLAUDE_47, NOVA, LLAMA, MISTRAL, UNKNOWN, "amazon.titan-text-lite-v1"])


@settings(max_examples=200, deadline=None)
@given(FIELDS, ANY, SOME_MODELS)
def test_any_json_is_a_request_or_a_refusal(fields, messages, model):
    for body in (fields, {**fields, "messages": messages}):
        try:
            exchange = adapter().exchange(call(body, model))
        except InvalidRequestError as error:
            message = error.message
            assert message
        else:
            json.loads(exchange.request.body)


@settings(max_examples=200, deadline=None)
@given(st.lists(MESSAGE, min_size=1, max_size=7), SOME_MODELS, st.sampled_from([{}, {"tools": TOOLS}]))
def test_any_conversation_is_one_that_converse_takes(messages, model, more):
    """Alternating, nothing blank, results first and answered, and Amazon's own SDK has no complaint."""
    try:
        native = sent({"messages": messages, **more}, model)
    except InvalidRequestError:
        return
    assert complaints(native) == []
    roles = [message["role"] for message in native["messages"]]
    assert all(a != b for a, b in zip(roles, roles[1:], strict=False))
    for message in native["messages"]:
        kinds = [next(iter(block)) for block in message["content"]]
        assert kinds
        assert all(block["text"].strip() for block in message["content"] if "text" in block)
        assert kinds == sorted(kinds, key=lambda kind: kind != "toolResult") or "cachePoint" in kinds
        assert message["role"] == "assistant" or "document" not in kinds or "text" in kinds
    if any("toolUse" in block for message in native["messages"] for block in message["content"]):
        assert native["toolConfig"]["tools"]
