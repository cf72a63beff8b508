"""The library: Bursar's adapters as LLM clients for Python services, without the proxy.

    async with create_client("openai", model="gpt-4o-mini") as client:
        answer = await client.generate_text([LLMMessage("user", "Hello")])

A name is imported when it is first asked for. Unlike everything else in `adapters`, the clients use `accounting`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adapters.clients.base import BaseLLMClient
    from adapters.clients.batch import BatchItem, generate_batch
    from adapters.clients.cache import ResponseCache
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
    from adapters.clients.cost import CostController
    from adapters.clients.errors import (
        AuthenticationError,
        BudgetExceededError,
        LLMClientError,
        ModelNotFoundError,
        ProviderNotAvailableError,
        RateLimitError,
    )
    from adapters.clients.factory import create_client
    from adapters.clients.messages import LLMMessage, LLMResponse
    from adapters.clients.options import Access
    from adapters.clients.retrying import Retry

HOMES = {
    "Access": "options",
    "AnthropicClient": "concrete",
    "AuthenticationError": "errors",
    "AzureOpenAIClient": "concrete",
    "BaseLLMClient": "base",
    "BatchItem": "batch",
    "BedrockClient": "concrete",
    "BudgetExceededError": "errors",
    "CompatibleClient": "concrete",
    "CostController": "cost",
    "GoogleAIClient": "concrete",
    "LLMClient": "client",
    "LLMClientError": "errors",
    "LLMMessage": "messages",
    "LLMResponse": "messages",
    "ModelNotFoundError": "errors",
    "OpenAIClient": "concrete",
    "ProviderNotAvailableError": "errors",
    "RateLimitError": "errors",
    "ResponseCache": "cache",
    "Retry": "retrying",
    "VertexAIClient": "concrete",
    "XAIClient": "concrete",
    "create_client": "factory",
    "generate_batch": "batch",
}

__all__ = [
    "Access",
    "AnthropicClient",
    "AuthenticationError",
    "AzureOpenAIClient",
    "BaseLLMClient",
    "BatchItem",
    "BedrockClient",
    "BudgetExceededError",
    "CompatibleClient",
    "CostController",
    "GoogleAIClient",
    "LLMClient",
    "LLMClientError",
    "LLMMessage",
    "LLMResponse",
    "ModelNotFoundError",
    "OpenAIClient",
    "ProviderNotAvailableError",
    "RateLimitError",
    "ResponseCache",
    "Retry",
    "VertexAIClient",
    "XAIClient",
    "create_client",
    "generate_batch",
]


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{HOMES[name]}"), name)
