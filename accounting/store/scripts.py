"""The Lua texts, and the SHA-1 names that EVALSHA knows them by."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from accounting.store.packing import piece


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script; `sha` is what EVALSHA wants (not a secret, hence SHA-1 is fine). `named`, `whole`: a command's start, spelled."""

    name: str
    text: str
    sha: str
    named: bytes
    whole: bytes


@cache
def script(name: str) -> Script:
    """Load a script of `accounting/lua` by its file's name."""
    text = (resources.files("accounting") / "lua" / f"{name}.lua").read_text()
    sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return Script(name, text, sha, named=piece("EVALSHA", sha), whole=piece("EVAL", text))
