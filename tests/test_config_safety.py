"""No secret in any text, and no bytes that crash, hang or swell the reading."""

import json
import time

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.config import tree
from proxy.config.decode import Decoder
from proxy.config.describe import describe
from proxy.config.leaves import StoreURL
from proxy.config.model import Config
from proxy.config.problem import ConfigError
from tests.config_files import BASE, BOUNDED, GOOD, config_of, loaded_or_error, problems_of


def quirks_of(text, provider):
    reports = []
    root = tree.read_tree(text, {}, lambda *report: reports.append(report))
    config = Decoder(lambda *report: reports.append(report)).decode(root, Config, ())
    assert reports == []
    return config.providers[provider].quirks


def secrets_everywhere(secret):
    return (
        f"ops: {{admin_token: {secret}}}\nstore: {{url: 'redis://u:{secret}@h:1/0'}}\n"
        f"providers:\n"
        f"  a: {{kind: openai, api_keys: [{secret}], headers: {{x: {secret}}}, proxy: 'http://u:{secret}@p'}}\n"
        f"  b: {{kind: bedrock, region: r, access_key_id: {secret}, secret_access_key: {secret}, session_token: {secret}}}\n"
        f"  c: {{kind: vertex, project: p, location: l, access_token: {secret}}}\n"
        f"keys: [{{id: k, secret: {secret}}}]\n"
        f"alerts: {{webhook: 'https://h/{secret}', secret: {secret}}}\n"
    )


def test_no_secret_is_in_any_repr():
    config = config_of(secrets_everywhere(GOOD))
    assert config.providers["b"].secret_access_key.reveal() == GOOD
    assert GOOD not in repr(config) + str(config) + f"{config}" + repr(describe(config))
    assert str(config.store.url) == "redis://***@h:1/0"
    assert str(StoreURL("redis://h:1/0?password=x")) == "redis://h:1/0"


@pytest.mark.parametrize(
    "character", ["'%s'", '"%s\\n"', '"%s\\u00e9"', "[%s]", "{%s: 1}", "*%s", "!%s x", "&%s", "'%s", "%s: %s"]
)
def test_no_secret_is_in_any_message(character):
    text = secrets_everywhere(character.replace("%s", GOOD)) + "zzz: 1\n"
    assert GOOD not in "\n".join(map(str, problems_of(text)))
    for field in ("listen", "tenant", "auth", "models", "budgets", "log", "limits", "timeouts", "prices"):
        for value in (
            GOOD,
            f"[{GOOD}]",
            f"{{{GOOD}: {GOOD}}}",
            f"{{mode: {GOOD}, level: {GOOD}, connect: {GOOD}, x: {GOOD}/y}}",
        ):
            found = loaded_or_error(BASE + f"{field}: {value}")
            assert not isinstance(found, ConfigError) or GOOD not in str(found)


FRAGMENTS = st.sampled_from(
    [
        "listen",
        "providers",
        "budgets",
        "keys",
        "models",
        ": ",
        "\n",
        "  ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        "'",
        '"',
        "&a ",
        "*a",
        "<<",
    ]
    + [
        "${A}",
        "${",
        "!!int ",
        "kind: openai",
        "usd",
        "1e-3",
        ".nan",
        "~",
        "user:a",
        "|\n",
        "? ",
        "#",
        "\t",
        "%YAML 1.1\n",
        "---\n",
        "\ufeff",
    ]
)


@BOUNDED
@given(st.one_of(st.binary(max_size=200), st.lists(FRAGMENTS, max_size=40).map(lambda parts: "".join(parts).encode())))
@example(b"&a [*a]")
@example(b"&a {<<: *a}")
@example(b"? &a [x]\n: *a")
@example(b"{? }")
@example(b"%TAG ! !\n---\n")
def test_any_bytes_load_or_are_a_config_error(data):
    found = loaded_or_error(data, {"A": "b"})
    if isinstance(found, ConfigError):
        assert found.problems
        assert all(each.line >= 1 and each.column >= 1 and each.message for each in found.problems)
    else:
        assert found.config.providers


@BOUNDED
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.sampled_from(list(Config.__struct_fields__)), inner, max_size=4), max_leaves=12))  # fmt: skip
def test_any_value_anywhere_loads_or_is_a_config_error(value):
    for name in ("providers", "models", "budgets", "keys", "server", "passthrough", "prices"):
        found = loaded_or_error(json.dumps({name: value}))
        assert not isinstance(found, ConfigError) or found.problems


def bomb(levels):
    lines = ["providers:", " p:", "  kind: fake", "  quirks:", "   a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"   a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        bomb(12),
        "[" * 500_000,
        "{a: " * 200_000,
        "- " * 400_000,
        "a: [" + "x, " * 300_000 + "]",
        "? " * 300_000,
        "'" + "x" * 900_000,
    ],
    ids=["aliases", "lists", "mappings", "blocks", "long", "keys", "open"],
)
def test_a_bomb_is_refused_at_once(text):
    start = time.monotonic()
    assert problems_of(text)
    assert time.monotonic() - start < 5


def test_what_aliases_repeat_is_counted():
    assert "counting what aliases repeat" in problems_of(bomb(6))[0].message
    assert quirks_of(bomb(3), "p")["a1"] == [["x"] * 10] * 10


@pytest.mark.parametrize("loader", [yaml.SafeLoader, tree._Loader])
@pytest.mark.parametrize(
    "text", ["a: !%s!x y", "a: *%s", "a: &%s", "%%TAG ! %s", "a: '%s", "a: b: %s", "a: [%s", "--- %s\n%s: ["]
)
def test_no_parser_quotes_the_file(monkeypatch, loader, text):
    monkeypatch.setattr(tree, "_Loader", loader)
    assert GOOD not in "\n".join(map(str, problems_of(text.replace("%s", GOOD))))
