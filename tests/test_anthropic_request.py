"""What reaches Claude: the body built from an OpenAI request, against the tables of wire 2.1."""

import json
from typing import Any

import pydantic
import pytest
from anthropic.types import message_create_params
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.base import Call, Endpoint, Media
from adapters.claude.exchange import ClaudeExchange
from adapters.claude.models import traits_of
from adapters.claude.request import TREATMENT
from adapters.errors import InvalidRequestError, UnsupportedParameterError
from adapters.memory import Memory
from adapters.providers.anthropic import AnthropicAdapter
from adapters.treatment import OPENAI_FIELDS
from tests import recorded
from tests.native_oracle import canonical, oracle_ids

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}
OTHER = {"type": "function", "function": {"name": "g"}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "r", "schema": SCHEMA}}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
PDF = "JVBERi0xLjEKJSVFT0YK"
OLD, NEW, NEWEST = "claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-5-5"

PARAMS = {
    streaming: pydantic.TypeAdapter(
        pydantic.with_config(pydantic.ConfigDict(extra="forbid", arbitrary_types_allowed=True))(kind)
    )
    for streaming, kind in (
        (True, message_create_params.MessageCreateParamsStreaming),
        (False, message_create_params.MessageCreateParamsNonStreaming),
    )
}


def adapter(**options: Any) -> AnthropicAdapter:
    return AnthropicAdapter(
        Endpoint(name="claude", kind="anthropic", base_url="https://api.anthropic.com", options=options)
    )


def call_of(body: dict[str, Any], **changes: Any) -> Call:
    body = {"messages": [{"role": "user", "content": "hi"}], "model": OLD, **body}
    fields: dict[str, Any] = {
        "raw": b"",
        "body": body,
        "upstream_model": body["model"],
        "stream": bool(body.get("stream")),
        "call_id": "req_1",
        "created": 1,
    }
    return Call(**{**fields, **changes})


def exchange(body: dict[str, Any], **changes: Any) -> Any:
    return adapter().exchange(call_of(body, **changes))


def sent(body: dict[str, Any], **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(exchange(body, **changes).request.body)
    # the SDK's types no longer know the sampling fields, which only its older models take
    known = {name: value for name, value in made.items() if name not in ("temperature", "top_p", "top_k")}
    PARAMS[bool(made.get("stream"))].validate_python(known)
    return made


def messages(*given: Any, **body: Any) -> list[Any]:
    return list(sent({"messages": list(given), **body})["messages"])


def text(content: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": content, **more}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any = None, *ids: str, **more: Any) -> dict[str, Any]:
    calls = [{"id": i, "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}} for i in ids]
    return {"role": "assistant", "content": content, **({"tool_calls": calls} if ids else {}), **more}


def result(call_id: str, content: Any = "done") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def use(call_id: str, **more: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": "f", "input": {"a": 1}, **more}


# the frame -------------------------------------------------------------------------------------------------------


def test_the_request_goes_to_messages_with_the_version_and_no_credentials():
    request = exchange({}).request
    assert request.url == "https://api.anthropic.com/v1/messages"
    assert dict(request.headers) == {"content-type": "application/json", "anthropic-version": "2023-06-01"}


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://r.services.ai.azure.com/anthropic", "https://r.services.ai.azure.com/anthropic/v1/messages"),
        ("http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1/messages"),
    ],
)
def test_other_hosts_of_the_same_api_keep_their_path(base, url):
    made = AnthropicAdapter(Endpoint(name="c", kind="anthropic", base_url=base))
    assert made.exchange(call_of({})).request.url == url


def test_betas_come_from_the_endpoint_and_from_the_client_each_once():
    made = adapter(anthropic_beta="a-1, b-2").exchange(call_of({"anthropic_beta": ["b-2", "c-3", "x\r\ny: z"]}))
    assert dict(made.request.headers)["anthropic-beta"] == "a-1,b-2,c-3"


def test_the_same_request_gives_the_same_bytes_and_never_changes_the_clients_body():
    """wire 3.74"""
    native = {"type": "web_search_20250305", "name": "w", "cache_control": {"type": "ephemeral"}}
    points = [text(str(n), cache_control={"type": "ephemeral"}) for n in range(6)]
    first = {**TOOL, "cache_control": {"type": "ephemeral"}}
    body = {"messages": [user(points)], "tools": [first, native]}
    before = json.dumps(body)
    assert exchange(body).request.body == exchange(json.loads(before)).request.body
    assert json.dumps(body) == before


def test_key_order_inside_schemas_is_kept():
    """wire 3.74"""
    schema = {"properties": {"z": {}, "a": {}}, "type": "object", "$defs": {"y": {}, "b": {}}}
    made = sent({"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]})
    assert json.dumps(made["tools"][0]["input_schema"]) == json.dumps(schema)


def test_on_vertex_the_body_names_no_model_and_puts_tools_and_system_before_the_messages():
    """wire 3.73"""
    call = call_of({"messages": [{"role": "system", "content": "s"}, user("hi")], "tools": [TOOL]})
    made = json.loads(ClaudeExchange(call, url="https://v", host="vertex", memory=Memory()).request.body)
    keys = list(made)
    assert "model" not in made
    assert made["anthropic_version"] == "vertex-2023-10-16"
    assert keys.index("tools") < keys.index("messages")
    assert keys.index("system") < keys.index("messages")


# messages --------------------------------------------------------------------------------------------------------

CONVERSATIONS = {
    "empty text beside calls is left out (wire 3.46)": (
        [user("x"), assistant("", "a"), result("a")],
        [
            user([text("x")]),
            {"role": "assistant", "content": [use("a")]},
            user([{"type": "tool_result", "tool_use_id": "a", "content": "done"}]),
        ],
    ),
    "white space alone is no block (wire 3.46)": (
        [user([text(" \n"), text("x")]), assistant("  ", "a"), result("a", "")],
        [
            user([text("x")]),
            {"role": "assistant", "content": [use("a")]},
            user([{"type": "tool_result", "tool_use_id": "a"}]),
        ],
    ),
    "a user turn that is empty holds a point": ([user("")], [user([text(".")])]),
    "a conversation begins with the user": (
        [assistant("x"), user("y")],
        [user([text(".")]), {"role": "assistant", "content": [text("x")]}, user([text("y")])],
    ),
    "only system messages still make a turn": ([{"role": "system", "content": "s"}], [user([text(".")])]),
    "results first and together (wire 3.47)": (
        [user("x"), assistant(None, "a", "b"), result("b", "2"), result("a", [text("1")]), user("y")],
        [
            user([text("x")]),
            {"role": "assistant", "content": [use("a"), use("b")]},
            user(
                [
                    {"type": "tool_result", "tool_use_id": "a", "content": "1"},
                    {"type": "tool_result", "tool_use_id": "b", "content": "2"},
                    text("y"),
                ]
            ),
        ],
    ),
    "a prefill loses its trailing white space (wire 3.90)": (
        [user("x"), assistant("The answer is: \n")],
        [user([text("x")]), {"role": "assistant", "content": [text("The answer is:")]}],
    ),
    "a refusal is text": (
        [user("x"), assistant(None, refusal="no"), user("y")],
        [user([text("x")]), {"role": "assistant", "content": [text("no")]}, user([text("y")])],
    ),
    "an older model gets a later system message as the user's text (wire 3.44)": (
        [user("x"), assistant("y"), {"role": "system", "content": "rhyme"}, user("z")],
        [user([text("x")]), {"role": "assistant", "content": [text("y")]}, user([text("rhyme"), text("z")])],
    ),
    "a system message between calls and results does not come between them": (
        [user("x"), assistant(None, "a"), {"role": "system", "content": "rhyme"}, result("a")],
        [
            user([text("x")]),
            {"role": "assistant", "content": [use("a")]},
            user([{"type": "tool_result", "tool_use_id": "a", "content": "done"}, text("rhyme")]),
        ],
    ),
    "cache points survive (wire 3.74)": (
        [
            user(
                [
                    text("x", cache_control={"type": "ephemeral", "ttl": "1h"}),
                    text("y", prompt_cache_breakpoint={"mode": "explicit"}),
                ]
            )
        ],
        [
            user(
                [
                    text("x", cache_control={"type": "ephemeral", "ttl": "1h"}),
                    text("y", cache_control={"type": "ephemeral"}),
                ]
            )
        ],
    ),
}


@pytest.mark.parametrize(("given", "made"), CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_a_conversation_becomes_what_claude_accepts(given, made):
    assert messages(*given) == made


def test_leading_system_and_developer_text_is_the_system_slot_as_blocks():
    """wire 3.45"""
    made = sent(
        {
            "messages": [
                {"role": "system", "content": [text("a", cache_control={"type": "ephemeral"})]},
                {"role": "developer", "content": "b"},
                user("x"),
            ]
        }
    )
    assert made["system"] == [text("a", cache_control={"type": "ephemeral"}), text("b")]


def test_a_newer_model_gets_a_later_system_message_in_place_where_its_rules_allow_it():
    """wire 3.44"""
    system = {"role": "system", "content": "rhyme"}
    model = "claude-opus-4-8"
    made = messages(user("x"), system, assistant("y"), system, user("z"), system, model=model)
    assert [message["role"] for message in made] == ["user", "system", "assistant", "user", "system"]
    assert made[3]["content"] == [text("rhyme"), text("z")]


def test_tool_ids_that_claude_forbids_are_rewritten_alike_in_call_and_result():
    """wire 3.57"""
    made = messages(user("x"), assistant(None, "call:1|a"), result("call:1|a"))
    new = made[1]["content"][0]["id"]
    assert new == made[2]["content"][0]["tool_use_id"] != "call:1|a"
    assert new.isalnum()


def test_large_integers_and_other_alphabets_in_arguments_arrive_unchanged():
    """wire 3.89"""
    raw = '{"z":9007199254740993,"a":"🦩","m":123456789012345678901234567890}'
    history = [
        user("x"),
        {
            "role": "assistant",
            "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": raw}}],
        },
        result("a", "grüße 🦩"),
    ]
    body = exchange({"messages": history}).request.body.decode()
    assert raw in body
    assert "grüße 🦩" in body


def test_at_most_four_cache_points_are_sent_and_the_loss_is_told():
    points = [text(str(n), cache_control={"type": "ephemeral"}) for n in range(6)]
    made = exchange({"messages": [user(points)]})
    blocks = json.loads(made.request.body)["messages"][0]["content"]
    assert [block["text"] for block in blocks if "cache_control" in block] == ["0", "3", "4", "5"]
    assert made.dropped == ("cache_control",)


MEDIA = {
    "image in a data URL, its type corrected (wire 3.56)": (
        {"type": "image_url", "image_url": {"url": f"data:image/jpg;base64,{PNG}", "detail": "low"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
    ),
    "image by https": (
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
    ),
    "image by http, fetched": (
        {"type": "image_url", "image_url": {"url": "http://x/y.gif"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": "R0lGODlh"}},
    ),
    "PDF with its name (wire 3.54)": (
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}", "filename": "a.pdf"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
            "title": "a.pdf",
        },
    ),
    "PDF as bare base64": (
        {"type": "file", "file": {"file_data": PDF}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": PDF}},
    ),
    "text file": (
        {"type": "file", "file": {"file_data": "data:text/csv;base64,YSxi", "filename": "a.csv"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a,b"}, "title": "a.csv"},
    ),
    "file of Anthropic's store": (
        {"type": "file", "file": {"file_id": "file_01"}},
        {"type": "document", "source": {"type": "file", "file_id": "file_01"}},
    ),
}


@pytest.mark.parametrize(("part", "block"), MEDIA.values(), ids=MEDIA)
def test_media_become_blocks_in_user_turns_and_in_tool_results(part, block):
    """wire 3.54: never lost, also inside tool messages"""
    media = {"http://x/y.gif": Media(mime="image/png", data=b"GIF89a")}
    made = sent({"messages": [user([part]), assistant(None, "a"), result("a", [part])]}, media=media)["messages"]
    assert made[0]["content"] == [block]
    assert made[2]["content"][0]["content"] == [block]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-abc"}},
        {"type": "file", "file": {"file_data": "data:application/zip;base64,UEsDBA=="}},
        {"type": "image_url", "image_url": {"url": "data:image/tiff;base64,SUkqAA=="}},
        {"type": "image_url", "image_url": {"url": "ftp://x/y"}},
    ],
)
def test_media_that_claude_cannot_take_are_refused_with_the_fields_name(part):
    with pytest.raises(InvalidRequestError) as caught:
        sent({"messages": [user("a"), user([part])]})
    assert str(caught.value.param).startswith("messages[1].content[0].")


def test_only_urls_that_the_host_cannot_fetch_are_asked_for():
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in ("https://a", "http://b", "http://b")]
    call = call_of({"messages": [user(parts), assistant(None, "a"), result("a", parts)]})
    assert adapter().wanted_media(call) == ("http://b",)
    assert adapter().wanted_media(call_of({"messages": 3})) == ()


# parameters ------------------------------------------------------------------------------------------------------

FIELDS = {
    "limit (wire 3.58)": ({"max_tokens": 7}, {"max_tokens": 7}),
    "the newer limit wins (wire 3.58)": ({"max_tokens": 7, "max_completion_tokens": 8}, {"max_tokens": 8}),
    "null is not given": ({"max_tokens": None, "n": None, "seed": None}, {"max_tokens": 64000}),
    "temperature is clamped": ({"temperature": 1.7}, {"temperature": 1}),
    "temperature and top_p exclude each other (wire 3.60)": (
        {"temperature": 0.5, "top_p": 0.9},
        {"temperature": 0.5, "top_p": None},
    ),
    "top_p alone": ({"top_p": 0.9}, {"top_p": 0.9}),
    "older models take both": (
        {"temperature": 0.5, "top_p": 0.9, "model": "claude-sonnet-4-0"},
        {"temperature": 0.5, "top_p": 0.9},
    ),
    "newer models take neither": (
        {"temperature": 0.5, "top_p": 0.9, "top_k": 3, "model": "claude-opus-4-7"},
        {"temperature": None, "top_p": None, "top_k": None},
    ),
    "stop as a string": ({"stop": "x"}, {"stop_sequences": ["x"]}),
    "stop without what is empty": ({"stop": ["", "a", " \n"]}, {"stop_sequences": ["a"]}),
    "stop of nothing": ({"stop": [""]}, {"stop_sequences": None}),
    "user": ({"user": "u"}, {"metadata": {"user_id": "u"}}),
    "safety identifier": ({"safety_identifier": "s", "user": "u"}, {"metadata": {"user_id": "s"}}),
    "native metadata": ({"metadata": {"user_id": "u"}}, {"metadata": {"user_id": "u"}}),
    "OpenAI's metadata": ({"metadata": {"a": "b"}}, {"metadata": None}),
    "tier auto": ({"service_tier": "auto"}, {"service_tier": "auto"}),
    "tier default": ({"service_tier": "default"}, {"service_tier": "standard_only"}),
    "tier flex": ({"service_tier": "flex"}, {"service_tier": None}),
    "stream": ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True}),
    "native fields": ({"top_k": 3, "container": "c"}, {"top_k": 3, "container": "c"}),
    "no tools": (
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": False},
        {"tools": None, "tool_choice": None},
    ),
    "web search": (
        {"web_search_options": {"user_location": {"type": "approximate", "approximate": {"city": "Bonn"}}}},
        {
            "tools": [
                {
                    "type": "web_search_20250305",
                    "name": "web_search",
                    "max_uses": 5,
                    "user_location": {"type": "approximate", "city": "Bonn"},
                }
            ]
        },
    ),
}


@pytest.mark.parametrize(("body", "made"), FIELDS.values(), ids=FIELDS)
def test_a_field_is_mapped(body, made):
    got = sent(body)
    assert {name: got.get(name) for name in made} == made


def test_the_grant_wins_over_the_clients_limit_and_over_the_models():
    assert sent({"max_tokens": 500}, output_limit=300)["max_tokens"] == 300
    assert sent({}, output_limit=300)["max_tokens"] == 300


@pytest.mark.parametrize(
    ("body", "dropped"),
    [
        ({"seed": 1, "logit_bias": {"1": 1}, "store": True}, ("seed", "logit_bias", "store")),
        ({"unheard_of": 1, "evil\r\nname": 2}, ("unheard_of", "unknown")),
        ({"temperature": 0.5, "top_p": 0.9}, ("top_p",)),
        ({"metadata": {"a": "b"}, "service_tier": "flex"}, ("metadata", "service_tier")),
        ({"n": 1, "logprobs": False, "modalities": ["text"]}, ()),
        ({"messages": [{"role": "user", "content": "x", "name": "Ann"}]}, ("messages.name",)),
    ],
)
def test_what_is_dropped_is_told(body, dropped):
    """wire 3.71"""
    assert exchange(body).dropped == dropped


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"n": 2}, "n"),
        ({"n": True}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"format": "wav", "voice": "x"}}, "audio"),
        ({"moderation": {"model": "m"}}, "moderation"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools[0]"),
        ({"tools": [TOOL], "tool_choice": {"type": "custom", "custom": {"name": "c"}}}, "tool_choice.custom"),
    ],
)
def test_what_cannot_be_honoured_is_refused(body, param):
    """wire 3.71"""
    with pytest.raises(UnsupportedParameterError) as caught:
        exchange(body)
    assert caught.value.param == param
    assert caught.value.body()["error"]["code"] == "unsupported_parameter"


def test_every_field_of_openai_has_exactly_one_treatment():
    """wire 3.71"""
    assert TREATMENT.complete
    assert len(OPENAI_FIELDS) == 37


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_completion_tokens": "x"}, "max_completion_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"stop": 3}, "stop"),
        ({"stop": [3]}, "stop"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"tools": 3}, "tools"),
        ({"web_search_options": 3}, "web_search_options"),
    ],
)
def test_a_wrong_value_names_the_field(body, param):
    with pytest.raises(InvalidRequestError) as caught:
        exchange(body)
    assert caught.value.param == param


# tools and answers in a form -------------------------------------------------------------------------------------

NAMED = {"type": "function", "function": {"name": "f"}}
CHOICES = {
    "open": ({}, None, ["f", "g"]),
    "auto": ({"tool_choice": "auto"}, {"type": "auto"}, ["f", "g"]),
    "required": ({"tool_choice": "required"}, {"type": "any"}, ["f", "g"]),
    "named": ({"tool_choice": NAMED}, {"type": "tool", "name": "f"}, ["f", "g"]),
    "none keeps the tools": ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}, ["f", "g"]),
    "one at a time": ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}, ["f", "g"]),
    "several": ({"parallel_tool_calls": True}, None, ["f", "g"]),
    "one allowed and required": (
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}},
        {"type": "tool", "name": "f"},
        ["f"],
    ),
    "one allowed": (
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}}},
        {"type": "auto"},
        ["f"],
    ),
}


@pytest.mark.parametrize(("body", "choice", "names"), CHOICES.values(), ids=CHOICES)
def test_the_choice_of_tools(body, choice, names):
    made = sent({"tools": [TOOL, OTHER], **body})
    assert made.get("tool_choice") == choice
    assert [tool["name"] for tool in made["tools"]] == names


def test_tools_are_described_in_claudes_words():
    tool = {
        "type": "function",
        "cache_control": {"type": "ephemeral"},
        "function": {**TOOL["function"], "strict": True},
    }
    assert sent({"tools": [tool, OTHER]})["tools"] == [
        {
            "name": "f",
            "description": "d",
            "input_schema": SCHEMA,
            "strict": True,
            "cache_control": {"type": "ephemeral"},
        },
        {"name": "g", "input_schema": {"type": "object", "properties": {}}},
    ]


def test_the_old_form_offers_tools_one_at_a_time():
    made = sent({"functions": [TOOL["function"]], "function_call": {"name": "f"}})
    assert made["tool_choice"] == {"type": "tool", "name": "f", "disable_parallel_tool_use": True}


def test_a_schema_for_the_answer_is_closed_and_its_limits_are_put_into_words():
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 3, "description": "a number"},
            "l": {"type": "array", "items": {"type": "object", "properties": {}}, "maxItems": 2},
        },
    }
    form = {"type": "json_schema", "json_schema": {"name": "r", "schema": schema}}
    assert sent({"response_format": form})["output_config"]["format"] == {
        "type": "json_schema",
        "schema": {
            "type": "object",
            "properties": {
                "n": {"type": "integer", "description": "a number (minimum: 3)"},
                "l": {
                    "type": "array",
                    "items": {"type": "object", "properties": {}, "additionalProperties": False},
                    "description": "maxItems: 2",
                },
            },
            "additionalProperties": False,
        },
    }


@pytest.mark.parametrize(
    ("body", "choice"),
    [
        ({}, {"type": "tool", "name": "json_answer", "disable_parallel_tool_use": True}),
        ({"tools": [TOOL]}, {"type": "any", "disable_parallel_tool_use": True}),
        (
            {"tools": [TOOL], "tool_choice": "none"},
            {"type": "tool", "name": "json_answer", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_an_older_model_is_made_to_call_a_tool_for_its_answer(body, choice):
    """wire 3.84"""
    made = sent({"model": "claude-sonnet-4-0", "response_format": FORMAT, **body})
    assert made["tool_choice"] == choice
    assert made["tools"][-1] == {
        "name": "json_answer",
        "description": "Gives the final answer.",
        "input_schema": SCHEMA,
    }
    assert "output_config" not in made


def test_a_schema_that_is_a_map_is_asked_for_by_a_tool_as_well():
    schema = {"type": "object", "properties": {}, "additionalProperties": {"type": "string"}}
    made = sent({"response_format": {"type": "json_schema", "json_schema": {"name": "r", "schema": schema}}})
    assert made["tools"][0]["input_schema"] == schema


def test_a_json_object_is_asked_for_in_a_line_of_the_system_text():
    made = sent(
        {"messages": [{"role": "system", "content": "s"}, user("x")], "response_format": {"type": "json_object"}}
    )
    assert [block["text"] for block in made["system"]] == ["s", "Answer with one JSON object and nothing else."]


# thinking --------------------------------------------------------------------------------------------------------

ADAPTIVE = {"type": "adaptive", "display": "summarized"}
OFF = {"type": "disabled"}


def budget(tokens: int) -> dict[str, Any]:
    return {"type": "enabled", "budget_tokens": tokens}


THINKING = {
    "not asked for": ({}, None, None),
    "budget": ({"reasoning_effort": "medium"}, budget(8192), None),
    "minimal": ({"reasoning_effort": "minimal"}, budget(1024), None),
    "none (wire 3.62)": ({"reasoning_effort": "none"}, OFF, None),
    "a budget leaves room for the answer": ({"reasoning_effort": "high", "max_tokens": 10000}, budget(8000), None),
    "a budget that just fits": ({"reasoning_effort": "high", "max_tokens": 1025}, budget(1024), None),
    "no room for a budget": ({"reasoning_effort": "high", "max_tokens": 1024}, OFF, None),
    "native budget": ({"thinking": budget(2000), "max_tokens": 4000}, budget(2000), None),
    "native budget above the limit": ({"thinking": budget(9000), "max_tokens": 4000}, budget(3200), None),
    "adaptive": ({"model": NEW, "reasoning_effort": "medium"}, ADAPTIVE, "medium"),
    "minimal is low": ({"model": NEW, "reasoning_effort": "minimal"}, ADAPTIVE, "low"),
    "an effort that the model lacks (wire 3.62)": ({"model": NEW, "reasoning_effort": "xhigh"}, ADAPTIVE, "high"),
    "an effort that it has": ({"model": "claude-opus-4-7", "reasoning_effort": "xhigh"}, ADAPTIVE, "xhigh"),
    "adaptive none": ({"model": NEW, "reasoning_effort": "none"}, OFF, None),
    "always on: none is the least": ({"model": NEWEST, "reasoning_effort": "none"}, None, "low"),
    "only between tools": ({"model": "claude-sonnet-5-5", "reasoning_effort": "none"}, {"type": "between_tools"}, None),
    "off needs a lower effort": (
        {"model": "claude-opus-5", "reasoning_effort": "none", "output_config": {"effort": "max"}},
        OFF,
        "high",
    ),
    "no thinking at all": ({"model": "claude-3-5-haiku-20241022", "reasoning_effort": "high"}, None, None),
    "a forced tool wins (wire 3.61)": (
        {"reasoning_effort": "high", "tools": [TOOL], "tool_choice": "required"},
        OFF,
        None,
    ),
    "a forced tool wins over what is on by itself": (
        {"model": "claude-opus-5", "tools": [TOOL], "tool_choice": NAMED},
        OFF,
        None,
    ),
    "a forced tool wins over native thinking": (
        {"thinking": budget(2000), "tools": [TOOL], "tool_choice": NAMED},
        OFF,
        None,
    ),
}


@pytest.mark.parametrize(("body", "thinking", "effort"), THINKING.values(), ids=THINKING)
def test_thinking(body, thinking, effort):
    made = sent(body)
    assert made.get("thinking") == thinking
    assert made.get("output_config", {}).get("effort") == effort


@given(
    st.sampled_from(["minimal", "low", "medium", "high", "xhigh", "max", "none", None]),
    st.integers(1, 40_000),
    st.integers(1, 40_000) | st.none(),
    st.integers(0, 50_000) | st.none(),
)
@settings(max_examples=50, deadline=None)
def test_a_budget_is_always_at_least_1024_and_below_the_limit(effort, limit, grant, native):
    """wire 3.58"""
    body = {"reasoning_effort": effort, "max_tokens": limit, **({"thinking": budget(native)} if native else {})}
    made = json.loads(exchange(body, output_limit=grant).request.body)
    assert made["max_tokens"] == (limit if grant is None else grant)
    thinking = made.get("thinking") or {}
    if thinking.get("type") == "enabled":
        assert thinking["budget_tokens"] >= min(1024, native or 1024)
        assert thinking["budget_tokens"] < made["max_tokens"]


def test_sampling_yields_to_thinking_and_is_told():
    made = exchange({"reasoning_effort": "low", "temperature": 0.3, "top_p": 0.5, "top_k": 4})
    assert {"temperature", "top_p", "top_k"} & json.loads(made.request.body).keys() == set()
    assert made.dropped == ("temperature", "top_p", "top_k")


DETAILS = [{"index": 0, "type": "reasoning.text", "text": "hm", "signature": "s1", "format": "anthropic-claude-v1"}]
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s1"}


@pytest.mark.parametrize(
    "echo",
    [
        {"reasoning_details": DETAILS},
        {"thinking_blocks": [THOUGHT]},
        {
            "reasoning_details": [
                {"type": "reasoning.text", "text": "x", "signature": "", "format": "anthropic-claude-v1"},
                *DETAILS,
            ]
        },
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "g", "format": "google-gemini-v1"}, *DETAILS]},
    ],
)
def test_echoed_thoughts_go_back_before_their_call(echo):
    """wire 3.50"""
    made = sent({"reasoning_effort": "low", "messages": [user("x"), assistant("so", "a", **echo), result("a")]})
    assert made["messages"][1]["content"] == [THOUGHT, text("so"), use("a")]
    assert made["thinking"] == budget(1024)


@pytest.mark.parametrize("model", [OLD, NEW, "claude-opus-5"])
def test_a_tool_loop_whose_thoughts_are_lost_goes_on_without_thinking(model):
    """wire 3.50"""
    body = {"model": model, "reasoning_effort": "low", "messages": [user("x"), assistant(None, "a"), result("a")]}
    assert sent(body)["thinking"] == OFF
    assert exchange(body).dropped == ("reasoning_effort",)


def test_a_finished_tool_loop_does_not_keep_the_next_turn_from_thinking():
    history = [user("x"), assistant(None, "a"), result("a"), assistant("done"), user("next")]
    assert sent({"reasoning_effort": "low", "messages": history})["thinking"] == budget(1024)


def test_thoughts_are_left_out_where_thinking_is_off():
    made = sent({"messages": [user("x"), assistant(None, "a", reasoning_details=DETAILS), result("a")]})
    assert made["messages"][1]["content"] == [use("a")]


MODELS = [
    ("claude-3-haiku-20240307", 4096, "none"),
    ("claude-3-5-sonnet-20241022", 8192, "none"),
    ("claude-3-7-sonnet-latest", 64000, "budget"),
    ("claude-opus-4-20250514", 32000, "budget"),
    ("claude-opus-4@20250514", 32000, "budget"),
    ("us.anthropic.claude-opus-4-1-20250805-v1:0", 32000, "budget"),
    ("claude-sonnet-4-0", 64000, "budget"),
    ("claude-haiku-4-5-20251001", 64000, "budget"),
    ("claude-sonnet-4-6", 128000, "adaptive"),
    ("anthropic.claude-opus-4-6-v1", 128000, "adaptive"),
    ("claude-opus-5", 128000, "default"),
    ("claude-sonnet-5", 128000, "default"),
    ("claude-sonnet-5-5", 128000, "between"),
    ("claude-opus-5-5", 128000, "always"),
    ("claude-mythos-preview", 128000, "always"),
    ("claude-fable-5-2", 128000, "always"),
    ("claude-opus-9", 128000, "always"),
    ("claude-3.7-sonnet", 64000, "budget"),
    ("some-other-model", 8192, "budget"),
]


@pytest.mark.parametrize(("model", "output_max", "thinking"), MODELS)
def test_a_models_traits_are_read_out_of_any_hosts_name_for_it(model, output_max, thinking):
    traits = traits_of(model)
    assert (traits.output_max, traits.thinking) == (output_max, thinking)
    assert sent({"model": model})["max_tokens"] == output_max


# against recordings and at random ----------------------------------------------------------------------------------


@pytest.mark.skipif(not recorded.PRESENT, reason=recorded.ABSENT)
@pytest.mark.parametrize("case_id", oracle_ids("anthropic-messages"))
def test_a_recorded_request_is_built_again(case_id):
    case = recorded.load(case_id)
    made = json.loads(adapter().exchange(recorded.call_for(case)).request.body)
    native = dict(case["request"]["native"])
    if native.get("output_config") == {"effort": "xhigh"}:
        # recorded being refused: this model has no such effort, so the one below it is sent, and thinking with it
        assert (made.pop("output_config"), made.pop("thinking")) == ({"effort": "high"}, ADAPTIVE)
        del native["output_config"]
    assert canonical(made) == canonical(native)


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PLAIN: dict[str, Any] = {
    "tools": [TOOL, OTHER],
    "tool_choice": "required",
    "response_format": FORMAT,
    "reasoning_effort": "high",
    "thinking": budget(5000),
    "functions": [TOOL["function"]],
    "temperature": 1,
    "top_p": 1,
    "stop": ["a"],
    "max_tokens": 100,
    "metadata": {"a": "b"},
}
NAMES = sorted((OPENAI_FIELDS | TREATMENT.native | {"zzz"}) - {"model", "stream"})
BODIES = st.dictionaries(st.sampled_from(NAMES), JSONS, max_size=3).flatmap(
    lambda odd: st.sets(st.sampled_from(sorted(PLAIN)), max_size=5).map(
        lambda keys: {**{k: PLAIN[k] for k in keys}, **odd}
    )
)


@given(
    BODIES,
    st.sampled_from([OLD, NEW, NEWEST, "claude-sonnet-4-0", "claude-opus-5", "m"]),
    st.integers(1, 9999) | st.none(),
)
@settings(max_examples=100, deadline=None)
def test_any_request_is_translated_or_refused_with_the_fields_name(body, model, grant):
    try:
        made = exchange({"model": model, **body}, output_limit=grant)
    except InvalidRequestError as error:
        refused: InvalidRequestError | None = error
    else:
        refused = None
        assert json.loads(made.request.body)["messages"]
        assert all(name.isascii() and name.isprintable() for name in made.dropped)
    assert refused is None or refused.status == 400
