"""Finds handlers by the names that a configuration gives them: an entry point of the group `bursar.callbacks`, or `module:name`.

What a name leads to is a handler, or something that makes one when it is called without arguments (a class, a function).
"""

import importlib
from collections.abc import Iterable
from importlib.metadata import entry_points

from accounting.callbacks.handler import CustomAsyncCallbackHandler

GROUP = "bursar.callbacks"


class CallbackNotFoundError(ValueError):
    """A name leads to no handler; the message says which name, and why."""


def load_callbacks(names: Iterable[str]) -> list[tuple[str, CustomAsyncCallbackHandler]]:
    """Return (name, handler) for each name, in order. Raises CallbackNotFoundError."""
    return [(name, load_callback(name)) for name in names]


def load_callback(name: str) -> CustomAsyncCallbackHandler:
    """Return the handler of that name. Raises CallbackNotFoundError, for whatever its code raises too."""
    try:
        found = _named(name)
        handler = found if isinstance(found, CustomAsyncCallbackHandler) else found()  # type: ignore[operator]  # anything at all
    except CallbackNotFoundError:
        raise
    except Exception as error:
        raise CallbackNotFoundError(f"the callback {name!r} cannot be made: {type(error).__name__}") from error
    if not isinstance(handler, CustomAsyncCallbackHandler):
        raise CallbackNotFoundError(f"the callback {name!r} is no CustomAsyncCallbackHandler, and makes none")
    return handler


def _named(name: str) -> object:
    for entry in entry_points(group=GROUP, name=name):
        return entry.load()
    module, colon, attribute = name.partition(":")
    if not colon:
        known = sorted({entry.name for entry in entry_points(group=GROUP)})
        hint = f"; known are {', '.join(known)}" if known else ""
        raise CallbackNotFoundError(f"no entry point {name!r} in the group {GROUP}{hint}; or give module:name")
    found: object = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found
