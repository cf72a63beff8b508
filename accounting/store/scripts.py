"""The Lua texts, and the SHA-1 names that EVALSHA knows them by."""

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script; `sha` is what EVALSHA wants (not a secret, hence SHA-1 is fine)."""

    name: str
    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """Load a script of `accounting/lua` by its file's name."""
    text = (resources.files("accounting") / "lua" / f"{name}.lua").read_text()
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
