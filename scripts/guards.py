"""Removes each guard that `tests/guards.md` names, one at a time, and looks whether the test that it names fails.

Works on a copy of the tree, as `mutate.py` does. A guard that nobody misses is a guard without a test.

    python scripts/guards.py                 all of them, about 20 minutes
    python scripts/guards.py P3 A5           some
"""

import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mutate import ROOT, Mutant, Trial

TABLE = ROOT / "tests" / "guards.md"
_ROW = re.compile(r"^\| (\w+) \| (.+?) \| (\S+) \| `` (.+?) `` \| `` (.+?) `` \| (\S+) \|$", re.MULTILINE)
NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Guard:
    """One row: what it keeps, where it stands, what is put in its place, and the test that then fails."""

    promise: str
    what: str
    file: str
    text: str
    instead: str
    test: str

    def removed(self) -> str:
        """Return the file's text without it. Raises ValueError if it does not stand there exactly once."""
        text = (ROOT / self.file).read_text()
        if text.count(self.text) != 1:
            msg = f"{self.promise}: `{self.text}` stands {text.count(self.text)} times in {self.file}"
            raise ValueError(msg)
        return text.replace(self.text, "" if self.instead == NOTHING else self.instead)


def guards() -> list[Guard]:
    """Return the table's rows."""
    return [Guard(*(cell.replace("\\|", "|") for cell in row)) for row in _ROW.findall(TABLE.read_text())]


def main() -> int:
    """Try them; 0 if each was missed."""
    wanted = set(sys.argv[1:])
    chosen = [guard for guard in guards() if not wanted or guard.promise in wanted]
    unnoticed, fine = [], dict[str, bool]()
    with tempfile.TemporaryDirectory(prefix="guards-") as folder:
        trial = Trial(Path(folder), sys.executable, 400)
        for guard in chosen:
            mutant = Mutant(guard.file, 0, guard.what, guard.removed())
            if guard.test not in fine:
                fine[guard.test] = trial.passes(f"tests/{guard.test}", marks="not long")
            if not fine[guard.test]:
                print(f"{guard.promise}: {guard.test} fails without a reason", flush=True)
                unnoticed.append(guard)
            elif trial.survives(mutant, f"tests/{guard.test}", marks="not long"):
                print(f"{guard.promise}: nobody misses {guard.what} ({guard.file})", flush=True)
                unnoticed.append(guard)
            else:
                print(f"{guard.promise}: {guard.what} is missed", flush=True)
    print(f"{len(chosen) - len(unnoticed)} of {len(chosen)} guards are missed when they are gone")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
