"""Anthropic's own API, and hosts that speak it as it is (Azure AI Foundry with its `/anthropic` base URL).

Everything about the body is in `adapters.claude`, since other clouds host Claude under other addresses.
Source: https://platform.claude.com/docs/en/api/messages/create
"""

from adapters.base import Adapter, Call, Endpoint, Exchange
from adapters.claude.exchange import ClaudeExchange
from adapters.claude.request import media_urls
from adapters.memory import Memory


class AnthropicAdapter(Adapter):
    """One configured provider of kind anthropic; remembers its models' thoughts between the turns of a tool loop."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._memory = Memory()
        base = endpoint.base_url.rstrip("/").removesuffix("/v1")
        self._url = f"{base}/v1/messages"

    def exchange(self, call: Call) -> Exchange:
        return ClaudeExchange(call, url=self._url, host="anthropic", memory=self._memory, options=self.endpoint.options)

    def wanted_media(self, call: Call) -> tuple[str, ...]:
        return media_urls(call, "anthropic")
