"""Starts the built-in provider for each configured one of `kind: fake` that names no address of its own."""

import time
from contextlib import AsyncExitStack

import msgspec

from accounting.tokens.counter import count_text
from proxy.config.model import Config
from proxy.config.providers import kind_of


class BuiltInProviders:
    """Runs them; `pace` is tokens per second (0: as fast as they can be sent). They count with the tokenizer that Bursar counts with."""

    def __init__(self, pace: float = 0) -> None:
        self._pace = pace
        self._urls: dict[str, str] = {}
        self._running = AsyncExitStack()

    async def start(self, config: Config) -> None:
        """Start those that are wanted and not yet running."""
        for name, provider in config.providers.items():
            if kind_of(provider) == "fake" and provider.base_url is None and name not in self._urls:
                from proxy.fake import FakeProvider

                fake = FakeProvider(pace=self._pace, count=_count, clock=time.time)  # noqa: TID251 - `created` is wall time
                await self._running.enter_async_context(fake)
                self._urls[name] = fake.url

    def placed(self, config: Config) -> Config:
        """Return the configuration with their addresses filled in."""
        providers = {
            name: msgspec.structs.replace(provider, base_url=self._urls[name]) if name in self._urls else provider
            for name, provider in config.providers.items()
        }
        return msgspec.structs.replace(config, providers=providers)

    async def stop(self) -> None:
        """Stop them all."""
        await self._running.aclose()


def _count(text: str) -> int:
    return count_text(text, "o200k_base")
