"""The handlers that need to be told nothing can be named in a configuration by a short name."""

import inspect
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import accounting.callbacks as callbacks
from accounting.callbacks.handler import CustomAsyncCallbackHandler
from accounting.callbacks.registry import GROUP, load_callback

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
NAMED = PROJECT["entry-points"][GROUP]


@pytest.mark.parametrize(("name", "place"), NAMED.items())
def test_each_name_leads_to_a_handler(name, place):
    made = EntryPoint(name, place, GROUP).load()
    assert isinstance(made(), CustomAsyncCallbackHandler)
    assert type(load_callback(place)) is made


def test_every_built_in_handler_that_wants_no_arguments_has_a_name():
    found = set()
    for name in callbacks.__all__:
        made = getattr(callbacks, name)
        if (
            not inspect.isclass(made)
            or not issubclass(made, CustomAsyncCallbackHandler)
            or made is callbacks.CompositeCallbackHandler
            or inspect.isabstract(made)
        ):
            continue
        wanted = inspect.signature(made).parameters.values()
        if all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in wanted):
            found.add(f"{made.__module__}:{made.__name__}")
    assert found == set(NAMED.values())
