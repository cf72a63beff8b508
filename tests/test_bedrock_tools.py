"""Reasoning, tools and structured output as Converse's models take them."""

import json
from typing import Any

import pytest

from adapters.errors import UnsupportedParameterError
from tests.bedrock import (
    CLAUDE,
    CLAUDE_4,
    CLAUDE_46,
    CLAUDE_47,
    HELLO,
    LLAMA,
    MISTRAL,
    NOVA,
    NOVA_2,
    START,
    UNKNOWN,
    adapter,
    answer,
    call,
    delta,
    message_stop,
    metadata,
    sent,
    stop,
    tool_start,
)
from tests.bedrock_requests import CALLED, EMPTY, FORMAT, LOOP, RESULT, SCHEMA, TOOLS, checked, dropped

REASONING = [
    (CLAUDE, {"reasoning_effort": "low"}, {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
    (CLAUDE, {"reasoning_effort": "high"}, {"thinking": {"type": "enabled", "budget_tokens": 24576}}),
    (
        CLAUDE,
        {"reasoning_effort": "high", "max_tokens": 4000},
        {"thinking": {"type": "enabled", "budget_tokens": 3000}},
    ),
    (CLAUDE, {"reasoning_effort": "high", "max_tokens": 1000}, None),
    (CLAUDE, {"reasoning_effort": "none"}, None),
    (CLAUDE_46, {"reasoning_effort": "xhigh"}, {"thinking": {"type": "adaptive"}, "output_config": {"effort": "high"}}),
    (CLAUDE_46, {"reasoning_effort": "max"}, {"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}),
    (CLAUDE_46, {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
    (
        CLAUDE_47,
        {"reasoning_effort": "minimal"},
        {"thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "low"}},
    ),
    ("openai.gpt-oss-120b-1:0", {"reasoning_effort": "medium"}, {"reasoning_effort": "medium"}),
    (NOVA_2, {"reasoning_effort": "low"}, {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}}),
    (NOVA_2, {"reasoning_effort": "high"}, {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "medium"}}),
    (NOVA_2, {"reasoning_effort": "none"}, {"reasoningConfig": {"type": "disabled"}}),
    ("qwen.qwen3-32b-v1:0", {"reasoning_effort": "high"}, {"reasoning_config": "high"}),
    (LLAMA, {"reasoning_effort": "high"}, None),
    (CLAUDE, {"reasoning_effort": "low", "thinking": {"type": "disabled"}}, {"thinking": {"type": "disabled"}}),
]


@pytest.mark.parametrize(("model", "body", "expected"), REASONING)
def test_reasoning_effort_is_said_in_the_models_own_words(model, body, expected):
    """wire 3.62."""
    native = checked(body, model)
    assert native.get("additionalModelRequestFields") == expected
    if expected is None and body["reasoning_effort"] != "none":
        assert "reasoning_effort" in dropped(body, model)


def test_a_forced_tool_wins_over_thinking():
    """wire 3.61."""
    body = {"tools": TOOLS, "tool_choice": "required", "reasoning_effort": "high", "temperature": 0.5}
    for model in (CLAUDE, CLAUDE_46):
        native = checked(body, model)
        assert native["toolConfig"]["toolChoice"] == {"any": {}}
        assert "additionalModelRequestFields" not in native
        assert native["inferenceConfig"]["temperature"] == 0.5
        assert "reasoning_effort" in dropped(body, model)


SIGNED = {"index": 0, "type": "reasoning.text", "text": "Hm.", "signature": "sig"}
THOUGHT = {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "sig"}}}


def test_signed_reasoning_that_a_client_echoes_goes_back_to_claude_only():
    """wire 3.50."""
    details = [SIGNED, {"type": "reasoning.encrypted", "data": "AAAA"}, {"type": "reasoning.text", "text": "unsigned"}]
    body = {"messages": [*HELLO, {**CALLED, "reasoning_details": details}, RESULT], "reasoning_effort": "low"}
    native = checked(body)
    assert native["messages"][1]["content"][:2] == [THOUGHT, {"reasoningContent": {"redactedContent": "AAAA"}}]
    assert "thinking" in native["additionalModelRequestFields"]
    assert "reasoningContent" not in json.dumps(checked(body, NOVA))
    assert "messages.reasoning" in dropped(body, NOVA)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_tool_loop_with_thinking_works_for_a_client_that_echoes_nothing(streaming):
    """wire 3.50."""
    one = adapter()
    exchange = one.exchange(call({"tools": TOOLS, "reasoning_effort": "low", "stream": streaming}))
    if streaming:
        thoughts = delta(0, reasoningContent={"text": "Hm."}) + delta(0, reasoningContent={"signature": "sig"})
        frames = START + thoughts + stop(0) + tool_start(1, "a", "f") + stop(1) + message_stop("tool_use") + metadata()
        exchange.stream().feed(frames)
    else:
        use = {"toolUse": {"toolUseId": "a", "name": "f", "input": {}}}
        exchange.completion(answer(THOUGHT, use, reason="tool_use"), {})
    again = one.exchange(call({"messages": LOOP, "tools": TOOLS, "reasoning_effort": "low"}))
    native = json.loads(again.request.body)
    assert native["messages"][1]["content"][0] == THOUGHT
    assert native["additionalModelRequestFields"]["thinking"]["type"] == "enabled"


def test_a_tool_loop_whose_thoughts_are_lost_goes_on_without_thinking():
    """wire 3.50."""
    body = {"messages": LOOP, "tools": TOOLS, "reasoning_effort": "low"}
    assert "additionalModelRequestFields" not in checked(body)
    assert "reasoning_effort" in dropped(body)


def spec(name: str, **more: Any) -> dict[str, Any]:
    return {"toolSpec": {"name": name, "inputSchema": EMPTY, **more}}


CHOICES = [
    (CLAUDE, {}, None),
    (CLAUDE, {"tool_choice": "auto"}, {"auto": {}}),
    (CLAUDE, {"tool_choice": "required"}, {"any": {}}),
    (CLAUDE, {"tool_choice": {"type": "function", "function": {"name": "g"}}}, {"tool": {"name": "g"}}),
    (MISTRAL, {"tool_choice": "required"}, {"any": {}}),
    (LLAMA, {"tool_choice": "auto"}, None),
    (UNKNOWN, {"tool_choice": "required"}, {"any": {}}),
]


@pytest.mark.parametrize(("model", "body", "expected"), CHOICES)
def test_the_choice_among_tools(model, body, expected):
    config = checked({"tools": TOOLS, **body}, model)["toolConfig"]
    assert config["tools"] == [spec("f"), spec("g")]
    assert config.get("toolChoice") == expected


UNFORCED = [
    (LLAMA, {"tools": TOOLS, "tool_choice": "required"}, "tool_choice"),
    (MISTRAL, {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice"),
    (LLAMA, {"response_format": FORMAT}, "response_format"),
    ("anthropic.claude-v2", {"tools": TOOLS}, "tools"),
]


@pytest.mark.parametrize(("model", "body", "param"), UNFORCED)
def test_what_a_model_cannot_be_made_to_do_is_refused(model, body, param):
    with pytest.raises(UnsupportedParameterError) as caught:
        sent(body, model)
    assert caught.value.param == param


def test_no_tools_are_sent_for_the_choice_none_unless_the_history_needs_them():
    """wire 3.63."""
    assert "toolConfig" not in checked({"tools": TOOLS, "tool_choice": "none"})
    native = checked({"messages": LOOP, "tools": TOOLS, "tool_choice": "none"})
    assert native["toolConfig"] == {"tools": [spec("f")]}
    assert "Do not call any tool" in native["system"][0]["text"]


def test_a_history_with_calls_has_its_tools_declared_again():
    """wire 3.63."""
    for body in ({}, {"tools": []}, {"tools": None, "tool_choice": "none"}):
        native = checked({"messages": LOOP, **body})
        assert native["toolConfig"] == {"tools": [spec("f")]}


def test_allowed_tools_leave_out_the_others():
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [TOOLS[1]]}}
    config = checked({"tools": TOOLS, "tool_choice": allowed})["toolConfig"]
    assert config == {"tools": [spec("g")], "toolChoice": {"tool": {"name": "g"}}}


def test_a_tool_keeps_what_converse_takes_of_it():
    function = {"name": "f", "description": "Does.", "parameters": SCHEMA, "strict": True}
    tool = {"type": "function", "function": function}
    expected = {"name": "f", "description": "Does.", "inputSchema": {"json": SCHEMA}, "strict": True}
    assert checked({"tools": [tool]})["toolConfig"]["tools"] == [{"toolSpec": expected}]
    blank = {"type": "function", "function": {"name": "f", "description": " "}}
    assert checked({"tools": [blank]})["toolConfig"]["tools"] == [spec("f")]
    system_tool = {"systemTool": {"name": "nova_code_interpreter"}}
    assert checked({"tools": [system_tool]}, NOVA_2)["toolConfig"]["tools"] == [system_tool]


def test_functions_of_the_old_form_are_tools():
    body = {"functions": [{"name": "f"}], "function_call": {"name": "f"}}
    assert checked(body)["toolConfig"] == {"tools": [spec("f")], "toolChoice": {"tool": {"name": "f"}}}


def test_a_json_schema_goes_as_a_string_where_the_model_takes_one():
    definition = checked({"response_format": FORMAT})["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert (definition["name"], definition["description"]) == ("City", "A city.")
    assert json.loads(definition["schema"]) == {**SCHEMA, "additionalProperties": False}


def test_limits_that_the_models_refuse_in_a_schema_are_put_into_words():
    schema = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "N", "schema": schema}}
    definition = checked({"response_format": wanted})["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    sent_schema = json.loads(definition["schema"])
    assert sent_schema["properties"]["n"] == {"type": "integer", "description": "minimum: 1"}
    assert sent_schema["additionalProperties"] is False


def test_a_schema_that_must_stay_open_goes_as_a_tool():
    schema = {"type": "object", "additionalProperties": {"type": "string"}}
    native = checked({"response_format": {"type": "json_schema", "json_schema": {"name": "M", "schema": schema}}})
    assert native["toolConfig"]["toolChoice"] == {"tool": {"name": "json"}}
    assert "outputConfig" not in native


STRUCTURES = [
    ({}, ["json"], {"tool": {"name": "json"}}),
    ({"tools": TOOLS}, ["f", "g", "json"], {"any": {}}),
    ({"tools": [{"type": "function", "function": {"name": "json"}}]}, ["json", "json_2"], {"any": {}}),
    (
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}},
        ["f", "g"],
        {"tool": {"name": "f"}},
    ),
]


@pytest.mark.parametrize(("body", "names", "choice"), STRUCTURES)
def test_elsewhere_a_forced_tool_takes_the_schema(body, names, choice):
    """wire 3.84."""
    native = checked({"response_format": FORMAT, **body}, CLAUDE_4)
    assert [t["toolSpec"]["name"] for t in native["toolConfig"]["tools"]] == names
    assert native["toolConfig"]["toolChoice"] == choice
    assert "outputConfig" not in native


def test_a_json_object_is_asked_for_in_words():
    assert "JSON object" in checked({"response_format": {"type": "json_object"}})["system"][0]["text"]
    assert "system" not in checked({"response_format": {"type": "text"}})
