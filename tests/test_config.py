"""The configuration file: what a good one becomes."""

import datetime as dt
import re

import msgspec
import pytest
import yaml

from adapters.credentials.base import Secret
from adapters.presets import PRESETS
from proxy.config import tree
from proxy.config.check_spending import units_of
from proxy.config.decode import Decoder
from proxy.config.describe import describe
from proxy.config.expand import expand
from proxy.config.load import load
from proxy.config.model import Config, Passthrough, Spread, Target, spread_of
from proxy.config.problem import dotted
from proxy.config.providers import FIELDS_OF_KIND, KINDS, PRESET_NAMES, Provider
from proxy.config.routes import default_models
from proxy.config.schema import schema
from tests.config_files import BASE, EXAMPLE, GOOD, config_of, problems_of

VARIABLES = {
    name: f"{GOOD}{index}"
    for index, name in enumerate(
        "OPENAI_API_KEY ANTHROPIC_API_KEY GEMINI_API_KEY AZURE_OPENAI_API_KEY XAI_API_KEY GROQ_API_KEY ALICE_KEY".split()
    )
} | {"SHOP_KEY_SHA256": "ab" * 32}


def test_the_smallest_file_has_every_default_of_the_design():
    config = config_of(BASE)
    assert (config.listen, config.ops.listen, config.tenant, config.auth.mode) == (
        "127.0.0.1:8080",
        "127.0.0.1:9090",
        "default",
        "keys",
    )
    store = config.store
    assert (store.url.reveal(), store.data_dir, store.prefix, store.deadline_ms) == (
        "embedded",
        ".bursar",
        "bursar",
        250,
    )
    assert msgspec.to_builtins(config.admission) == {
        "min_completion": 256,
        "unbounded_share": 0.25,
        "default_max_output": 4096,
        "unknown_price": "refuse",
    }
    assert msgspec.to_builtins(config.timeouts) == {
        "connect": 3,
        "tls": 5,
        "first_token": 120,
        "idle": 60,
        "total": 1200,
        "write_stall": 60,
    }
    assert msgspec.to_builtins(config.retries) == {"attempts": 2, "budget": 0.1}
    assert msgspec.to_builtins(config.server) == {
        "max_body": 32 * 2**20,
        "max_connections": 1000,
        "max_in_flight": 256,
        "queue": 64,
        "queue_seconds": 2,
        "header_seconds": 10,
        "body_seconds": 30,
        "drain_seconds": 600,
        "keepalive_comment": 15,
    }
    assert (config.cache.mode, config.cache.seconds) == ("off", 300)
    assert (config.passthrough, config.callbacks, config.alerts.webhook) == ((), (), None)
    assert (config.log.level, config.log.format) == ("info", "text")
    assert config.models == {"*": "openai/*"}


def test_the_example_file_loads_and_names_every_setting():
    loaded = load(str(EXAMPLE), VARIABLES)
    config = loaded.config
    assert config.budgets[0].nanousd == 5_000_000_000
    assert config.budgets[5].starts == dt.date(2026, 11, 5)
    assert config.prices["local/*"].input_nanousd == 100_000_000
    assert config.models["spread"].targets == (Target(to="openai/gpt-4o", weight=3), Target(to="azure/gpt-4o"))
    assert config.keys[0].secret.reveal() == VARIABLES["ALICE_KEY"]
    assert config.passthrough == (Passthrough(path="/v1/moderations", provider="openai", nanousd=0),)
    assert missing_from_example() == set()


def missing_from_example():
    text = EXAMPLE.read_text()
    names = {
        name
        for each in schema()["$defs"].values()
        for name in each.get("properties", {})
        if not re.search(rf"\b{name}:", text)
    }
    return names - {"secret"}


def test_the_example_says_the_defaults_that_the_code_has():
    stated = yaml.safe_load(EXAMPLE.read_text().replace("mode: off", "mode: 'off'"))
    config = config_of(BASE)
    for section in ("store", "auth", "admission", "timeouts", "retries", "cache", "alerts", "log"):
        ours = msgspec.to_builtins(getattr(config, section), enc_hook=lambda secret: secret.reveal())
        assert stated[section] == ours, section
    assert stated["server"].pop("max_body") == "32MiB"
    assert stated["server"].items() <= msgspec.to_builtins(config.server).items()


def test_words_are_taken_as_they_are_written():
    config = config_of(
        "cache: {mode: off}\ntenant: no\n"
        "providers: {a: {kind: azure, base_url: https://a.example, api_keys: [1234567890e5], api_version: 2024-10-21}}\n"
        "models: {on: a/5, 1: a/yes}"
    )
    assert (config.cache.mode, config.tenant, config.models) == ("off", "no", {"on": "a/5", "1": "a/yes"})
    assert config.providers["a"].api_version == "2024-10-21"
    assert config.providers["a"].api_keys[0].reveal() == "1234567890e5"


def test_an_empty_section_is_its_default():
    config = config_of(BASE + "keys:\nbudgets: ~\nops:\nserver: null\nlog: {level: }\ntimeouts:\n  # nothing\n")
    assert (config.keys, config.budgets, config.server.queue, config.log.level) == ((), (), 64, "info")


def quirks_of(text, provider):
    reports = []
    root = tree.read_tree(text, {}, lambda *report: reports.append(report))
    config = Decoder(lambda *report: reports.append(report)).decode(root, Config, ())
    assert reports == []
    return config.providers[provider].quirks


def test_quirks_are_typed_as_yaml_types_them():
    text = BASE.replace("}}", ", quirks: {a: true, b: 5, c: '5', d: [1.5, x, ~], e: {f: off}, g: 1e9999, h: .inf}}}")
    quirks = quirks_of(text, "openai")
    assert quirks == {"a": True, "b": 5, "c": "5", "d": [1.5, "x", None], "e": {"f": "off"}, "g": "1e9999", "h": ".inf"}


def test_anchors_and_merge_keys_work():
    text = (
        BASE
        + "budgets:\n  - &b {subject: 'user:a', usd: 1, period: day, mode: soft}\n  - {<<: *b, subject: 'user:b', usd: 2}\n"
    )
    one, two = config_of(text).budgets
    assert (one.subject, one.nanousd, two.subject, two.nanousd, two.mode) == (
        "user:a",
        10**9,
        "user:b",
        2 * 10**9,
        "soft",
    )


@pytest.mark.parametrize(
    ("entry", "targets", "balance"),
    [
        ("openai/a", ("openai/a",), "ordered"),
        (("openai/a", "openai/b"), ("openai/a", "openai/b"), "ordered"),
        (Spread(balance="weighted", targets=(Target(to="openai/a", weight=3),)), ("openai/a",), "weighted"),
    ],
)
def test_a_model_entry_has_one_full_form(entry, targets, balance):
    spread = spread_of(entry)
    assert (tuple(target.to for target in spread.targets), spread.balance) == (targets, balance)


def test_only_the_first_slash_of_a_target_splits():
    assert config_of(BASE + "models: {x: openai/org/model/y}").models == {"x": "openai/org/model/y"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${A}", "one"),
        ("x${A}y${A}", "xoneyone"),
        ("${B:-two}", "two"),
        ("${A:-two}", "one"),
        ("${EMPTY:-two}", "two"),
        ("${EMPTY}", ""),
        ("${B:-}", ""),
        ("${B:-a:-b}", "a:-b"),
        ("$$", "$"),
        ("$${A}", "${A}"),
        ("$$${A}", "$one"),
        ("$A costs $5", "$A costs $5"),
        ("${NESTED}", "${A}"),
    ],
)
def test_variables_expand(text, expected):
    result = expand(text, {"A": "one", "EMPTY": "", "NESTED": "${A}"})
    assert (result.text, result.failures) == (expected, ())


@pytest.mark.parametrize("text", ["${", "${A", "${}", "${1}", "${A-x}", "${A:?x}", "${A B}", "${A:x}"])
def test_a_malformed_reference_is_refused(text):
    assert "wants ${NAME}" in expand(text, {"A": "one"}).failures[0].message


def test_expansion_is_bounded():
    assert "expands to more than" in expand("${A}" * 1000, {"A": "x" * 1000}).failures[0].message


def test_a_value_cannot_become_structure():
    evil = "x, kind: fake}\nlisten: 0.0.0.0:1\n# ["
    config = config_of(
        "providers:\n  a:\n    kind: openai\n    base_url: http://h\n    headers: {x: '${E}'}\n", {"E": "a: b"}
    )
    assert config.providers["a"].headers["x"].reveal() == "a: b"
    assert [str(each) for each in problems_of("providers: {a: {kind: openai, api_keys: ['${E}']}}", {"E": evil})] == [
        "f.yaml:1:42: providers.a.api_keys[0]: has a character that cannot go into a header; give the real value, or leave it out"
    ]


@pytest.mark.parametrize("spelling", ["${N}", '"${N}"', "${M:-77}", "'${M:-77}'"])
def test_a_number_from_a_variable_is_a_number(spelling):
    assert config_of(BASE + f"server:\n  queue: {spelling}\n", {"N": "77"}).server.queue == 77


def test_a_variable_that_is_empty_leaves_the_default_where_it_is_plain():
    assert config_of(BASE + "server:\n  queue: ${N:-}\n").server.queue == 64


def test_an_admin_token_that_is_not_given_comes_from_its_variable():
    token = "a-token-of-some-length"
    variables = {"BURSAR_ADMIN_TOKEN": token}
    assert config_of(BASE, variables).ops.admin_token.reveal() == token
    assert config_of(BASE + "ops: {listen: 127.0.0.1:1}", variables).ops.admin_token.reveal() == token
    assert not config_of(BASE + "ops: {admin_token: ''}", variables).ops.admin_token


def test_presets_are_those_that_the_adapters_know():
    assert set(PRESET_NAMES) == set(PRESETS)


def test_every_field_of_a_provider_means_something_to_some_kind():
    fields = {field.encode_name for field in msgspec.structs.fields(Provider)}
    assert set().union(*FIELDS_OF_KIND.values()) == fields
    assert set(FIELDS_OF_KIND) == set(KINDS)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ({}, {}),
        ({"x": "xai"}, {"*": "x/*"}),
        (
            {"x": "xai", "c": "anthropic"},
            {"x/*": "x/*", "c/*": "c/*", "claude-*": "c/claude-*", "grok-*": "x/grok-*", "*": "x/*"},
        ),
    ],
)
def test_names_find_their_provider_when_no_models_are_given(kinds, expected):
    assert default_models(kinds) == expected


def test_rows_for_the_banner():
    text = (
        "providers:\n  a: {kind: openai, api_keys: [k]}\n  b: {preset: groq, api_keys: [k]}\n  c: {preset: ollama}\n"
        "  d: {kind: vertex, project: p, location: l}\n  e: {kind: openai, base_url: http://h:1/v1/}\n"
    )
    assert [tuple(row) for row in describe(config_of(text))] == [
        ("a", "openai", "ok", ""),
        ("b", "groq", "ok", "https://api.groq.com/openai/v1"),
        ("c", "ollama", "none", "http://127.0.0.1:11434/v1"),
        ("d", "vertex", "machine", ""),
        ("e", "openai", "none", "http://h:1/v1"),
    ]
    assert [row.key for row in describe(Config(providers={"a": Provider(kind="openai")}))] == ["missing"]


def test_units_of_a_budget_are_those_given():
    budget = config_of(BASE + "budgets: [{subject: 'user:a', usd: 0, requests: 0, period: day}]").budgets[0]
    assert units_of(budget) == ["usd", "requests"]


def test_paths_are_written_as_people_write_them():
    assert dotted(("budgets", 0, "usd")) == "budgets[0].usd"
    assert dotted(("prices", "local/*", "input")) == 'prices["local/*"].input'
    assert dotted(()) == ""


def test_a_secret_is_only_revealed_on_purpose():
    assert str(Secret("x")) == "***"
