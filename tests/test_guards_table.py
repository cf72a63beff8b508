"""Every guard of the ledger has a test that fails without it; `guards.md` says which, and `scripts/guards.py` tries."""

import pytest

from tests.test_assertions_table import FOLDER, named_in

ROW_PARTS = 6
PROMISES = [
    *(f"P{n}" for n in range(1, 10)),
    *(f"A{n}" for n in range(1, 14) if n != 12),
    *(f"B{n}" for n in range(1, 10)),
]


def rows():
    lines = (FOLDER / "guards.md").read_text().splitlines()
    found = [line.replace("\\|", "\0")[2:-2].split(" | ") for line in lines if line[:3] in {f"| {c}" for c in "PAB"}]
    return [[part.replace("\0", "|").removeprefix("`` ").removesuffix(" ``") for part in row] for row in found]


def test_every_promise_has_a_guard():
    assert {row[0] for row in rows()} >= set(PROMISES)


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]} {row[1]}")
def test_a_guard_stands_where_the_table_says_and_its_test_is_collected(row):
    assert len(row) == ROW_PARTS
    _, _, file, text, instead, test = row
    assert (FOLDER.parent / file).read_text().count(text) == 1, f"{text} is not once in {file}: find the guard again"
    assert instead != text
    name, _, function = test.partition("::")
    marks = named_in(name)[function] if function else []
    assert not any("mark.long" in mark or mark.startswith("pytest.mark.skip(") for mark in marks)
