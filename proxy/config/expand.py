"""`${VAR}` and `${VAR:-default}` in one scalar, after YAML has been parsed: a value can never become structure.

`$$` is a dollar sign, any other `$` is itself. What a variable holds is not expanded again. As in a shell, `:-` also takes
the default where the variable is empty.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

EXPANDED_CHARS_MAX = 65_536  # of one scalar: a file must not become a bomb by naming a large variable often

_REFERENCE = re.compile(r"\$(?:(\$)|\{([^}]*)(\}?))")
_BODY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?\Z", re.ASCII | re.DOTALL)


class Failure(NamedTuple):
    """What cannot be expanded: `offset` counts characters from the scalar's first."""

    offset: int
    message: str


class Expansion(NamedTuple):
    """The expanded text, whether a variable was in it, and what failed."""

    text: str
    expanded: bool
    failures: tuple[Failure, ...]


def expand(text: str, variables: Mapping[str, str]) -> Expansion:
    """Return the text with every reference replaced; with failures, the text is not to be used."""
    if "$" not in text:
        return Expansion(text, expanded=False, failures=())
    pieces: list[str] = []
    failures: list[Failure] = []
    expanded, end, chars = False, 0, len(text)
    for match in _REFERENCE.finditer(text):
        pieces.append(text[end : match.start()])
        end = match.end()
        if match[1]:
            pieces.append("$")
            continue
        expanded = True
        value = _value(match, variables)
        if isinstance(value, Failure):
            failures.append(value)
            continue
        chars += len(value)
        if chars > EXPANDED_CHARS_MAX:
            failures.append(Failure(match.start(), f"expands to more than {EXPANDED_CHARS_MAX} characters"))
            break
        pieces.append(value)
    pieces.append(text[end:])
    return Expansion("".join(pieces), expanded, tuple(failures))


def _value(match: re.Match[str], variables: Mapping[str, str]) -> str | Failure:
    body = _BODY.match(match[2])
    if not match[3] or not body:
        return Failure(match.start(), "wants ${NAME} or ${NAME:-default}; write $$ for a dollar sign")
    name, default = body[1], body[2]
    value = variables.get(name)
    if value or (value is not None and default is None):
        return value
    if default is not None:
        return default
    return Failure(match.start(), f"environment variable {name} is not set; set it, or write ${{{name}:-default}}")
