"""Makes the adapter of a configured provider. The module of a kind is imported when the first such provider is made."""

import importlib

from adapters.base import Adapter, Endpoint

KINDS = {
    "openai": "OpenAIAdapter",
    "azure": "AzureAdapter",
    "xai": "XAIAdapter",
    "fake": "FakeAdapter",
    "anthropic": "AnthropicAdapter",
    "gemini": "GeminiAdapter",
    "vertex": "VertexAdapter",
    "bedrock": "BedrockAdapter",
}


def make_adapter(endpoint: Endpoint) -> Adapter:
    """Return the adapter of an endpoint's kind. Raises ValueError when the kind or one of its quirks is unknown."""
    if endpoint.kind not in KINDS:
        raise ValueError(f"unknown provider kind '{endpoint.kind}'; known are {', '.join(sorted(KINDS))}")
    module = importlib.import_module(f"adapters.providers.{endpoint.kind}")
    adapter: Adapter = getattr(module, KINDS[endpoint.kind])(endpoint)
    return adapter
