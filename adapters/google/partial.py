"""Puts together a function call that Vertex streams by JSONPath (`streamFunctionCallArguments`).

The pieces name a place and bring a value for it, text in several pieces; so the arguments are no text until the last
piece has come, and the client gets them at once. Source: https://cloud.google.com/vertex-ai/generative-ai/docs/multimodal/function-calling
"""

import re
from typing import Any

from adapters.base import JSON
from adapters.errors import InvalidRequestError
from adapters.exact import dumps_exact
from adapters.lenient import items, string

DEPTH_MAX = 100
GAP_MAX = 64  # how far beyond a list's end a piece may write
BYTES_MAX = 4 * 1024 * 1024
_STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d{1,7})\]|\[(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")\]""")
_ESCAPE = re.compile(r"\\(.)")


class PartialArguments:
    """The arguments of one call, so far. Pieces that cannot be placed are ignored; nothing raises."""

    def __init__(self) -> None:
        self._root: JSON = {}
        self._size = 0
        self._open_text = False  # the last text said that it goes on

    def add(self, pieces: Any) -> None:
        """Take the `partialArgs` of one function call part."""
        for piece in items(pieces):
            steps = _steps(string(piece.get("jsonPath")))
            found, value = _value(piece)
            self._size += len(str(value)) + len(steps or ())
            if not steps or not found or self._size > BYTES_MAX:
                continue
            _place(self._root, steps, value)
            self._open_text = isinstance(value, str) and piece.get("willContinue") is True

    def merge(self, args: Any) -> None:
        """Take whole arguments that come beside pieces."""
        if isinstance(args, dict):
            self._root.update(args)

    def text(self, *, cut: bool = False) -> str:
        """Return the arguments as JSON; of a call that was `cut` short, JSON that is cut short as well."""
        whole = json_text(self._root)
        if not cut:
            return whole
        open_end = whole.rstrip("]}")
        return open_end[:-1] if self._open_text and open_end.endswith('"') else open_end


def json_text(arguments: Any) -> str:
    """Return a call's arguments as the JSON text that OpenAI's clients parse; `{}` for what is no object."""
    if not isinstance(arguments, dict):
        return "{}"
    try:
        return dumps_exact(arguments).decode()
    except InvalidRequestError:  # nested so deeply that it cannot be written
        return "{}"


def _steps(path: str) -> list[str | int] | None:
    """Return the keys and places of a JSONPath like `$.a[0]['b c']`; None if it is of another form."""
    if not path.startswith("$"):
        return None
    steps: list[str | int] = []
    end = 1
    while end < len(path):
        match = _STEP.match(path, end)
        if match is None or len(steps) >= DEPTH_MAX:
            return None
        name, place, single, double = match.groups()
        if place is not None:
            steps.append(int(place))
        elif name is not None:
            steps.append(name)
        else:
            steps.append(_ESCAPE.sub(r"\1", single if single is not None else double))
        end = match.end()
    return steps


def _value(piece: JSON) -> tuple[bool, Any]:
    for key in ("stringValue", "numberValue", "boolValue"):
        if key in piece:
            return True, piece[key]
    return "nullValue" in piece, None


def _place(root: JSON, steps: list[str | int], value: Any) -> None:
    """Write `value` at the end of `steps`, building what lies between; text is added to text that is there."""
    here: Any = root
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        old = _get(here, step)
        if following is None:
            value = old + value if isinstance(old, str) and isinstance(value, str) else value
            _set(here, step, value)
            return
        wanted = list if isinstance(following, int) else dict
        if not isinstance(old, wanted):
            old = wanted()
            if not _set(here, step, old):
                return
        here = old


def _get(holder: Any, step: str | int) -> Any:
    if isinstance(holder, list) and isinstance(step, int):
        return holder[step] if step < len(holder) else None
    return holder.get(step) if isinstance(holder, dict) else None


def _set(holder: Any, step: str | int, value: Any) -> bool:
    if isinstance(holder, dict):
        holder[str(step)] = value
        return True
    if not isinstance(step, int) or step > len(holder) + GAP_MAX:
        return False
    holder.extend([None] * (step + 1 - len(holder)))
    holder[step] = value
    return True
