"""What a server that speaks OpenAI's format does otherwise, as a table: names, allowed values, meanings.

A quirk is data so that a new server is configuration, not code: kinds and presets have rows, and `quirks` of an endpoint
overrides them one by one. What a stranger would get wrong: the field for the limit depends on the model as well. A server
at an unknown address may be an old local one (knows only `max_tokens`) or a gateway to OpenAI, whose reasoning models
refuse `max_tokens`; so under `auto` the names of OpenAI's own models decide.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from adapters.base import Endpoint
from adapters.presets import PRESETS

LimitField = Literal["auto", "max_tokens", "max_completion_tokens"]

_OPENAI_MODEL = re.compile(r"(?:.*/)?(?:ft:)?(?:gpt-[3-9]|o[1-9](?![0-9a-z])|chatgpt-|codex-)", re.IGNORECASE)
_OPENAI_HOST = re.compile(r"https://(?:[a-z0-9-]+\.)?api\.openai\.com(?:[:/]|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quirks:
    """The settled quirks of one endpoint; the defaults are OpenAI's own behaviour."""

    limit_field: LimitField = "auto"
    stream_options: Literal["known", "needless", "unknown"] = "known"
    developer_role: bool = True
    drop: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    tool_id: Literal["any", "nine"] = "any"
    reasoning_echo: bool = False
    reasoning_apart: bool = False
    fill_first_chunk: bool = False

    renames: bool = field(init=False)  # something may have to be sent under another name
    any_history: bool = field(init=False)  # messages go as they are

    def __post_init__(self) -> None:
        object.__setattr__(self, "renames", bool(self.rename) or self.limit_field == "max_tokens")
        any_history = self.developer_role and self.tool_id == "any" and not self.reasoning_echo
        object.__setattr__(self, "any_history", any_history)

    def limit_field_for(self, model: str) -> str:
        """Return the chat field that takes the output limit of this upstream model."""
        if self.limit_field != "auto":
            return self.limit_field
        return "max_completion_tokens" if _OPENAI_MODEL.match(model) else "max_tokens"


# name -> (what a value must be, what it means)
TABLE: Mapping[str, tuple[Any, str]] = {
    "limit_field": (("auto", "max_tokens", "max_completion_tokens"), "the chat field that takes the output limit"),
    "stream_options": (
        ("known", "needless", "unknown"),
        "known: usage is asked for with it; needless: usage comes unasked, so it is not added; unknown: taken out as well",
    ),
    "developer_role": (bool, "the server knows the role developer; else it is sent as system"),
    "drop": (list, "top-level request fields that the server refuses and an answer does not depend on"),
    "rename": (dict, "top-level request fields that the server knows by another name"),
    "tool_id": (("any", "nine"), "nine: tool call ids must be nine letters or digits (Mistral)"),
    "reasoning_echo": (bool, "assistant turns with tool calls must carry reasoning_content (DeepSeek, Kimi)"),
    "reasoning_apart": (bool, "usage.completion_tokens leaves the reasoning out (xAI)"),
    "fill_first_chunk": (bool, "the stream begins with a chunk without id, object and choices (Azure)"),
}

_BY_KIND: Mapping[str, Mapping[str, Any]] = {
    "azure": {"limit_field": "max_completion_tokens", "fill_first_chunk": True},
    "xai": {"limit_field": "max_completion_tokens", "reasoning_apart": True},
}


def quirks_of(endpoint: Endpoint) -> Quirks:
    """Return the quirks of an endpoint: its kind's, then its preset's, then its own. Raises ValueError as `check` does."""
    preset = PRESETS.get(endpoint.preset or "")
    rows: dict[str, Any] = dict(_BY_KIND.get(endpoint.kind, {}))
    if endpoint.kind == "openai" and is_openai(endpoint.base_url):
        rows["limit_field"] = "max_completion_tokens"
    rows |= preset.quirks if preset else {}
    rows |= endpoint.quirks
    check(rows)
    rows["drop"] = tuple(rows.get("drop", ()))
    return Quirks(**rows)


def check(quirks: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the quirk and what it may be, when a row is not as the table says."""
    for name, value in quirks.items():
        if name not in TABLE:
            raise ValueError(f"unknown quirk '{name}'; known are {', '.join(sorted(TABLE))}")
        allowed = TABLE[name][0]
        if isinstance(allowed, tuple):
            if value not in allowed:
                raise ValueError(f"quirk '{name}' must be one of {', '.join(allowed)}")
        elif allowed is bool and not isinstance(value, bool):
            raise ValueError(f"quirk '{name}' must be true or false")
        elif allowed is list and not _are_texts(value):
            raise ValueError(f"quirk '{name}' must be a list of field names")
        elif allowed is dict and not (isinstance(value, Mapping) and _are_texts([*value, *value.values()])):
            raise ValueError(f"quirk '{name}' must map field names to field names")


def is_openai(base_url: str) -> bool:
    """Tell whether this address is OpenAI's own, regional ones included; only there is `repair: auto` off."""
    return _OPENAI_HOST.match(base_url) is not None


def _are_texts(value: object) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str) and all(isinstance(v, str) and v for v in value)
