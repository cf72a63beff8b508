"""The configuration that the environment alone makes, and which place is read first."""

import os
import pathlib
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config.check import check
from proxy.config.environment import PROVIDER_VARIABLES, from_environment, names_of_provider_variables
from proxy.config.load import load, load_environment
from proxy.config.problem import ConfigError

KEY = "f00dbabe" * 4
BASE = {"OPENAI_API_KEY": KEY}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def config_of(**variables):
    return load_environment(variables).config


def problems_of(**variables):
    with pytest.raises(ConfigError) as caught:
        load_environment(variables)
    return [str(each) for each in caught.value.problems]


def test_with_a_key_alone_everyone_is_let_through_without_a_limit_on_loopback():
    config = config_of(**BASE)
    assert (config.auth.mode, config.listen, config.keys, config.budgets, config.limits) == (
        "none",
        "127.0.0.1:8080",
        (),
        (),
        (),
    )
    assert config.store.url.reveal() == "embedded"
    assert config.models == {"*": "openai/*"}
    assert not config.ops.admin_token


PROVIDERS = [
    ({"OPENAI_API_KEY": KEY}, "openai", {"kind": "openai", "base_url": None}),
    (
        {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "http://h:1/v1/"},
        "openai",
        {"base_url": "http://h:1/v1"},
    ),
    ({"OPENAI_BASE_URL": "http://h:1/v1"}, "openai", {"api_keys": (), "base_url": "http://h:1/v1"}),
    (
        {"OPENAI_API_KEY": KEY, "OPENAI_ORG_ID": "o", "OPENAI_PROJECT_ID": "p"},
        "openai",
        {"organization": "o", "project": "p"},
    ),
    ({"ANTHROPIC_API_KEY": KEY}, "anthropic", {"kind": "anthropic"}),
    ({"GOOGLE_AI_API_KEY": KEY}, "gemini", {"kind": "gemini"}),
    ({"GEMINI_API_KEY": KEY}, "gemini", {"kind": "gemini"}),
    ({"XAI_API_KEY": KEY}, "xai", {"kind": "xai"}),
    (
        {"AZURE_OPENAI_API_KEY": KEY, "AZURE_OPENAI_ENDPOINT": "https://h/"},
        "azure",
        {"base_url": "https://h", "api_version": "2024-10-21"},
    ),
    ({"AWS_BEARER_TOKEN_BEDROCK": KEY, "AWS_REGION": "r"}, "bedrock", {"region": "r", "access_key_id": None}),
    (
        {"GOOGLE_APPLICATION_CREDENTIALS": "f.json", "GOOGLE_CLOUD_PROJECT": "p"},
        "vertex",
        {"credentials_file": "f.json", "project": "p", "location": "us-central1"},
    ),
]


@pytest.mark.parametrize(("variables", "name", "fields"), PROVIDERS, ids=["+".join(row[0]) for row in PROVIDERS])
def test_a_provider_comes_from_the_variables_of_its_own_sdk(variables, name, fields):
    config = config_of(**variables)
    assert list(config.providers) == [name]
    assert config.models == {"*": f"{name}/*"}
    assert {field: getattr(config.providers[name], field) for field in fields} == fields


def test_the_keys_of_aws_are_taken_together():
    config = config_of(
        AWS_ACCESS_KEY_ID="AKX", AWS_SECRET_ACCESS_KEY=KEY, AWS_SESSION_TOKEN="t" + KEY, AWS_REGION="us-east-1"
    )
    provider = config.providers["bedrock"]
    assert [each.reveal() for each in (provider.access_key_id, provider.secret_access_key, provider.session_token)] == [
        "AKX",
        KEY,
        "t" + KEY,
    ]


def test_google_ai_api_key_goes_before_gemini_api_key():
    provider = config_of(GOOGLE_AI_API_KEY="first" + KEY, GEMINI_API_KEY="second" + KEY).providers["gemini"]
    assert [key.reveal() for key in provider.api_keys] == ["first" + KEY]


def test_with_several_providers_names_find_their_own():
    models = config_of(OPENAI_API_KEY=KEY, ANTHROPIC_API_KEY=KEY, GEMINI_API_KEY=KEY, XAI_API_KEY=KEY).models
    assert models["gpt-*"] == "openai/gpt-*"
    assert models["o3*"] == "openai/o3*"
    assert models["claude-*"] == "anthropic/claude-*"
    assert models["gemini-*"] == "gemini/gemini-*"
    assert models["grok-*"] == "xai/grok-*"
    assert models["anthropic/*"] == "anthropic/*"
    assert models["*"] == "openai/*"


def test_a_vendor_goes_before_who_resells_it():
    models = config_of(
        GEMINI_API_KEY=KEY,
        AZURE_OPENAI_API_KEY=KEY,
        AZURE_OPENAI_ENDPOINT="https://h",
        GOOGLE_APPLICATION_CREDENTIALS="f",
    ).models
    assert (models["gpt-*"], models["gemini-*"], models["claude-*"]) == (
        "azure/gpt-*",
        "gemini/gemini-*",
        "vertex/claude-*",
    )


STORES = [
    ({}, "embedded"),
    ({"REDIS_URL": "rediss://u:p@h:1/2"}, "rediss://u:p@h:1/2"),
    ({"REDIS_URL": "redis://h", "REDIS_HOST": "other"}, "redis://h"),
    ({"REDIS_URL": "", "REDIS_HOST": "h"}, "redis://h:6379/0"),
    (
        {"REDIS_HOST": "h", "REDIS_PORT": "7000", "REDIS_PASSWORD": "p@ss/:word", "REDIS_DB": "3"},
        "redis://:p%40ss%2F%3Aword@h:7000/3",
    ),
    ({"REDIS_HOST": "::1"}, "redis://[::1]:6379/0"),
    ({"REDIS_PORT": "7000", "REDIS_PASSWORD": "p"}, "embedded"),
    ({"REDIS_PORT": "tcp://10.0.0.1:6379"}, "embedded"),
    ({"REDIS_HOST": "h", "REDIS_PORT": "tcp://10.0.0.1:7001"}, "redis://h:7001/0"),
]


@pytest.mark.parametrize(("variables", "url"), STORES)
def test_the_store_comes_from_the_environment(variables, url):
    store = config_of(**BASE, **variables).store
    assert store.url.reveal() == url
    assert "p@ss" not in repr(store)
    assert "p%40ss" not in repr(store)


def test_the_other_variables_have_their_place():
    loaded = load_environment(
        BASE
        | {
            "LLM_DEFAULT_MODEL": "gpt-4o",
            "LLM_DEFAULT_TEMPERATURE": "0.7",
            "LLM_MAX_TOKENS": "500",
            "LLM_TIMEOUT": "30",
            "LOG_LEVEL": "WARN",
            "LOG_FORMAT": "JSON",
            "BURSAR_ADMIN_TOKEN": KEY,
        }
    )
    config, defaults = loaded.config, loaded.defaults
    assert (defaults.model, defaults.temperature, defaults.max_tokens) == ("gpt-4o", 0.7, 500)
    assert (config.admission.default_max_output, config.timeouts.total_s, config.timeouts.first_token_s) == (
        500,
        30,
        30,
    )
    assert (config.log.level, config.log.format) == ("warning", "json")
    assert config.ops.admin_token.reveal() == KEY


WRONG = [
    ({"OPENAI_BASE_URL": "localhost:1"}, "environment: OPENAI_BASE_URL: wants a URL"),
    (
        {"OPENAI_BASE_URL": "http://localhost:8080/v1"},
        "environment: OPENAI_BASE_URL: leads back to Bursar's own data listener",
    ),
    (
        {"OPENAI_BASE_URL": "http://127.0.0.1:9090/v1"},
        "environment: OPENAI_BASE_URL: leads back to Bursar's own ops listener",
    ),
    ({"OPENAI_API_KEY": KEY + "\n"}, "environment: OPENAI_API_KEY: has white space at an end"),
    ({"AZURE_OPENAI_API_KEY": KEY}, "environment: AZURE_OPENAI_ENDPOINT: is not set"),
    ({"AZURE_OPENAI_ENDPOINT": "https://h"}, "environment: AZURE_OPENAI_API_KEY: is not set"),
    (
        {"AWS_ACCESS_KEY_ID": KEY, "AWS_REGION": "r"},
        "environment: AWS_ACCESS_KEY_ID: needs access_key_id and secret_access_key",
    ),
    (BASE | {"REDIS_URL": "postgres://h"}, "environment: REDIS_URL: wants embedded"),
    (BASE | {"REDIS_HOST": "h", "REDIS_PORT": "x"}, "environment: REDIS_PORT: wants a port"),
    (BASE | {"REDIS_HOST": "h", "REDIS_DB": "-1"}, "environment: REDIS_DB: wants a whole number"),
    (BASE | {"LLM_TIMEOUT": "nan"}, "environment: LLM_TIMEOUT: wants a number of seconds"),
    (BASE | {"LLM_MAX_TOKENS": "0"}, "environment: LLM_MAX_TOKENS: must be at least 1"),
    (BASE | {"LLM_DEFAULT_TEMPERATURE": "inf"}, "environment: LLM_DEFAULT_TEMPERATURE: wants a number from 0 to 2"),
    (BASE | {"LOG_LEVEL": "loud"}, "environment: LOG_LEVEL: wants one of debug"),
    (BASE | {"LOG_FORMAT": "xml"}, "environment: LOG_FORMAT: wants one of text"),
    (BASE | {"BURSAR_ADMIN_TOKEN": "short"}, "environment: BURSAR_ADMIN_TOKEN: is shorter than 16"),
]


@pytest.mark.parametrize(("variables", "message"), WRONG, ids=[row[1] for row in WRONG])
def test_a_wrong_variable_is_named(variables, message):
    problems = problems_of(**variables)
    assert len(problems) == 1
    assert problems[0].startswith(message)


def test_nothing_in_the_environment_names_the_fix():
    assert problems_of() == ["environment: no provider is configured; set OPENAI_API_KEY, or run `bursar init`"]


def test_aws_variables_without_a_region_are_for_something_else():
    assert list(config_of(**BASE, AWS_ACCESS_KEY_ID=KEY, AWS_SECRET_ACCESS_KEY=KEY).providers) == ["openai"]


def test_make_run_sees_which_provider_variables_are_set():
    assert names_of_provider_variables({"PATH": "/bin", "OPENAI_API_KEY": ""}) == []
    assert names_of_provider_variables({name: "x" for name in PROVIDER_VARIABLES}) == list(PROVIDER_VARIABLES)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*PROVIDER_VARIABLES, "REDIS_URL", "REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD", "LLM_TIMEOUT", "LOG_LEVEL", "AWS_REGION"]),
        st.text(max_size=30),
    )
)  # fmt: skip
def test_any_values_make_a_configuration_or_findings(variables):
    found = from_environment(variables)
    assert found.config.auth.mode == "none"
    if found.config.providers and not found.findings and not check(found.config):
        assert list(load_environment(variables).config.providers) == list(found.config.providers)
    else:
        assert problems_of(**variables)


# which place is read


def file_in(folder, name, tenant):
    path = folder / name
    path.write_text(f"tenant: {tenant}\nproviders: {{a: {{kind: fake}}}}\n")
    return str(path)


def test_c_goes_before_the_variable_before_the_folder_before_the_environment(tmp_path):
    assert load(None, BASE).source == "environment"
    file_in(tmp_path, "bursar.yaml", "folder")
    assert load(None, BASE).config.tenant == "folder"
    named = file_in(tmp_path, "named.yaml", "variable")
    assert load(None, {"BURSAR_CONFIG": named}).config.tenant == "variable"
    given_file = file_in(tmp_path, "given.yaml", "given")
    loaded = load(given_file, {"BURSAR_CONFIG": named})
    assert (loaded.config.tenant, loaded.source) == ("given", given_file)


def test_a_file_that_is_named_but_absent_is_not_replaced_by_another(tmp_path):
    file_in(tmp_path, "bursar.yaml", "folder")
    with pytest.raises(ConfigError, match="none.yaml: cannot be read"):
        load(None, {"BURSAR_CONFIG": "none.yaml"})


def test_the_real_environment_is_read_when_none_is_given(tmp_path):
    code = "from proxy.config.load import load; print(load().config.providers)"
    root = str(pathlib.Path(__file__).parent.parent)
    variables = {"PATH": os.environ["PATH"], "PYTHONPATH": root, "XAI_API_KEY": KEY}
    out = subprocess.run(
        [sys.executable, "-c", code], env=variables, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "xai" in out.stdout
    assert KEY not in out.stdout + out.stderr
