"""Tests the tests: changes one small thing in the accounting at a time, and looks whether a test notices.

Works on a copy of the tree in a new folder of its own, never on the tree itself. The same seed picks the same mutants. What
survives is printed with its line: either no test looks there, or the change changes nothing.

    python scripts/mutate.py --count 150 --seconds 900
    python scripts/mutate.py --only accounting/ask.py --count 20 --seed 3
"""

import argparse
import ast
import contextlib
import copy
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
COPIED = ("accounting", "adapters", "proxy", "tests", "scripts", "deploy", "docs", "pyproject.toml", "README.md")
EDGES = "tests/ledger/test_replies.py tests/ledger/test_arithmetic.py tests/ledger/test_boundaries.py"
QUICK = "not slow and not long"
MODEL = "tests/ledger/test_differential.py"
JOURNAL = "tests/test_journal_edges.py tests/test_journal.py"
SCRIPTS = (
    f"tests/ledger/test_storm.py tests/ledger/test_learning.py {EDGES} tests/ledger/test_rolling.py tests/ledger/test_rollover.py "
    "tests/ledger/test_grow.py tests/ledger/test_charging.py tests/ledger/test_escrow.py tests/ledger/test_differential.py"
)
LEDGER = (
    "tests/ledger/test_replies.py tests/ledger/test_ledger.py tests/ledger/test_charging.py tests/ledger/test_arithmetic.py tests/ledger/test_grow.py "
    "tests/ledger/test_escrow.py tests/ledger/test_outage.py tests/ledger/test_refused_writes.py tests/ledger/test_embedded.py"
)
CALLS = "tests/ledger/test_replies.py tests/ledger/test_charging.py tests/ledger/test_arithmetic.py tests/test_invoice.py tests/test_cut_usage.py tests/test_clamping.py"
TESTS = {  # the likeliest to notice first
    "accounting/ledger.py": LEDGER, "accounting/settling.py": LEDGER, "accounting/reserving.py": f"{LEDGER} tests/ledger/test_boundaries.py",
    "accounting/settlement.py": f"{LEDGER} tests/test_journal_edges.py tests/test_journal.py", "accounting/hold.py": LEDGER,
    "accounting/ask.py": f"{EDGES} tests/test_clamping.py", "accounting/budgets.py": f"{EDGES} tests/test_clamping.py tests/test_budget_endpoint.py",
    "accounting/periods.py": "tests/ledger/test_replies.py tests/ledger/test_rollover.py tests/ledger/test_rolling.py tests/ledger/test_arithmetic.py",
    "accounting/usage.py": f"tests/test_prices.py {CALLS}", "accounting/charge.py": f"{CALLS} tests/test_budget_endpoint.py",
    "accounting/meter.py": CALLS, "accounting/prices/price.py": f"tests/test_prices.py {EDGES}",
    "accounting/journal/format.py": JOURNAL, "accounting/journal/aftermath.py": JOURNAL,
    "accounting/journal/recovery.py": JOURNAL,
    "accounting/journal/reading.py": JOURNAL, "accounting/journal/writer.py": JOURNAL, "accounting/journal/segment.py": JOURNAL,
    "accounting/journal/session.py": JOURNAL, "accounting/acquaintance.py": f"tests/ledger/test_learning.py {LEDGER} tests/ledger/test_restarts.py",
    "accounting/escrow.py": "tests/ledger/test_escrow.py tests/test_escrow_http.py", "accounting/growing.py": "tests/ledger/test_grow.py tests/test_slice_http.py",
    "accounting/renewing.py": "tests/ledger/test_renewing.py", "accounting/verdict.py": "tests/ledger/test_replies.py tests/test_cli_explain.py",
    "accounting/lua/reserve.lua": SCRIPTS, "accounting/lua/settle.lua": SCRIPTS, "accounting/lua/extend.lua": SCRIPTS,
    "accounting/lua/grow.lua": f"tests/ledger/test_grow.py {SCRIPTS}", "accounting/lua/generation.lua": SCRIPTS, "accounting/lua/read.lua": SCRIPTS,
    "accounting/lua/adjust.lua": f"tests/test_cli_budgets.py {SCRIPTS}", "accounting/lua/mark.lua": f"{MODEL} tests/test_alerts.py",
    "accounting/lua/configure.lua": f"{SCRIPTS} tests/test_repository.py", "accounting/lua/usage.lua": f"{MODEL} tests/test_repository.py",
    "accounting/lua/usage_adjust.lua": f"{MODEL} tests/test_repository.py",
}  # fmt: skip

_COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv, ast.Div: ast.Mult,
}  # fmt: skip
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_SAID = re.compile(r"assert |_log\.|['\"]")
_LUA = (
    (r"<=", "<"), (r"<(?!=)", "<="), (r">=", ">"), (r">(?!=)", ">="), (r"==", "~="), (r"~=", "=="), (r"\band\b", "or"), (r"\bor\b", "and"),
    (r" \+ ", " - "), (r" - ", " + "), (r"math\.min", "math.max"), (r"math\.max", "math.min"), (r"\bnot ", ""), (r"\btrue\b", "false"),
    (r"\bfalse\b", "true"), (r"(?<=[ (,])0(?=[ ,)])", "1"), (r"(?<=[ (,])1(?=[ ,)])", "2"), (r"^\s*call\(.*$", ""), (r"^\s*redis\.pcall\(.*$", ""),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one file: the file's text after it, and what was done on which line."""

    file: str
    line: int
    what: str
    text: str


def mutants_of(file: str) -> list[Mutant]:
    """Return all mutants of a file."""
    text = (ROOT / file).read_text()
    return list(_of_lua(file, text) if file.endswith(".lua") else _of_python(file, text))


def _of_lua(file: str, text: str) -> Iterator[Mutant]:
    lines = text.split("\n")
    for number, line in enumerate(lines):
        code = line.partition("--")[0]
        for pattern, new in _LUA:
            for found in re.finditer(pattern, code):
                if code[: found.start()].count("'") % 2:
                    continue  # inside a string
                changed = code[: found.start()] + new + code[found.end() :]
                text_after = "\n".join([*lines[:number], changed, *lines[number + 1 :]])
                yield Mutant(file, number + 1, f"{code.strip()[:90]}  =>  {changed.strip()[:90]}", text_after)


def _of_python(file: str, text: str) -> Iterator[Mutant]:
    """Each node may be changed in some ways; the tree is copied for each, since a change is made in place."""
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    outside = {id(n) for node in nodes for n in _not_code(node)}
    for index, node in enumerate(nodes):
        if id(node) in outside:
            continue
        for way in range(len(_ways(node))):
            other = copy.deepcopy(tree)
            twin = list(ast.walk(other))[index]
            before = ast.unparse(twin)
            _ways(twin)[way]()
            ast.fix_missing_locations(other)
            after = ast.unparse(twin) if not isinstance(twin, ast.FunctionDef | ast.AsyncFunctionDef) else "?"
            what = f"{before.splitlines()[0][:90]}  =>  {after.splitlines()[0][:90]}"
            yield Mutant(file, getattr(node, "lineno", 0), what, ast.unparse(other))


def _not_code(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what no test should care for: annotations, messages, and how large exactly a named limit is."""
    parts: list[ast.AST | None] = []
    if isinstance(node, ast.AnnAssign | ast.arg):
        parts.append(node.annotation)
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        parts += [node.returns, *node.decorator_list]
    elif isinstance(node, ast.ClassDef):
        parts += node.decorator_list
    elif isinstance(node, ast.Assert | ast.Call | ast.Expr) and _SAID.match(ast.unparse(node)):
        parts.append(node)
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
        parts.append(node.value)
    for part in parts:
        if part is not None:
            yield from ast.walk(part)


def _ways(node: ast.AST) -> list[Callable[[], object]]:
    """Return what can be done to a node: functions that change it in place."""
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        return [lambda: setattr(node, "value", not node.value)]
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return [lambda: setattr(node, "value", node.value + 1)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
        return [lambda: setattr(node.func, "id", _CALLS[node.func.id])]
    if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant | ast.Yield | ast.YieldFrom):
        return [lambda: setattr(node, "value", ast.Constant(None))]
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        return [lambda: setattr(node, "test", ast.UnaryOp(ast.Not(), node.test))]
    if isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        return [lambda: setattr(node, "value", ast.Constant(None))]
    return _other_operators(node)


def _other_operators(node: ast.AST) -> list[Callable[[], object]]:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARISONS:
        return [lambda: node.ops.__setitem__(0, _COMPARISONS[type(node.ops[0])]())]
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _ARITHMETIC:
        return [lambda: setattr(node, "op", _ARITHMETIC[type(node.op)]())]
    if isinstance(node, ast.BoolOp):
        return [lambda: setattr(node, "op", ast.And() if isinstance(node.op, ast.Or) else ast.Or())]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        return [lambda: (setattr(node, "op", ast.UAdd()), setattr(node, "operand", _bool(node.operand)))]
    return []


def _bool(node: ast.expr) -> ast.expr:
    return ast.Call(ast.Name("bool", ast.Load()), [node], [])


class Trial:
    """A copy of the tree, and one mutant in it at a time."""

    def __init__(self, folder: Path, python: str, timeout_s: float) -> None:
        self.folder, self._python, self._timeout_s = folder, python, timeout_s
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, folder / name)

    def survives(self, mutant: Mutant, tests: str = "", marks: str = QUICK) -> bool:
        """Whether all tests still pass (by default those of the file)."""
        path = self.folder / mutant.file
        original = path.read_text()
        path.write_text(mutant.text)
        try:
            return self.passes(tests or TESTS[mutant.file], marks)
        finally:
            path.write_text(original)

    def passes(self, tests: str, marks: str = QUICK) -> bool:
        """Run tests; too slow counts as failed. Only processes of this run are ever ended."""
        command = [
            self._python,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "-m",
            marks,
        ]
        environ = {
            **os.environ,
            "CI": "1",  # hypothesis then is the same each time, and counts no seconds
            "PYTHONDONTWRITEBYTECODE": "1",
            "HYPOTHESIS_STORAGE_DIRECTORY": str(self.folder / "hypothesis"),
        }
        run = subprocess.Popen(
            [*command, *tests.split()], cwd=self.folder, env=environ, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            return run.wait(self._timeout_s) == 0
        except subprocess.TimeoutExpired:
            return False
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)
            run.wait()


def choose(files: list[str], count: int, seed: int) -> list[Mutant]:
    """Return mutants of all files, each file's share by its size, in an order that leaves none out if time runs short."""
    rng = random.Random(seed)
    every = [mutant for file in files for mutant in mutants_of(file)]
    print(f"{len(every)} mutants of {len(files)} files, seed {seed}", flush=True)
    return rng.sample(every, min(count, len(every)))


def main() -> int:
    """Try them; 0 if enough were noticed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=900, help="stop after that long")
    parser.add_argument("--timeout", type=float, default=120, help="of one run of the tests, in seconds")
    parser.add_argument("--only", action="append", default=[], help="a file; may be given again")
    parser.add_argument("--least", type=float, default=0.85, help="the share that must be noticed")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the copy and the tests that run in it go, too
    chosen = choose(args.only or list(TESTS), args.count, args.seed)
    until_s, tried, left = time.monotonic() + args.seconds, 0, []
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        trial = Trial(Path(folder), sys.executable, args.timeout)
        groups = {TESTS[mutant.file] for mutant in chosen}
        sick: set[str] = set()
        if not trial.passes(" ".join({name: None for tests in sorted(groups) for name in tests.split()})):
            sick = {tests for tests in groups if not trial.passes(tests)}
        if sick:
            print("left out, since these fail without a mutant:", *sick, sep="\n  ", flush=True)
        chosen = [mutant for mutant in chosen if TESTS[mutant.file] not in sick]
        print(f"{len(chosen)} to try", flush=True)
        for mutant in chosen:
            if time.monotonic() > until_s:
                break
            tried += 1
            if tried % 10 == 0:
                print(f"{tried} tried, {len(left)} survived", flush=True)
            if trial.survives(mutant):
                left.append(mutant)
                print(f"survived: {mutant.file}:{mutant.line}: {mutant.what}", flush=True)
    rate = 1 - len(left) / max(1, tried)
    print(f"{tried - len(left)} of {tried} mutants were noticed: {100 * rate:.1f} %")
    return 0 if rate >= args.least else 1


if __name__ == "__main__":
    sys.exit(main())
