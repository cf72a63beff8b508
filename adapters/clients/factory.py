"""Makes a client by its provider's name, with what the environment says: the one module of the library that reads it.

A variable that is set but empty is not set. Several keys, with commas between them, are used in turn.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from adapters.clients.client import LLMClient
from adapters.clients.concrete import (
    AnthropicClient,
    AzureOpenAIClient,
    BedrockClient,
    CompatibleClient,
    GoogleAIClient,
    OpenAIClient,
    VertexAIClient,
    XAIClient,
)
from adapters.clients.errors import AuthenticationError
from adapters.presets import PRESETS

_NAMES = {
    "openai": "openai",
    "anthropic": "anthropic", "claude": "anthropic",
    "google": "google", "googleai": "google", "gemini": "google",
    "vertex": "vertex", "vertexai": "vertex", "googlevertex": "vertex",
    "xai": "xai", "grok": "xai",
    "azure": "azure", "azureopenai": "azure",
    "bedrock": "bedrock", "aws": "bedrock", "amazonbedrock": "bedrock",
    "compatible": "compatible", "openaicompatible": "compatible",
}  # fmt: skip
_KEYS: Mapping[str, tuple[str, ...]] = {
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY",),
    "google": ("GOOGLE_AI_API_KEY", "GEMINI_API_KEY"),
    "xai": ("XAI_API_KEY",),
    "azure": ("AZURE_OPENAI_API_KEY",),
    "bedrock": ("AWS_BEARER_TOKEN_BEDROCK",),
}


def create_client(
    provider: str, api_key: str | list[str] | None = None, *, environ: Mapping[str, str] | None = None, **options: Any
) -> LLMClient:
    """Return the client of a provider or preset, whose name may be written in any case, with or without dashes.

    What is not given comes from the environment: the key, addresses, region and project by the names that the vendors' own
    SDKs read, LLM_DEFAULT_MODEL and LLM_TIMEOUT. Raises ValueError for an unknown name, AuthenticationError without a key.
    """
    given = os.environ if environ is None else environ  # noqa: TID251 - this is the function that is documented to look there
    name = re.sub(r"[\s_.-]", "", provider).lower()
    if given.get("LLM_DEFAULT_MODEL"):
        options.setdefault("model", given["LLM_DEFAULT_MODEL"])
    if given.get("LLM_TIMEOUT"):
        options.setdefault("timeout", _seconds(given["LLM_TIMEOUT"]))
    if name in PRESETS:
        variable = PRESETS[name].key_env
        return CompatibleClient(api_key=_keys(api_key, given, (variable,) if variable else ()), preset=name, **options)
    kind = _NAMES.get(name)
    if kind is None:
        known = sorted({*_NAMES.values(), *PRESETS})
        raise ValueError(f"unknown provider {provider!r}; known are {', '.join(known)}")
    keys = _keys(api_key, given, _KEYS.get(kind, ()))
    if kind == "compatible":
        return CompatibleClient(api_key=keys, **options)
    return _keyed(kind, keys, given, options) if kind in _KEYED else _MAKERS[kind](keys, given, options)


def _keyed(kind: str, keys: list[str], environ: Mapping[str, str], options: dict[str, Any]) -> LLMClient:
    """Make one whose vendor wants a key, and nothing else. A server at another address may want none."""
    if kind == "openai" and environ.get("OPENAI_BASE_URL"):
        options.setdefault("base_url", environ["OPENAI_BASE_URL"])
    if not keys and not options.get("base_url"):
        raise AuthenticationError(f"{kind} wants an API key: give api_key=, or set {_KEYS[kind][0]}", provider=kind)
    return _KEYED[kind](keys, **options)


def _azure(keys: list[str], environ: Mapping[str, str], options: dict[str, Any]) -> LLMClient:
    endpoint = options.pop("endpoint", None) or environ.get("AZURE_OPENAI_ENDPOINT")
    if not endpoint:
        raise ValueError("azure wants its endpoint: give endpoint=, or set AZURE_OPENAI_ENDPOINT")
    if environ.get("OPENAI_API_VERSION"):
        options.setdefault("api_version", environ["OPENAI_API_VERSION"])
    return AzureOpenAIClient(keys, endpoint=endpoint, environ=environ, **options)


def _bedrock(keys: list[str], environ: Mapping[str, str], options: dict[str, Any]) -> LLMClient:
    region = options.pop("region", None) or environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    if not region:
        raise ValueError("bedrock wants its region: give region=, or set AWS_REGION")
    return BedrockClient(region, api_key=keys, environ=environ, **options)


def _vertex(keys: list[str], environ: Mapping[str, str], options: dict[str, Any]) -> LLMClient:
    project = options.pop("project", None) or environ.get("GOOGLE_CLOUD_PROJECT")
    location = options.pop("location", None) or environ.get("GOOGLE_CLOUD_LOCATION")
    return VertexAIClient(project, location, api_key=keys, environ=environ, **options)


_KEYED: Mapping[str, Callable[..., LLMClient]] = {
    "openai": OpenAIClient,
    "anthropic": AnthropicClient,
    "google": GoogleAIClient,
    "xai": XAIClient,
}
_MAKERS: Mapping[str, Callable[[list[str], Mapping[str, str], dict[str, Any]], LLMClient]] = {
    "vertex": _vertex,
    "azure": _azure,
    "bedrock": _bedrock,
}


def _keys(api_key: str | list[str] | None, environ: Mapping[str, str], variables: tuple[str, ...]) -> list[str]:
    if api_key:
        return [api_key] if isinstance(api_key, str) else list(api_key)
    text = next((environ[name] for name in variables if environ.get(name)), "")
    return [key.strip() for key in text.split(",") if key.strip()]


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError("LLM_TIMEOUT wants a number of seconds above 0")
    return seconds
