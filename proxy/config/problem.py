"""What is wrong with a configuration, and where: one `Problem` each, all of them in one `ConfigError`.

A message never holds a value that could be a secret: a value is named only where it is almost a valid word.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

Path = tuple[str | int, ...]  # the way from the top of the file: ("budgets", 0, "usd")

_BARE_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\Z")
_SEPARATORS = re.compile(r"[-./_: @*+]")
_NAME_CHARS_MAX, _PART_CHARS_MAX = 64, 16  # people name things in short parts; a pasted key has a long one
_KEY_PREFIXES = ("sk-", "AKIA", "AIza", "xai-", "gsk_", "hf_", "eyJ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something wrong at a path, before its place in the file is known."""

    path: Path
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing to mend: line and column count from 1, 0 where there is no file; `path` as in `budgets[0].usd`."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.path}: {self.message}" if self.path else f"{place}: {self.message}"


class ConfigError(Exception):
    """The configuration cannot be used; `problems` has at least one entry, in the order of the file."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)))


def dotted(path: Path) -> str:
    """Return a path as people write it: `providers.openai.api_keys[0]`, `prices["local/*"]`."""
    out = ""
    for step in path:
        if isinstance(step, int):
            out += f"[{step}]"
        elif _BARE_KEY.match(step):
            out += f".{nameable(step)}" if out else nameable(step)
        else:
            out += f'["{nameable(step)}"]'
    return out


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that `word` was probably meant to be, or None."""
    candidates = sorted(known)
    lowered = {name.lower(): name for name in candidates}
    found = difflib.get_close_matches(word.lower()[:64], lowered, n=1, cutoff=0.6)
    return lowered[found[0]] if found else None


def nameable(word: str) -> str:
    """Return a word that looks like a name, so that it can be repeated in a message, or an ellipsis in its place."""
    parts = _SEPARATORS.split(word)
    short = len(word) <= _NAME_CHARS_MAX and max(map(len, parts)) <= _PART_CHARS_MAX
    return word if short and word.isprintable() and not word.startswith(_KEY_PREFIXES) else "…"
