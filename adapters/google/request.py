"""A chat request as a generateContent body; the URL is the provider's.

Fields of Google's own may stand at the top level of the client's request, under their names in either spelling, or where
Google's own OpenAI endpoint takes them: `extra_body.google`. Source: https://ai.google.dev/api/generate-content
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from adapters.base import JSON, Call
from adapters.exact import dumps_exact
from adapters.google.config import NATIVE_CONFIG, config_of
from adapters.google.contents import Writing, contents_of
from adapters.google.models import Model
from adapters.google.tooling import has_functions, tooling_of
from adapters.messages import normalise
from adapters.treatment import OPENAI_FIELDS, Treatment

_DROPPED = frozenset(
    [
        "logit_bias",
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "store",
        "user",
        "verbosity",
    ]
)
_REFUSED = {"moderation": "This provider does not moderate as OpenAI does; use safetySettings."}
_SNAKE = {
    "cached_content": "cachedContent",
    "safety_settings": "safetySettings",
    "generation_config": "generationConfig",
    "tool_config": "toolConfig",
    "model_armor_config": "modelArmorConfig",
}
_NATIVE = frozenset([*_SNAKE, *_SNAKE.values(), *NATIVE_CONFIG, "labels", "google", "extra_body"])
_VERTEX_ONLY = frozenset(["labels", "modelArmorConfig"])
GEMINI = Treatment(
    provider="Gemini",
    mapped=OPENAI_FIELDS - _DROPPED - frozenset(_REFUSED),
    dropped=_DROPPED,
    refused=_REFUSED,
    native=_NATIVE,
)
VERTEX = Treatment(
    provider="Vertex AI",
    mapped=GEMINI.mapped | {"metadata"},
    dropped=_DROPPED - {"metadata"},
    refused=_REFUSED,
    native=_NATIVE,
)
_TIERS = {"default": "standard", "flex": "flex", "priority": "priority", "fast": "priority"}
_LABEL = re.compile(r"[^a-z0-9_-]")
_LABEL_MAX = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What Gemini and Vertex take differently, and what a request needs to know of its provider."""

    vertex: bool
    model: Model
    recall: Callable[[str], str | None]  # the id of a call -> its remembered signature


def request_body(call: Call, dialect: Dialect) -> tuple[bytes, tuple[str, ...]]:
    """Return the body and the paths of the fields that had no place in it.

    Raises InvalidRequestError and UnsupportedParameterError, naming the field.
    """
    body = call.body
    top, config_native, dropped = _native(body, dialect)
    conversation = normalise(body)
    writing = Writing(model=dialect.model, recall=dialect.recall, media=call.media)
    contents, system = contents_of(conversation, writing)
    tooling, unplaced = tooling_of(body, dialect.model)
    config, knobs = config_of(call, dialect.model, config_native, has_functions=has_functions(tooling))
    out: JSON = {"systemInstruction": system} if system else {}
    out.update(tooling)
    if config:
        out["generationConfig"] = config
    tier = body.get("service_tier")
    if isinstance(tier, str) and tier in _TIERS:
        out["serviceTier"] = _TIERS[tier]
    elif tier not in (None, "auto"):
        knobs.append("service_tier")
    labels = _labels(body.get("metadata")) if dialect.vertex else {}
    if labels:
        out["labels"] = labels
    for name, value in top.items():
        old = out.get(name)
        out[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    out["contents"] = contents
    return dumps_exact(out), tuple(dict.fromkeys([*dropped, *conversation.dropped, *unplaced, *knobs]))


def _native(body: JSON, dialect: Dialect) -> tuple[JSON, JSON, list[str]]:
    """Return the client's native fields of the top level and of generationConfig, and the names of what is dropped."""
    native, dropped = (VERTEX if dialect.vertex else GEMINI).apply(body)
    if body.get("store") is False and "store" in dropped:
        dropped.remove("store")  # nothing is stored anyway
    extra = native.pop("extra_body", None)
    for holder in (extra.get("google") if isinstance(extra, dict) else None, native.pop("google", None)):
        if isinstance(holder, dict):
            native.update(holder)
    top: JSON = {}
    config: JSON = {}
    for name, value in native.items():
        camel = _SNAKE.get(name, name)
        if camel == "generationConfig":
            config.update(value if isinstance(value, dict) else {})
        elif name in NATIVE_CONFIG:
            config[name] = value
        elif (camel in _VERTEX_ONLY and not dialect.vertex) or name not in _NATIVE:
            dropped.append(camel if camel in _VERTEX_ONLY else "extra_body")
        else:
            top[camel] = value
    return top, config, dropped


def _labels(metadata: Any) -> JSON:
    """Return metadata as labels: lower case, and of letters, digits, _ and - only."""
    if not isinstance(metadata, dict):
        return {}
    pairs = ((_label(key), _label(value)) for key, value in metadata.items() if isinstance(value, str))
    return {key: value for key, value in pairs if key[:1].isalpha()}


def _label(text: str) -> str:
    return _LABEL.sub("_", text.lower())[:_LABEL_MAX]
