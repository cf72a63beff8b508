"""Every assertion of the wire reference is held by a test that exists; `assertions.md` says which."""

import ast
import functools
import pathlib
import re

import pytest

FOLDER = pathlib.Path(__file__).parent
TABLE = FOLDER / "assertions.md"
ROW = re.compile(r"^\| 3\.(\d+) \| (.+?) \| .*\|$", re.MULTILINE)


def rows():
    return {int(number): tests.split("<br>") for number, tests in ROW.findall(TABLE.read_text())}


@functools.cache
def named_in(name):
    """The test functions that pytest collects from a file of this folder, and what marks could keep them from running."""
    tree = ast.parse((FOLDER / name).read_text())
    return {
        node.name: [ast.unparse(mark) for mark in node.decorator_list]
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_assertion_has_a_row():
    assert sorted(rows()) == list(range(1, 91))
    assert len(ROW.findall(TABLE.read_text())) == 90


@pytest.mark.parametrize("number", range(1, 91))
def test_every_named_test_is_collected(number):
    assert rows()[number]
    for test in rows()[number]:
        file, _, name = test.partition("::")
        marks = named_in(file)[name]
        assert not any("mark.long" in mark or mark.startswith("pytest.mark.skip(") for mark in marks)
