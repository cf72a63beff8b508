"""What each Claude model takes, as a table: the parameters that one accepts are errors on the next.

Names differ between hosts (`claude-opus-4-5@20251101`, `us.anthropic.claude-opus-4-5-v1:0`), so a family and a version
are read out of them; the first row that fits is taken. A model newer than the table is taken for the strictest kind.
Sources: https://platform.claude.com/docs/en/models, https://platform.claude.com/docs/en/build-with-claude/effort,
https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking
"""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

# none: cannot; budget: a number of tokens; adaptive: off unless asked for; default: on, can be turned off;
# between: on, can be restricted to the time between tools; always: on.
Thinking: TypeAlias = Literal["none", "budget", "adaptive", "default", "between", "always"]

_THREE = ("low", "medium", "high")
_FOUR = (*_THREE, "max")
_FIVE = (*_THREE, "xhigh", "max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What a model takes. `efforts` are in rising order, empty where there is no effort."""

    output_max: int
    thinking: Thinking
    efforts: tuple[str, ...] = ()
    sampling: bool = True  # temperature, top_p and top_k at all
    both: bool = False  # temperature and top_p in one request
    schema: bool = True  # output_config.format
    system_turns: bool = False  # role system inside the conversation


_UNKNOWN = Traits(output_max=8192, thinking="budget", schema=False)  # not a Claude: another server of this format
_NEWEST = Traits(output_max=128_000, thinking="always", efforts=_FIVE, sampling=False, system_turns=True)
_5_OFF = Traits(output_max=128_000, thinking="default", efforts=_FIVE, sampling=False, system_turns=True)
_5_SONNET = Traits(output_max=128_000, thinking="default", efforts=_FIVE, sampling=False)
_5_5_SONNET = Traits(output_max=128_000, thinking="between", efforts=_FIVE, sampling=False, system_turns=True)
_4_8 = Traits(output_max=128_000, thinking="adaptive", efforts=_FIVE, sampling=False, system_turns=True)
_4_7 = Traits(output_max=128_000, thinking="adaptive", efforts=_FIVE, sampling=False)
_4_6 = Traits(output_max=128_000, thinking="adaptive", efforts=_FOUR)
_4_5 = Traits(output_max=64_000, thinking="budget")
_4_1 = Traits(output_max=32_000, thinking="budget")
_4_OPUS = Traits(output_max=32_000, thinking="budget", both=True, schema=False)
_4 = Traits(output_max=64_000, thinking="budget", both=True, schema=False)
_3_7 = Traits(output_max=64_000, thinking="budget", both=True, schema=False)
_3_5 = Traits(output_max=8192, thinking="none", both=True, schema=False)
_3 = Traits(output_max=4096, thinking="none", both=True, schema=False)

_ROWS: tuple[tuple[str | None, tuple[int, int], Traits], ...] = (  # family (None: any), from which version on
    ("mythos", (0, 0), _NEWEST),
    ("fable", (0, 0), _NEWEST),
    ("opus", (5, 1), _NEWEST),
    ("opus", (5, 0), _5_OFF),
    ("haiku", (5, 0), _5_OFF),
    ("sonnet", (5, 5), _5_5_SONNET),
    ("sonnet", (5, 0), _5_SONNET),
    (None, (5, 0), _NEWEST),
    (None, (4, 8), _4_8),
    (None, (4, 7), _4_7),
    (None, (4, 6), _4_6),
    (None, (4, 5), _4_5),
    (None, (4, 1), _4_1),
    ("opus", (4, 0), _4_OPUS),
    (None, (4, 0), _4),
    (None, (3, 7), _3_7),
    (None, (3, 5), _3_5),
    (None, (0, 0), _3),
)
_FAMILY = re.compile(r"claude[-_.]?.*?(opus|sonnet|haiku|fable|mythos|instant)")
_VERSION = re.compile(r"(?<![\d.])(\d)(?:[-.](\d{1,2}))?(?![\d])")


def traits_of(model: str) -> Traits:
    """Return the traits of a model by any host's name for it."""
    name = model.lower()
    start = name.find("claude")
    if start < 0:
        return _UNKNOWN
    family = _FAMILY.search(name)
    found = _VERSION.search(name[start:])
    if found is None:
        version = (9, 0) if family is None or family[1] != "instant" else (1, 0)
    else:
        version = (int(found[1]), int(found[2] or 0))
    for row_family, least, traits in _ROWS:
        if (row_family is None or (family and family[1] == row_family)) and version >= least:
            return traits
    raise AssertionError("the last row takes every model")
