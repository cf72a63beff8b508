"""The tables of presets and quirks are whole, right in form, and can be overridden row by row."""

import json
from dataclasses import fields
from urllib.parse import urlsplit

import orjson
import pytest

from adapters.base import Endpoint
from adapters.presets import PRESETS
from adapters.quirks import TABLE, Quirks, check, is_openai, quirks_of
from adapters.registry import make_adapter
from tests.lane import call

NAMES = {
    "mistral", "groq", "deepseek", "openrouter", "together", "fireworks", "cerebras", "perplexity", "huggingface", "alibaba",
    "moonshotai", "zai", "nvidia", "ollama", "vllm", "lmstudio",
}  # fmt: skip
LOCAL = {"ollama", "vllm", "lmstudio"}


def endpoint(preset=None, kind="openai", **fields):
    base = PRESETS[preset].base_url if preset else "http://x/v1"
    return Endpoint(**{"name": "p", "kind": kind, "base_url": base, "preset": preset, **fields})


def test_the_presets_are_those_of_the_design():
    assert PRESETS.keys() == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_preset_has_an_address_a_key_and_known_quirks(name):
    row = PRESETS[name]
    url = urlsplit(row.base_url)
    assert not row.base_url.endswith("/")
    assert (url.scheme, url.hostname == "127.0.0.1") == (("http", True) if name in LOCAL else ("https", False))
    assert (row.key_env is None) == (name in LOCAL)
    check(row.quirks)
    assert not is_openai(row.base_url)
    request = make_adapter(endpoint(name)).exchange(call({"model": "some-model"}, output_limit=7)).request
    assert request.url == row.base_url + "/chat/completions"
    body = orjson.loads(request.body)
    assert [body.get("max_tokens"), body.get("max_completion_tokens")].count(7) == 1


def test_an_endpoint_overrides_its_preset_one_quirk_at_a_time():
    quirks = quirks_of(endpoint("mistral", quirks={"tool_id": "any"}))
    assert (quirks.tool_id, quirks.stream_options) == ("any", "needless")


def test_every_quirk_has_a_meaning_and_a_default():
    assert TABLE.keys() == {each.name for each in fields(Quirks) if each.init}
    assert all(meaning for _, meaning in TABLE.values())


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"limit": 1}, "unknown quirk 'limit'"),
        ({"limit_field": "max"}, "must be one of"),
        ({"limit_field": []}, "must be one of"),
        ({"developer_role": "no"}, "must be true or false"),
        ({"drop": "user"}, "must be a list"),
        ({"drop": [1]}, "must be a list"),
        ({"rename": ["a"]}, "must map"),
        ({"rename": {"a": 1}}, "must map"),
    ],
)
def test_a_wrong_quirk_is_named_with_what_it_may_be(row, problem):
    with pytest.raises(ValueError, match=problem):
        quirks_of(endpoint(quirks=row))


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("https://api.openai.com/v1", True), ("https://eu.api.openai.com/v1", True), ("https://API.OpenAI.com", True),
        ("https://api.openai.com.evil.org/v1", False), ("https://evil.org/api.openai.com", False), ("http://127.0.0.1:1/v1", False),
        ("https://api.x.ai/v1", False), ("https://r.openai.azure.com", False),
    ],
)  # fmt: skip
def test_only_openais_own_address_is_openais(url, own):
    assert is_openai(url) is own


@pytest.mark.parametrize("kind", ["xai", "azure"])
def test_a_kind_has_quirks_of_its_own(kind):
    quirks = quirks_of(endpoint(kind=kind))
    assert quirks.limit_field == "max_completion_tokens"
    assert json.dumps([quirks.reasoning_apart, quirks.fill_first_chunk]) == json.dumps([kind == "xai", kind == "azure"])
