"""`bursar key`: the secret is shown once, and a running proxy follows every change on its next call."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.minting import is_minted, new_secret
from tests.cli_runs import Shell, shell_of, written
from tests.sidecars import KEY, house

DAY_MS = 86_400_000


@pytest.fixture
def bursar(capsys, tmp_path, store):
    return Shell(capsys, written(tmp_path, store))


@pytest.fixture
async def h(store, tmp_path):
    async with house(store, tmp_path) as found:
        yield found


def test_a_key_is_made_listed_and_shown_but_its_secret_only_once(bursar):
    made = bursar(
        "key", "create", "laptop", "--user", "alice", "--team", "lab", "--tags", "a,b", "--models", "fake-1", "--json"
    )
    assert made.code == 0
    row = made.json
    secret = row.pop("secret")
    assert is_minted(secret)
    assert (row["user"], row["team"], row["tags"], row["models"], row["source"]) == (
        "alice",
        "lab",
        ["a", "b"],
        ["fake-1"],
        "stored",
    )
    for words in (
        ("key", "list"),
        ("key", "list", "--json"),
        ("key", "show", "laptop"),
        ("key", "show", "laptop", "--json"),
    ):
        again = bursar(*words)
        assert again.code == 0
        assert "laptop" in again.out
        assert secret not in again.out + again.err
    assert json.loads(bursar("key", "show", "laptop", "--json").out) == row


def test_on_the_terminal_the_secret_is_the_only_line_of_standard_output(bursar):
    made = bursar("key", "create", "x")
    assert re.fullmatch(r"sk-bursar-[0-9A-Za-z]{49}\n", made.out)
    assert "shown this once" in made.err


async def test_the_store_never_holds_a_secret(store, capsys, tmp_path):
    shell = Shell(capsys, written(tmp_path, store))
    secret = (await shell.beside("key", "create", "x")).out.strip()
    for name in await store.command("KEYS", "*"):
        assert secret.encode() not in bytes(await store.command("DUMP", name))


async def test_a_running_proxy_takes_a_new_key_and_refuses_a_revoked_one_on_the_very_next_call(h, capsys, tmp_path):
    shell = shell_of(capsys, tmp_path, h)
    secret = (await shell.beside("key", "create", "new", "--user", "nina")).out.strip()
    assert (await h.chat(key=secret)).status == 200
    assert (await shell.beside("key", "revoke", "new")).code == 0
    assert (await h.chat(key=secret)).status == 401
    row = (await shell.beside("key", "show", "new", "--json")).json
    assert row["state"] == "revoked"
    assert row["revoked_at"].startswith("20")


async def test_rotated_with_grace_both_secrets_speak_for_the_same_key(h, capsys, tmp_path):
    shell = shell_of(capsys, tmp_path, h)
    old = (await shell.beside("key", "create", "r", "--user", "nina")).out.strip()
    new = (await shell.beside("key", "rotate", "r", "--grace", "1h")).out.strip()
    assert old != new
    for secret in (old, new):
        assert (await h.chat(key=secret)).status == 200
    await h.settled()
    assert {(record["key"], record["user"]) for record in await h.records()} == {("r", "nina")}
    rows = (await shell.beside("key", "list", "--json")).json
    assert [row["id"] for row in rows] == ["r", "alice-laptop"]  # the old secret is no key of its own
    assert len(rows[0]["old_secrets_until"]) == 1
    assert (await shell.beside("key", "revoke", "r")).code == 0
    for secret in (old, new):
        assert (await h.chat(key=secret)).status == 401


async def test_rotated_without_grace_the_old_secret_ends_at_once(h, capsys, tmp_path):
    shell = shell_of(capsys, tmp_path, h)
    old = (await shell.beside("key", "create", "r")).out.strip()
    new = (await shell.beside("key", "rotate", "r")).out.strip()
    assert (await h.chat(key=old)).status == 401
    assert (await h.chat(key=new)).status == 200


async def test_a_files_key_is_listed_as_such_and_ends_only_by_a_stored_one_of_its_id(h, capsys, tmp_path):
    shell = shell_of(capsys, tmp_path, h)
    assert [(r["id"], r["source"]) for r in (await shell.beside("key", "list", "--json")).json] == [
        ("alice-laptop", "file")
    ]
    for verb in ("revoke", "rotate"):
        refused = await shell.beside("key", verb, "alice-laptop")
        assert refused.code == 1
        assert "is in the file" in refused.err
        assert "takes its place" in refused.err
    assert (await h.chat(key=KEY)).status == 200
    made = await shell.beside("key", "create", "alice-laptop", "--user", "alice")
    assert "takes the place of the file's key" in made.err
    assert (await h.chat(key=KEY)).status == 401
    assert (await h.chat(key=made.out.strip())).status == 200


def test_revoking_again_keeps_the_first_time_and_the_id_is_never_given_out_again(bursar):
    bursar("key", "create", "x")
    first = bursar("key", "revoke", "x", "--json").json
    assert bursar("key", "revoke", "x", "--json").json == first
    again = bursar("key", "create", "x")
    assert again.code == 1
    assert "was revoked at" in again.err
    assert bursar("key", "rotate", "x").code == 1


@pytest.mark.parametrize(("text", "days"), [("30d", 30), ("2w", 14), ("24h", 1)])
def test_an_expiry_is_a_span_from_now(bursar, text, days):
    row = bursar("key", "create", "x", "--expires", text, "--json").json
    from datetime import datetime

    created, expires = (datetime.fromisoformat(row[name]) for name in ("created_at", "expires_at"))
    assert abs((expires - created).total_seconds() - days * 86400) <= 1


def test_an_expiry_may_be_a_day_or_never(bursar):
    assert (
        bursar("key", "create", "a", "--expires", "2090-01-01", "--json").json["expires_at"] == "2090-01-01T00:00:00Z"
    )
    assert bursar("key", "create", "b", "--expires", "never", "--json").json["expires_at"] is None


MISUSE = [
    (("key",), "VERB"),
    (("key", "create", "a/b"), "wants letters"),
    (("key", "create", "a~1"), "wants letters"),
    (("key", "create", ""), "ID is empty"),
    (("key", "create", "x", "--expires", "soon"), "--expires"),
    (("key", "create", "x", "--expires", "2001-01-01"), "is over already"),
    (("key", "create", "x", "--expires", "0d"), "--expires"),
    (("key", "create", "x", "--models", "no-such-model-*"), None),
    (("key", "create", "x", "--user-from", "cookie:x"), "header:x-bursar-user"),
    (("key", "create", "x", "--user", " "), "user"),
    (("key", "rotate", "x", "--grace", "a while"), "--grace"),
    (("key", "frobnicate"), "invalid choice"),
]


@pytest.mark.parametrize(("words", "says"), MISUSE, ids=[" ".join(words) for words, _ in MISUSE])
def test_misuse_ends_with_2_and_one_sentence(capsys, tmp_path, store, words, says):
    models = "models: {fake-1: fake/fake-1}"
    ran = Shell(capsys, written(tmp_path, store, models=models))(*words)
    assert ran.code == 2
    assert ran.out == ""
    assert says is None or says in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("verb", ["show", "rotate", "revoke"])
def test_a_key_that_is_not_there_is_said_no(bursar, verb):
    ran = bursar("key", verb, "nobody")
    assert (ran.code, ran.err) == (1, f"bursar key {verb}: there is no key nobody: `bursar key list` names all\n")


def test_commands_work_with_nothing_but_a_directory(capsys, tmp_path, monkeypatch):
    from proxy.config.environment import PROVIDER_VARIABLES

    for name in (*PROVIDER_VARIABLES, "BURSAR_CONFIG", "REDIS_URL", "REDIS_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    shell = Shell(capsys)
    assert shell("key", "create", "x", "--user", "alice").code == 0
    assert [row["id"] for row in shell("key", "list", "--json").json] == ["x"]  # the server ended, its file did not
    assert (tmp_path / ".bursar").stat().st_mode & 0o077 == 0


def test_an_unreachable_store_is_one_sentence_without_its_password(capsys, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text('store: {url: "redis://:hunter2hunter2@127.0.0.1:1/0"}\nproviders: {fake: {kind: fake}}\n')
    ran = Shell(capsys, path)("key", "list")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("bursar key list: the store (redis://***@127.0.0.1:1/0) cannot be used: ")
    assert ran.err.count("\n") == 1
    assert "hunter2" not in ran.err


@given(st.integers(0, 58), st.sampled_from("0aZ~"))
def test_a_mistyped_secret_is_told_from_a_real_one(place, other):
    secret = new_secret()
    assert is_minted(secret)
    wrong = secret[:place] + other + secret[place + 1 :]
    assert is_minted(wrong) == (wrong == secret)
