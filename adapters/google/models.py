"""What differs between Google's models, as a table: the first row whose pattern matches counts.

Rows age: a provider's `quirks` of the same names win over them. A model that is not known is taken for a current one.
Sources: https://ai.google.dev/gemini-api/docs/thinking, https://ai.google.dev/gemini-api/docs/models
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

_FOUR = ("minimal", "low", "medium", "high")


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What a model takes."""

    thinking: Literal["level", "budget", "none"] = "level"  # thinkingLevel, thinkingBudget; never both
    levels: tuple[str, ...] = _FOUR  # from least to most
    budget_min: int = 0  # of a budget other than 0
    budget_max: int = 24_576
    budget_zero: bool = True  # thinking can be switched off
    signatures: bool = True  # a call in the history without its thoughtSignature is refused
    penalties: bool = False  # presencePenalty and frequencyPenalty
    json_with_tools: bool = True  # responseMimeType beside function declarations
    fetches_urls: bool = True  # any https URL as fileUri
    media_in_results: bool = True  # files inside a functionResponse
    system: bool = True  # systemInstruction
    schema: Literal["json", "openapi"] = "json"  # parametersJsonSchema, or only `parameters`


_BEFORE_3 = Model(thinking="budget", signatures=False, json_with_tools=False, media_in_results=False)
_BEFORE_25 = replace(_BEFORE_3, thinking="none", penalties=True, fetches_urls=False)
_TABLE: tuple[tuple[re.Pattern[str], Model], ...] = tuple(
    (re.compile(pattern), model)
    for pattern, model in (
        (r"gemma", replace(_BEFORE_25, penalties=False, system=False)),
        (r"gemini-(pro|ultra)$|gemini-1", replace(_BEFORE_25, schema="openapi")),
        (r"gemini-2\.0", _BEFORE_25),
        (r"gemini-2\.5.*(image|tts)", replace(_BEFORE_3, thinking="none")),
        (r"gemini-2\.5-pro", replace(_BEFORE_3, budget_min=128, budget_max=32_768, budget_zero=False)),
        (r"gemini-2\.5-flash-lite", replace(_BEFORE_3, budget_min=512)),
        (r"gemini-2\.5|gemini-robotics-er-1\.5", _BEFORE_3),
        (r"gemini-3-pro", Model(levels=("low", "high"))),
        (r"gemini-[3-9](\.\d+)?-pro", Model(levels=("low", "medium", "high"))),
    )
)


def model_of(name: str, quirks: Mapping[str, Any]) -> Model:
    """Return what the model takes, by its name without `models/` or `publishers/google/models/`."""
    found = next((model for pattern, model in _TABLE if pattern.match(name)), Model())
    known = {field.name for field in fields(Model)}
    return replace(found, **{key: value for key, value in quirks.items() if key in known})


def bare_name(model: str) -> str:
    """Return a model's name without the collection that it may be given with."""
    return model.rpartition("models/")[2].removeprefix("tunedModels/")
