"""`bursar check` and `bursar init` as a person runs them."""

import argparse
import json
import re

import pytest

from proxy.cli import check, init
from proxy.config.load import load
from proxy.config.schema import schema

KEY = "f00dbabe" * 4
GOOD = f"providers: {{openai: {{kind: openai, api_keys: [{KEY}]}}}}\nbudgets: [{{subject: 'user:a', usd: 5, period: day}}]\n"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BURSAR_CONFIG", raising=False)
    for name in ("OPENAI_API_KEY", "ALICE_KEY"):
        monkeypatch.delenv(name, raising=False)


def bursar(*arguments):
    parser = argparse.ArgumentParser(prog="bursar")
    subparsers = parser.add_subparsers(required=True)
    check.add_parser(subparsers)
    init.add_parser(subparsers)
    args = parser.parse_args(arguments)
    return args.run(args)


def test_check_of_a_good_file_shows_its_providers_and_no_secret(tmp_path, capsys):
    (tmp_path / "x.yaml").write_text(GOOD)
    assert bursar("check", "-c", "x.yaml") == 0
    out = capsys.readouterr().out
    assert re.search(r"x\.yaml: ok\n  openai +openai +key ok", out)
    assert "1 budgets" in out
    assert KEY not in out


def test_check_of_a_wrong_file_shows_every_problem_and_says_no(tmp_path, capsys):
    (tmp_path / "x.yaml").write_text(GOOD + "lisen: x\nlog: {level: lound}\n")
    assert bursar("check", "x.yaml") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == "x.yaml:3:1: lisen: unknown key lisen; nearest valid key: listen"
    assert err.splitlines()[-1] == "bursar check: 2 problems"


@pytest.mark.parametrize(("text", "code"), [(GOOD, 0), (GOOD + "lisen: x\n", 1)])
def test_check_speaks_json(tmp_path, capsys, text, code):
    (tmp_path / "x.yaml").write_text(text)
    assert bursar("check", "-c", "x.yaml", "--json") == code
    out = json.loads(capsys.readouterr().out)
    assert out["ok"] is (code == 0)
    if code:
        assert out["problems"][0] == {
            "file": "x.yaml",
            "line": 3,
            "column": 1,
            "path": "lisen",
            "message": "unknown key lisen; nearest valid key: listen",
        }


def test_check_without_a_file_checks_the_environment(capsys, monkeypatch):
    assert bursar("check") in {0, 1}
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8080/v1")
    capsys.readouterr()
    assert bursar("check") == 1
    assert "environment: OPENAI_BASE_URL: leads back" in capsys.readouterr().err


def test_check_prints_the_schema(capsys):
    assert bursar("check", "--schema") == 0
    assert json.loads(capsys.readouterr().out) == schema()


def test_check_of_two_files_is_misuse(capsys):
    assert bursar("check", "a.yaml", "-c", "b.yaml") == 2
    assert "two files" in capsys.readouterr().err


def test_check_of_no_file_names_the_fix(capsys):
    assert bursar("check", "-c", "none.yaml") == 1
    assert "none.yaml: cannot be read (No such file or directory); name a file with -c" in capsys.readouterr().err


def test_init_writes_a_file_that_check_accepts(tmp_path, capsys, monkeypatch):
    assert bursar("init") == 0
    text = (tmp_path / "bursar.yaml").read_text()
    assert text.startswith("# yaml-language-server: $schema=bursar.schema.json\n")
    assert len(text.splitlines()) <= 20
    assert json.loads((tmp_path / "bursar.schema.json").read_text()) == schema()
    assert bursar("check") == 1
    assert "environment variable OPENAI_API_KEY is not set" in capsys.readouterr().err
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ALICE_KEY", KEY)
    assert bursar("check") == 0
    assert load().config.keys[0].user == "alice"


def test_init_never_overwrites_unasked(tmp_path, capsys):
    (tmp_path / "bursar.yaml").write_text("mine")
    assert bursar("init") == 1
    assert (tmp_path / "bursar.yaml").read_text() == "mine"
    assert "--force" in capsys.readouterr().err
    assert bursar("init", "--force") == 0
    assert "openai" in (tmp_path / "bursar.yaml").read_text()


def test_init_where_nothing_can_be_written_says_so(capsys):
    assert bursar("init", "no/such/folder/x.yaml") == 1
    assert "cannot be written (No such file or directory)" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "init"])
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as ended:
        bursar(command, "--help")
    assert ended.value.code == 0
    assert f"bursar {command}" in capsys.readouterr().out.split("example:")[1]
