"""How the fake provider behaves on one call, told by the model's name: `fake-1?stall=20&length=200`.

The name is the one field that every proxy hands on, so a test can misbehave through any of them. A key without a value
is a flag (or its only sensible number). An unknown key is refused: a test with a typing error must not pass by it.
`k` counts tokens already generated (of all choices together), so 0 is before the first and nothing happens past the end.
"""

from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import parse_qsl

_FLAG = {
    "stall": "0",
    "cut": "0",
    "reset": "0",
    "error_after": "0",
    "garbage": "0",
    "comments": "1",
    "ignore_limit": "-1",
}


class ScriptError(ValueError):
    """A key that does not exist, or a value that it does not take; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One behaviour. Everything off is an honest and punctual provider."""

    # the answer
    length: int | None = None  # tokens of each choice, instead of a natural length
    reasoning: int = 0  # hidden tokens of each choice before its text, part of its output
    cached: int = 0  # how many of the prompt's tokens are said to be cached
    tool: bool = False  # call the first tool
    pace: float | None = None  # tokens per second
    delay_ms: int = 0  # before the head of the answer
    billing: str | None = None  # cancel: billing stops when the client goes away; drain: the whole answer is billed
    ignore_limit: int = 0  # so many tokens above the limit; a bare flag ignores it altogether
    # an HTTP error
    status: int = 200
    code: str | None = None  # of the error object
    retry_after: str | None = None
    html_error: bool = False  # the error's body is a page
    # instead of an answer
    hang: bool = False  # nothing at all until the client goes away; bills nothing
    close: bool = False  # the connection closes before the head; bills nothing
    empty: bool = False  # 200 with no body
    error_body: bool = False  # 200 with an error object for a body, also where a stream was asked for
    malformed: bool = False  # 200 with JSON that breaks off
    # in the middle of an answer, after k tokens
    stall: int | None = None  # nothing more until the client goes away
    cut: int | None = None  # the connection closes in the middle of the body
    reset: int | None = None  # the same, with a TCP reset
    cut_bytes: int | None = None  # closes after so many bytes of the body
    error_after: int | None = None  # an error event, then the end
    garbage: int | None = None  # an event that is no JSON, then on
    # what is said of the usage
    no_usage: bool = False
    usage_zero: bool = False
    usage_wrong: int = 0  # added to the output tokens told, not to those billed
    # the form
    no_done: bool = False  # the stream ends without [DONE]
    no_finish: bool = False  # … and without its finish chunk
    role_every: bool = False  # the role on every delta
    bytes: int = 0  # so many bytes in each write
    crlf: bool = False  # lines end in CRLF
    comments: int = 0  # a comment before every so many events
    # the connection
    last: bool = False  # closes after the answer, and says so
    close_after: bool = False  # closes after the answer without having said so
    # scope
    times: int | None = None  # only the first so many calls with this very script; afterwards an honest provider

    @classmethod
    def parse(cls, text: str) -> "Script":
        """Read `key=value&flag&…`. Raises ScriptError."""
        types = {f.name: str(f.type) for f in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in parse_qsl(text, keep_blank_values=True):
            if key not in types:
                raise ScriptError(f"the fake provider has no behaviour {key!r}")
            values[key] = _read(key, value or _FLAG.get(key, ""), types[key])
        return cls(**values)

    @property
    def refuses(self) -> bool:
        """Whether the answer is an HTTP error."""
        return self.status >= 400 or self.html_error  # noqa: PLR2004 - where errors begin


HONEST = Script()


def split(model: str) -> tuple[str, str]:
    """Split `fake-1?stall=20` into the model that answers and the text of its script."""
    name, _, text = model.partition("?")
    return name, text


def _read(key: str, value: str, kind: str) -> object:
    if kind.startswith("bool") or "bool" in kind:
        return value.lower() not in {"0", "false", "no"}
    try:
        if "int" in kind:
            return int(value)
        if "float" in kind:
            return float(value)
    except ValueError:
        raise ScriptError(f"the fake provider's {key} takes a number, not {value!r}") from None
    return value
