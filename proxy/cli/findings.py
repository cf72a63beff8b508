"""What `bursar doctor` finds: one line each, with its remedy."""

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """One thing that was looked at. `bad` makes the command fail, `note` does not."""

    name: str
    state: Literal["ok", "note", "bad"]
    detail: str
    remedy: str = ""


def fine(name: str, detail: str) -> Finding:
    """Return a finding that is as it should be."""
    return Finding(name, "ok", detail)


def note(name: str, detail: str, remedy: str = "") -> Finding:
    """Return a finding that is worth knowing, and stops nothing."""
    return Finding(name, "note", detail, remedy)


def bad(name: str, detail: str, remedy: str) -> Finding:
    """Return a finding that must be mended."""
    return Finding(name, "bad", detail, remedy)
