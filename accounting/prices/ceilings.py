"""How many output tokens a model gives at most in one answer, for calls that set no limit themselves.

Data, since no price source carries it. A model that is not known has no ceiling here; the configuration's default serves.
"""

from functools import cache, lru_cache
from importlib import resources

import msgspec

from accounting.tokens.families import bare_name


@lru_cache(maxsize=512)
def max_output(upstream_model: str) -> int | None:
    """Return the ceiling of the first rule that starts the name (after vendor and region), None for unknown models."""
    name = bare_name(upstream_model)
    return next((ceiling for start, ceiling in _rules() if name.startswith(start)), None)


@cache
def _rules() -> list[tuple[str, int]]:
    raw = resources.files(__package__).joinpath("ceilings.json").read_bytes()
    rules: list[tuple[str, int]] = msgspec.json.decode(raw, type=_File).starts_with
    return rules


class _File(msgspec.Struct):
    source: str
    starts_with: list[tuple[str, int]]
