"""The normal form of a conversation, tools and tool choice: wire 2.0, steps 1 to 8."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.errors import InvalidRequestError, UnsupportedParameterError
from adapters.exact import dumps_exact, loads_exact
from adapters.memory import Memory
from adapters.messages import (
    Audio,
    File,
    Image,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    arguments_of,
    normalise,
    sanitise_tool_id,
    tool_choice_of,
    tools_of,
    wants_legacy,
)
from adapters.tools import object_schema


def conversation(*messages: Any) -> Any:
    return normalise({"messages": list(messages)})


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def calls(*ids: str, content: Any = None) -> dict[str, Any]:
    functions = [{"id": i, "type": "function", "function": {"name": f"f_{i}", "arguments": "{}"}} for i in ids]
    return {"role": "assistant", "content": content, "tool_calls": functions}


def result(call_id: str, content: Any = "done") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def attempt(body: Any) -> tuple[Any, Any]:
    try:
        return normalise(body), None
    except InvalidRequestError as error:
        return None, error


def shape(made: Any) -> list[tuple[str, list[str]]]:
    return [(turn.role, [type(part).__name__ for part in turn.parts]) for turn in made.turns]


def test_leading_system_and_developer_messages_are_the_system_text_each_a_block_of_its_own():
    """wire 3.45"""
    made = conversation({"role": "system", "content": "a"}, {"role": "developer", "content": "b"}, user("c"))
    assert [text.text for text in made.system] == ["a", "b"]
    assert shape(made) == [("user", ["Text"])]


def test_a_later_system_message_keeps_its_place():
    """wire 3.44"""
    made = conversation(user("a"), {"role": "developer", "content": "now rhyme"}, user("b"))
    assert [turn.role for turn in made.turns] == ["user", "system", "user"]
    assert made.turns[1].parts[0].text == "now rhyme"


def test_results_stand_first_in_one_turn_in_the_order_of_the_calls_and_know_their_names():
    """wire 3.47, wire 3.49"""
    made = conversation(user("x"), calls("a", "b"), result("b", "2"), result("a", "1"), user("next"))
    assert shape(made)[2] == ("user", ["ToolResult", "ToolResult", "Text"])
    first, second, _ = made.turns[2].parts
    assert (first.id, first.name, first.parts[0].text) == ("a", "f_a", "1")
    assert (second.id, second.name, second.parts[0].text) == ("b", "f_b", "2")


def test_results_come_before_user_text_even_if_the_text_came_first():
    made = conversation(user("x"), calls("a", "b"), result("a"), user("by the way"), result("b"))
    assert shape(made)[2] == ("user", ["ToolResult", "ToolResult", "Text"])


def test_two_results_of_different_calls_are_never_merged_but_two_of_one_call_are():
    """wire 3.48"""
    made = conversation(user("x"), calls("a", "b"), result("a", "1"), result("b", "2"), result("a", "3"))
    assert [[text.text for text in part.parts] for part in made.turns[2].parts] == [["1", "3"], ["2"]]


def test_neighbours_of_one_role_become_one_turn():
    made = conversation(user("a"), user("b"), {"role": "assistant", "content": "c"}, calls("i"))
    assert shape(made) == [("user", ["Text", "Text"]), ("assistant", ["Text", "ToolCall"])]


def test_empty_content_is_no_part_and_an_empty_assistant_message_is_no_turn():
    made = conversation(user(""), {"role": "assistant", "content": ""}, user([{"type": "text", "text": ""}]))
    assert shape(made) == [("user", [])]


def test_the_old_function_form_becomes_tool_calls_with_invented_ids():
    """wire 2.0 step 1"""
    made = conversation(
        user("x"),
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"a":1}'}},
        {"role": "function", "name": "f", "content": "1"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "2"},
    )
    found = [part for turn in made.turns for part in turn.parts if isinstance(part, ToolCall | ToolResult)]
    assert [part.id for part in found] == [found[0].id] * 2 + [found[2].id] * 2
    assert found[0].id != found[2].id
    assert found[0].arguments == {"a": 1}


@pytest.mark.parametrize(
    ("raw", "parsed"),
    [
        ("", {}),
        (None, {}),
        ("  ", {}),
        ('{"a": 1}', {"a": 1}),
        ({"a": 1}, {"a": 1}),
        (
            '{"a": 9007199254740993, "b": 123456789012345678901234567890}',
            {"a": 9007199254740993, "b": 123456789012345678901234567890},
        ),
        ('{"a": 1', {"_invalid_json": '{"a": 1'}),
        ("[1]", {"_invalid_json": "[1]"}),
        ('{"a": NaN}', {"_invalid_json": '{"a": NaN}'}),
        ('{"a": 1e999}', {"_invalid_json": '{"a": 1e999}'}),
        ("[" * 100_000, {"_invalid_json": "[" * 100_000}),
    ],
)
def test_arguments_become_an_object_and_what_is_none_survives(raw, parsed):
    """wire 2.0 step 6, wire 3.89"""
    assert arguments_of(raw) == parsed


def test_keys_and_large_integers_of_arguments_keep_their_order_and_value():
    """wire 3.89"""
    text = '{"z":9007199254740993,"a":"🦩","m":123456789012345678901234567890}'
    assert dumps_exact(arguments_of(text)).decode() == text


PARTS = [
    ({"type": "text", "text": "a"}, Text(text="a", source="messages[0].content[0]")),
    (
        {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
        Image(url="https://x/y.png", detail="low", source="messages[0].content[0].image_url.url"),
    ),
    (
        {"type": "image_url", "image_url": "https://x/"},
        Image(url="https://x/", source="messages[0].content[0].image_url"),
    ),
    (
        {"type": "file", "file": {"file_data": "QQ==", "filename": "a.pdf"}},
        File(data="QQ==", filename="a.pdf", source="messages[0].content[0].file.file_data"),
    ),
    (
        {"type": "file", "file": {"file_id": "file_1"}},
        File(file_id="file_1", source="messages[0].content[0].file.file_id"),
    ),
    (
        {"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}},
        Audio(data="QQ==", format="wav", source="messages[0].content[0].input_audio"),
    ),
    ({"type": "refusal", "refusal": "no"}, Refusal(text="no", source="messages[0].content[0]")),
]


@pytest.mark.parametrize(("part", "made"), PARTS)
def test_every_content_part_is_read(part, made):
    assert conversation(user([part])).turns[0].parts == [made]


@pytest.mark.parametrize(
    ("holder", "cache"),
    [
        ({"cache_control": {"type": "ephemeral"}}, {"type": "ephemeral"}),
        ({"cache_control": {"type": "ephemeral", "ttl": "1h"}}, {"type": "ephemeral", "ttl": "1h"}),
        ({"cache_control": {"type": "ephemeral", "ttl": None}}, {"type": "ephemeral"}),
        ({"prompt_cache_breakpoint": {"mode": "explicit"}}, {"type": "ephemeral"}),
        ({"prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}}, {"type": "ephemeral", "ttl": "1h"}),
        ({"cache_control": "yes"}, None),
    ],
)
def test_a_cache_point_has_one_form_however_it_was_asked_for(holder, cache):
    assert conversation(user([{"type": "text", "text": "a", **holder}])).turns[0].parts[0].cache == cache
    assert conversation({**user("a"), **holder}).turns[0].parts[0].cache == cache


def test_a_messages_cache_point_lies_behind_its_last_part_only():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    made = conversation({**user(parts), "cache_control": {"type": "ephemeral"}}).turns[0].parts
    assert [part.cache for part in made] == [None, {"type": "ephemeral"}]


def test_echoed_reasoning_comes_before_what_followed_it():
    details = [{"type": "reasoning.text", "text": "t", "signature": "s"}]
    made = conversation(user("a"), {**calls("i", content="b"), "reasoning_details": details, "reasoning_content": "t"})
    assert shape(made)[1] == ("assistant", ["Reasoning", "Text", "ToolCall"])
    assert made.turns[1].parts[0] == Reasoning(details=details, text="t", source="messages[1]")


def test_a_name_on_a_message_is_told_as_dropped():
    assert conversation({**user("a"), "name": "Ann"}).dropped == ("messages.name",)
    assert conversation(user("a")).dropped == ()


ERRORS = [
    ({}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [1]}, "messages[0]"),
    ({"messages": [{"content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
    ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
    ({"messages": [user([{"type": "video"}])]}, "messages[0].content[0].type"),
    ({"messages": [user([{"type": "text"}])]}, "messages[0].content[0].text"),
    ({"messages": [user([7])]}, "messages[0].content[0]"),
    ({"messages": [user([{"type": "image_url", "image_url": {}}])]}, "messages[0].content[0].image_url.url"),
    ({"messages": [user([{"type": "file", "file": {}}])]}, "messages[0].content[0].file"),
    (
        {"messages": [user([{"type": "input_audio", "input_audio": {"data": "x"}}])]},
        "messages[0].content[0].input_audio.format",
    ),
    ({"messages": [user("a"), result("nope")]}, "messages[1].tool_call_id"),
    ({"messages": [user("a"), {"role": "tool", "content": "x"}]}, "messages[1].tool_call_id"),
    ({"messages": [user("a"), {"role": "function", "name": "f", "content": "x"}]}, "messages[1].name"),
    (
        {"messages": [user("a"), {"role": "assistant", "tool_calls": [{"id": "a"}]}]},
        "messages[1].tool_calls[0].function",
    ),
    ({"messages": [user("a"), {"role": "assistant", "tool_calls": {}}]}, "messages[1].tool_calls"),
    ({"messages": [{"role": "system", "content": [PARTS[1][0]]}]}, "messages[0].content"),
]


@pytest.mark.parametrize(("body", "param"), ERRORS)
def test_an_error_names_the_field(body, param):
    with pytest.raises(InvalidRequestError) as caught:
        normalise(body)
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "assistant", "audio": {"id": "a"}}, "messages[0].audio"),
        (
            {"role": "assistant", "tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "x", "input": "y"}}]},
            "messages[0].tool_calls[0].custom",
        ),
    ],
)
def test_what_no_dialect_has_is_refused(message, param):
    with pytest.raises(UnsupportedParameterError) as caught:
        conversation(message)
    assert caught.value.param == param


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
WORDS = st.sampled_from(
    ["role", "content", "user", "assistant", "tool", "system", "function", "a", "b", "text", "type"]
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool", "system", "developer", "function"])},
        optional={
            "content": JSONS | st.lists(st.sampled_from([part for part, _ in PARTS]), max_size=3),
            "tool_calls": JSONS | st.just(calls("a", "b")["tool_calls"]),
            "function_call": st.just({"name": "a", "arguments": "{}"}) | JSONS,
            "tool_call_id": WORDS,
            "name": WORDS,
            "reasoning_details": JSONS,
            "reasoning_content": JSONS,
            "cache_control": JSONS,
        },
    ),
    max_size=8,
)


@given(MESSAGES)
@settings(max_examples=100, deadline=None)
def test_any_messages_become_a_regular_conversation_or_a_clean_error(messages):
    made, error = attempt({"messages": messages})
    if error is not None:
        assert error.param
        return
    roles = [turn.role for turn in made.turns]
    assert all(one != two for one, two in zip(roles, roles[1:], strict=False))
    for turn in made.turns:
        assert turn.parts or turn.role == "user"
        results = [isinstance(part, ToolResult) for part in turn.parts]
        assert results == sorted(results, reverse=True)
        assert all(part.text for part in turn.parts if isinstance(part, Text | Refusal))


@given(JSONS)
@settings(max_examples=50, deadline=None)
def test_any_json_at_all_is_read_or_refused_cleanly(value):
    for body in (
        {"messages": value},
        {"messages": [value]},
        {"messages": [user(value)]},
        {"messages": [user([value])]},
    ):
        made, error = attempt(body)
        assert made or error.param


@given(JSONS)
@settings(max_examples=50, deadline=None)
def test_json_written_exactly_is_read_back_the_same(value):
    assert loads_exact(dumps_exact(value)) == value


# tools -----------------------------------------------------------------------------------------------------------

FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {"a": {}}}, "strict": True}


def test_functions_of_both_forms_are_read_alike():
    new = tools_of({"tools": [{"type": "function", "function": FUNCTION}]})[0]
    old = tools_of({"functions": [FUNCTION]})[0]
    assert (new.name, new.description, new.parameters, new.strict) == ("f", "d", FUNCTION["parameters"], True)
    assert (old.name, old.description, old.parameters, old.strict) == ("f", "d", FUNCTION["parameters"], True)
    assert wants_legacy({"functions": [FUNCTION]})
    assert not wants_legacy({"functions": [FUNCTION], "tools": [1]})


@pytest.mark.parametrize(
    ("schema", "made"),
    [
        (None, {"type": "object", "properties": {}}),
        ({}, {"type": "object", "properties": {}}),
        ({"type": "object"}, {"type": "object", "properties": {}}),
        ({"z": 1, "properties": {"a": {}}}, {"z": 1, "properties": {"a": {}}, "type": "object"}),
    ],
)
def test_a_schema_gets_an_object_at_its_root_and_keeps_its_order(schema, made):
    assert json.dumps(object_schema(schema)) == json.dumps(made)


def test_custom_tools_are_refused_and_native_ones_kept_only_if_wanted():
    native = {"type": "web_search_20250305", "name": "web_search"}
    for tool in ({"type": "custom", "custom": {"name": "x"}}, native):
        with pytest.raises(UnsupportedParameterError) as caught:
            tools_of({"tools": [tool]})
        assert caught.value.param == "tools[0]"
    assert tools_of({"tools": [native]}, native=True)[0].native == native


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, ("auto", None, None)),
        ({"tool_choice": "none"}, ("none", None, None)),
        ({"tool_choice": "required"}, ("required", None, None)),
        ({"tool_choice": {"type": "function", "function": {"name": "f"}}}, ("named", "f", None)),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {
                        "mode": "required",
                        "tools": [{"type": "function", "function": {"name": "f"}}, {"name": "g"}],
                    },
                }
            },
            ("required", None, ("f", "g")),
        ),
        ({"function_call": "none"}, ("none", None, None)),
        ({"function_call": {"name": "f"}}, ("named", "f", None)),
    ],
)
def test_every_form_of_the_choice_is_read(body, expected):
    choice = tool_choice_of(body)
    assert (None if choice is None else (choice.mode, choice.name, choice.allowed)) == expected


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        ("sometimes", "tool_choice"),
        ({"type": "x"}, "tool_choice.type"),
        ({"type": "function"}, "tool_choice.function.name"),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "none", "tools": [{}]}}, "tool_choice.allowed_tools.mode"),
        ({"type": "allowed_tools", "allowed_tools": {"tools": []}}, "tool_choice.allowed_tools.tools"),
    ],
)
def test_a_wrong_choice_names_the_field(choice, param):
    with pytest.raises(InvalidRequestError) as caught:
        tool_choice_of({"tool_choice": choice})
    assert caught.value.param == param


@given(st.text(), st.integers(1, 40))
def test_a_tool_id_is_kept_or_becomes_one_that_fits_always_the_same(tool_id, length):
    """wire 3.57"""
    pattern = re.compile(r"[a-zA-Z0-9_-]{1,64}")
    made = sanitise_tool_id(tool_id, pattern, length)
    assert pattern.fullmatch(made)
    assert made == sanitise_tool_id(tool_id, pattern, length)
    assert made == tool_id if pattern.fullmatch(tool_id) else len(made) == length


# memory ----------------------------------------------------------------------------------------------------------


def test_the_least_recently_used_is_forgotten_first():
    memory = Memory(entries_max=2)
    memory.remember("a", [1])
    memory.remember("b", [2])
    assert memory.recall("a") == [1]
    memory.remember("c", [3])
    assert (memory.recall("a"), memory.recall("b"), memory.recall("c")) == ([1], None, [3])


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.text(max_size=60))))
def test_the_memory_never_grows_beyond_its_bounds(entries):
    memory = Memory(entries_max=4, bytes_max=400)
    for key, value in entries:
        memory.remember(key, value)
        assert len(memory) <= 4
        assert 0 <= memory.size_bytes <= 400
        assert memory.recall(key) in (value, None)


def test_a_value_that_would_push_out_much_else_is_not_kept():
    memory = Memory(bytes_max=800)
    memory.remember("a", "x" * 200)
    assert memory.recall("a") is None


def test_numbers_that_json_does_not_have_are_null_beside_integers_of_any_size():
    value = {"a": [float("inf"), float("nan"), 2**70, {"b": -float("inf")}], "c": 1.5}
    assert dumps_exact(value) == b'{"a":[null,null,%d,{"b":null}],"c":1.5}' % 2**70
    assert dumps_exact({"a": float("inf")}) == b'{"a":null}', "as where all numbers are small"
