"""The commands that look at, correct or end a running Bursar, and those that only write files."""

import importlib
import json
import os
import signal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from proxy import pidfile
from proxy.__main__ import COMMANDS, main
from proxy.cli.top import BAR_CHARS, bar
from proxy.recording import scrubbed
from tests.cli_runs import Shell, shell_of, written
from tests.sidecars import HELLO, PROVIDER_KEY, config_text, house, serving

TOKEN = "admin-0123456789abcdef0123456789"
FILE = 'budgets: [{subject: "user:alice", usd: 1, period: day}, {subject: "team:lab", requests: 100, period: rolling:30d}]\n'


@pytest.fixture
async def h(store, tmp_path):
    async with house(store, tmp_path, more=FILE) as found:
        yield found


def help_of(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main([*words, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


VERBS = {
    "key": ["create", "list", "show", "rotate", "revoke"],
    "budget": ["set", "get", "list", "adjust", "remove"],
    "prices": ["show", "check", "update"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_there_and_its_help_has_an_example(name, capsys):
    importlib.import_module(f"proxy.cli.{name}")
    for words in ([name], *([name, verb] for verb in VERBS.get(name, ()))):
        assert f"bursar {' '.join(words)}" in help_of(words, capsys).split("example", 1)[1], words


def test_a_command_that_is_not_there_is_misuse(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["spend"])
    assert ended.value.code == 2


# doctor


def states(ran):
    return {row["name"]: row["state"] for row in ran.json}


async def test_doctor_finds_nothing_wrong_with_a_running_house(h, capsys, tmp_path):
    os.chmod(h.sidecar.config.store.data_dir, 0o700)
    shell = shell_of(capsys, tmp_path, h)
    ran = await shell.beside("doctor", "--network", "--json")
    assert "bad" not in states(ran).values(), ran.out
    assert ran.code == 0
    assert {"store", "store latency", "store eviction", "clock", "token ranks", "price table", "reach fake"} <= states(
        ran
    ).keys()
    assert PROVIDER_KEY not in ran.out


async def test_doctor_names_the_remedy_of_each_thing_that_is_wrong(own_store, capsys, tmp_path):
    await own_store.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    await own_store.command("CONFIG", "SET", "appendonly", "no")
    (tmp_path / "data").mkdir(mode=0o755)
    os.chmod(tmp_path / "data", 0o755)
    providers = 'providers: {near: {kind: openai, base_url: "http://127.0.0.1:1/v1"}}'
    path = written(tmp_path, own_store, providers=providers, models='models: {"*": near/*}')
    ran = await Shell(capsys, path).beside("doctor", "--network", "--json")
    assert ran.code == 1
    found = {row["name"]: row for row in ran.json}
    for name in ("store eviction", "data_dir", "reach near"):
        assert found[name]["state"] == "bad", name
        assert found[name]["remedy"]
    assert found["store settings"]["state"] == "note"
    text = (await Shell(capsys, path).beside("doctor")).out
    assert "-> CONFIG SET maxmemory-policy noeviction" in text
    assert "reach near" not in text  # without --network nothing is connected to


def test_doctor_says_that_the_store_is_away(capsys, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text('store: {url: "redis://127.0.0.1:1/0"}\nproviders: {fake: {kind: fake}}\n')
    ran = Shell(capsys, path)("doctor", "--json")
    assert (ran.code, states(ran)["store"]) == (1, "bad")


def test_doctor_shows_what_is_wrong_with_the_configuration(capsys, tmp_path):
    (tmp_path / "x.yaml").write_text("listn: 127.0.0.1:8080\nproviders: {openai: {kind: openai, api_keys: []}}\n")
    ran = Shell(capsys, tmp_path / "x.yaml")("doctor", "--json")
    assert (ran.code, [row["state"] for row in ran.json]) == (1, ["bad", "bad"])
    assert "nearest valid key: listen" in ran.out


# top


async def test_top_shows_budgets_and_the_latest_calls(h, capsys, tmp_path):
    await h.chat()
    await h.settled()
    shell = shell_of(capsys, tmp_path, h)
    text = (await shell.beside("top", "--once")).out
    assert "user:alice" in text
    assert "alice  fake/gpt-4o  ok  $0.0" in text
    seen = (await shell.beside("top", "--json")).json
    assert {row["subject"] for row in seen["budgets"]} == {"user:alice", "team:lab"}
    assert len(seen["records"]) == 1


@given(st.integers(0, 10**15), st.integers(0, 10**15), st.integers(0, 10**15))
def test_a_bar_has_its_width_and_is_full_only_when_nothing_is_left(used, held, limit):
    drawn = bar(used, held, limit)
    assert len(drawn) == BAR_CHARS
    assert (drawn == "#" * BAR_CHARS) == (used >= limit)
    assert ("#" in drawn) == (used > 0 or limit == 0)


# reconcile


async def test_counters_equal_their_records_and_an_adjustment_explains_itself(h, capsys, tmp_path):
    for _ in range(3):
        await h.chat()
    await h.settled()
    shell = shell_of(capsys, tmp_path, h)
    await shell.beside("budget", "adjust", "alice", "--usd", "0.25", "--reason", "elsewhere")
    ran = await shell.beside("reconcile", "--json")
    assert ran.code == 0
    found = {row["subject"]: row for row in ran.json}
    assert found["user:alice"]["adjusted"] == 0.25
    assert found["user:alice"]["recorded"] > 0
    assert found["team:lab"]["used"] == found["team:lab"]["recorded"] == 3
    assert all(row["difference"] == 0 and row["explained"] for row in ran.json)


async def test_a_counter_that_somebody_changed_is_found(h, capsys, tmp_path):
    await h.chat()
    await h.settled()
    store = h.sidecar.store
    name = next(key for key in await store.call("KEYS", store.key("b", "user:alice*")))
    await store.call("HINCRBY", name, "used", 7)
    ran = await shell_of(capsys, tmp_path, h).beside("reconcile", "--json")
    row = next(row for row in ran.json if row["subject"] == "user:alice")
    assert (ran.code, row["explained"]) == (1, False)
    assert row["difference"] == pytest.approx(7e-9)


async def test_a_hold_that_is_counted_but_not_there_is_found(h, capsys, tmp_path):
    await h.chat()
    await h.settled()
    store = h.sidecar.store
    name = next(key for key in await store.call("KEYS", store.key("b", "user:alice*")))
    await store.call("HINCRBY", name, "held", 100)
    ran = await shell_of(capsys, tmp_path, h).beside("reconcile")
    assert ran.code == 1
    assert "the open holds sum to 0" in ran.out


async def test_a_budget_younger_than_its_calls_is_explained(h, capsys, tmp_path):
    await h.chat()
    await h.settled()
    shell = shell_of(capsys, tmp_path, h)
    await shell.beside("budget", "set", "alice", "--tokens", "10k/month")
    await h.chat()
    await h.settled()
    ran = await shell.beside("reconcile", "--json")
    row = next(row for row in ran.json if row["unit"] == "tokens")
    assert (ran.code, row["causes"]) == (0, ["the budget is younger than 1 of these calls"])
    assert 0 < row["used"] < row["recorded"]


# drain


@pytest.mark.parametrize("how", ["SIGTERM", "admin"])
async def test_drain_ends_a_running_proxy_and_waits_for_it(store, tmp_path, capsys, how):
    path = tmp_path / "bursar.yaml"
    text = config_text(store, tmp_path / "data", "http://127.0.0.1:1")
    path.write_text(text)
    environ = {"BURSAR_ADMIN_TOKEN": TOKEN} if how == "admin" else {}
    async with serving(path, environ=environ) as running:
        assert pidfile.running(tmp_path / "data") == running.process.pid
        if how == "admin":  # the command finds the listener by the configuration: give it the port that was taken
            path.write_text(
                text.replace(
                    'ops: {listen: "127.0.0.1:0"}', f'ops: {{listen: "{running.ops_url[7:]}", admin_token: {TOKEN}}}'
                )
            )
        ran = await Shell(capsys, path).beside("drain", "--timeout", "20")
        assert (ran.code, ran.err) == (0, "")
        assert f"drained ({'admin listener' if how == 'admin' else 'SIGTERM'}" in ran.out
        assert await running.ended() == 0
    again = await Shell(capsys, path).beside("drain")
    assert again.code == 1
    assert "nothing runs with data_dir" in again.err


async def test_drain_says_when_it_is_still_there(store, tmp_path, capsys):
    path = written(tmp_path, store)
    with pidfile.held(tmp_path / "data") as mine:  # this process, which takes SIGTERM and stays
        assert mine
        took = []
        before = signal.signal(signal.SIGTERM, lambda *_: took.append(1))
        try:
            ran = await Shell(capsys, path).beside("drain", "--timeout", "0.3")
        finally:
            signal.signal(signal.SIGTERM, before)
    assert (ran.code, took) == (1, [1])
    assert "still there after 0.3 s" in ran.err


def test_a_stale_pid_file_is_not_believed(tmp_path, capsys, store):
    path = written(tmp_path, store)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / pidfile.NAME).write_text(f"{os.getpid()}\n")
    assert Shell(capsys, path)("drain").code == 1


def test_the_second_process_on_a_directory_does_not_take_the_file(tmp_path):
    with pidfile.held(tmp_path) as first, pidfile.held(tmp_path) as second:
        assert (first, second) == (True, False)
        assert pidfile.running(tmp_path) == os.getpid()
    assert pidfile.running(tmp_path) is None


# record


@pytest.mark.parametrize("stream", [False, True])
async def test_a_recorded_call_has_both_requests_and_the_bytes_but_no_secret(h, capsys, tmp_path, stream):
    out = tmp_path / "case.json"
    request = {"messages": [*HELLO, {"role": "user", "content": f"{PROVIDER_KEY} org-AbCdEfGh1234"}]}
    (tmp_path / "r.json").write_text(json.dumps(request))
    words = [
        "record",
        "--provider",
        "fake",
        "--model",
        "fake-1",
        "--file",
        str(tmp_path / "r.json"),
        "-o",
        str(out),
        *(["--stream"] if stream else []),
    ]
    assert (await shell_of(capsys, tmp_path, h).beside(*words)).code == 0
    text = out.read_text()
    assert PROVIDER_KEY not in text
    assert "AbCdEfGh1234" not in text
    case = json.loads(text)
    assert set(case) == {"id", "provider", "upstream_format", "kinds", "endpoint", "request", "response"}
    assert case["request"]["native"]["model"] == "fake-1"
    assert case["response"]["status"] == 200
    assert case["response"]["body_kind"] == ("sse" if stream else "json")
    assert case["response"]["body_text"].endswith("data: [DONE]\n\n" if stream else "}")
    assert "authorization" not in case["response"]["headers"]
    assert await h.balances() == {("user:alice", "usd"): (0, 0), ("team:lab", "requests"): (0, 0)}


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("a hunter2-hunter2 b", "a scrubbed b"),
        ("org-AbCdEfGh1234", "org-scrubbed"),
        ("arn:aws:bedrock:us-east-1:123456789012:model/x", "arn:aws:bedrock:us-east-1:000000000000:model/x"),
        ("/v1/projects/my-project-1/locations", "/v1/projects/scrubbed/locations"),
        ("sk-proj-0123456789abcdefghij", "scrubbed"),
        ("a project and an organisation", "a project and an organisation"),
    ],
)
def test_what_names_an_account_is_scrubbed(text, left):
    assert scrubbed(text, ["hunter2", "hunter2-hunter2"]) == left


# prices


def test_prices_of_every_configured_model_are_checked(tmp_path, capsys, store):
    models = 'models: {a: fake/priced, b: fake/unpriced, "*": fake/*}'
    shell = Shell(
        capsys, written(tmp_path, store, models=models, more='prices: {"fake/priced": {input: 0.1, output: 0.3}}')
    )
    ran = shell("prices", "check", "--json")
    assert (ran.code, ran.json["missing"], ran.json["open"], ran.json["priced"]) == (1, ["fake/unpriced"], ["*"], 1)
    shown = shell("prices", "show", "a", "--json").json[0]
    assert (shown["provider"], shown["model"], shown["input"], shown["output"], shown["from"]) == (
        "fake",
        "priced",
        "0.1",
        "0.3",
        "config",
    )
    assert shell("prices", "show", "gpt-4o", "--provider", "openai").code == 0
    assert shell("prices", "show", "no-such-model-xyz").code == 1
    assert shell("prices", "show", "--provider", "nobody").code == 2


GENAI = [{"id": "openai", "models": [
    {"id": "gpt-4o", "match": {"or": [{"equals": "GPT-4o"}]}, "prices": [
        {"prices": {"input_mtok": {"base": 3, "tiers": [{"start": 1000, "price": "9.123456789"}]}, "output_mtok": 12, "cache_read_mtok": 1.5}},
    ]},
]}]  # fmt: skip


def test_newer_prices_become_overrides_that_the_configuration_takes(tmp_path, capsys, store):
    providers, models = (
        "providers: {openai: {kind: openai, api_keys: [k-0123456789]}}",
        "models: {gpt-4o: openai/gpt-4o}",
    )
    path = written(tmp_path, store, providers=providers, models=models)
    (tmp_path / "data.json").write_text(json.dumps(GENAI))
    ran = Shell(capsys, path)("prices", "update", "--from", str(tmp_path / "data.json"))
    assert ran.code == 0
    assert yaml.safe_load(ran.out) == {
        "prices": {"openai/gpt-4o": {"input": 9.123457, "output": 12, "cached_input": 1.5}}
    }
    path.write_text(path.read_text() + ran.out)
    assert Shell(capsys, path)("prices", "show", "gpt-4o", "--json").json[0]["input"] == "9.123457"
    assert yaml.safe_load(Shell(capsys, path)("prices", "update", "--from", str(tmp_path / "data.json")).out) == {
        "prices": {}
    }


def test_the_table_that_ships_changes_no_price(tmp_path, capsys, store):
    from importlib import resources

    providers = "providers: {openai: {kind: openai, api_keys: [k-0123456789]}, claude: {kind: anthropic, api_keys: [k-0123456789]}}"
    models = "models: {a: openai/gpt-4o, b: claude/claude-sonnet-4-5, c: openai/gpt-5}"
    shell = Shell(capsys, written(tmp_path, store, providers=providers, models=models))
    with resources.as_file(resources.files("accounting.prices").joinpath("table.json")) as file:
        for more in ([], ["--dearest"]):
            ran = shell("prices", "update", "--from", str(file), *more)
            assert (yaml.safe_load(ran.out), ran.err) == ({"prices": {}}, "")
