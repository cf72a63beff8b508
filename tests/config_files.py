"""Configuration files for the tests of `proxy.config`: a small good one, and what becomes of any text."""

from pathlib import Path

import pytest
from hypothesis import settings

from proxy.config.load import load_text
from proxy.config.problem import ConfigError

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "deploy" / "bursar.example.yaml"
GOOD = "f00dbabe" * 4  # a secret that is not a placeholder
BASE = "providers: {openai: {kind: openai, api_keys: [k-0123456789]}}\n"
BOUNDED = settings(deadline=None, max_examples=150)


def config_of(text, variables=None):
    return load_text(text, "f.yaml", variables or {}).config


def loaded_or_error(text, variables=None):
    try:
        return load_text(text, "f.yaml", variables or {})
    except ConfigError as error:
        return error


def problems_of(text, variables=None):
    with pytest.raises(ConfigError) as caught:
        load_text(text, "f.yaml", variables or {})
    return caught.value.problems
