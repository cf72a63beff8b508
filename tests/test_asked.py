"""The members of a request that few requests have are looked at wherever they are."""

import json

import pytest

from accounting.prices.table import MODEL_CHARS_MAX
from proxy.asked import read_request
from proxy.config.environment import CallDefaults
from proxy.errors import ClientError

MESSAGES = [{"role": "user", "content": "x"}]


def read(operation="chat", **body):
    given = {"chat": {"messages": MESSAGES}, "completions": {"prompt": "x"}}[operation]
    return read_request(operation, json.dumps({"model": "m", **given, **body}).encode(), CallDefaults())


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"max_tokens": 3}, {"limit": 3, "two_limits": False}),
        ({"max_tokens": 3, "max_completion_tokens": 2}, {"limit": 3, "two_limits": True}),
        ({"max_tokens": None, "max_completion_tokens": 2}, {"limit": 2, "two_limits": False}),
        ({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True, "show_usage": True}),
        ({"n": 3}, {"choices": 3}),
        ({"best_of": 4}, {"choices": 4}),
        ({"thinking": {"budget_tokens": 7}}, {"thinking": 7}),
        ({"reasoning": {"max_tokens": 8}}, {"thinking": 8}),
        ({"service_tier": "flex"}, {"service_tier": "flex"}),
        ({"tools": [{"type": "function"}, {"type": "web_search"}]}, {"unbounded": "tools[1]"}),
        *(
            ({name: {}}, {"unbounded": name})
            for name in (
                "web_search_options", "search_parameters", "plugins", "mcp_servers", "previous_response_id",
                "conversation", "prompt_template", "background", "audio", "container",
            )
        ),
    ],
    ids=lambda value: next(iter(value)),
)  # fmt: skip
def test_a_member_is_acted_on(body, found):
    usual = {
        "stream": False, "show_usage": False, "choices": 1, "limit": None, "two_limits": False, "thinking": 0,
        "service_tier": None, "unbounded": None,
    }  # fmt: skip
    asked = read(**body)
    assert {name: getattr(asked, name) for name in usual} == usual | found


def test_a_models_name_has_a_bound_since_much_is_kept_by_it():
    assert read(model="m" * MODEL_CHARS_MAX).model == "m" * MODEL_CHARS_MAX
    with pytest.raises(ClientError, match="at most") as refused:
        read(model="m" * (MODEL_CHARS_MAX + 1))
    assert (refused.value.status, refused.value.param) == (400, "model")


@pytest.mark.parametrize(
    ("prompt", "more", "choices"),
    [("x", {}, 1), (["x", "y"], {}, 2), ([1, 2], {}, 1), (["x", "y"], {"n": 2}, 4), ([], {}, 1)],
)
def test_each_of_several_prompts_is_answered_by_itself(prompt, more, choices):
    assert read("completions", prompt=prompt, **more).choices == choices


@pytest.mark.parametrize(
    ("value", "refused"),
    [
        (json.loads("[" * 63 + "]" * 63), False), (json.loads("[" * 64 + "]" * 64), True),
        (json.loads('{"a":[' * 31 + "{}" + "]}" * 31), False), (json.loads('{"a":[' * 32 + "]}" * 32), True),
        ([{"a": [{"b": "[{"}]}] * 500, False),
    ],
    ids=["63 arrays", "64 arrays", "63 of both", "64 of both", "many and flat"],
)  # fmt: skip
def test_a_body_is_refused_by_how_deep_it_is_and_not_by_how_many_brackets_it_has(value, refused):
    if not refused:
        assert read(metadata=value).body["metadata"] == value
        return
    with pytest.raises(ClientError) as error:
        read(metadata=value)
    assert "nested" in error.value.message
