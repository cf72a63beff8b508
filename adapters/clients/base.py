"""What every client offers: an answer whole or piece by piece, closed by `async with`."""

import math
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from adapters.clients.messages import JSON, LLMMessage, LLMResponse

if TYPE_CHECKING:
    from accounting.callbacks import CustomAsyncCallbackHandler

CHARS_PER_TOKEN = 4
TEMPERATURE = 0.7
_MILLION = 1_000_000


class BaseLLMClient(ABC):
    """An async context manager. `provider_name` is what its answers and errors name."""

    def __init__(self, provider_name: str) -> None:
        self.provider_name = provider_name

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @abstractmethod
    async def generate_text(
        self,
        messages: list[LLMMessage],
        model: str | None = None,
        temperature: float = TEMPERATURE,
        max_tokens: int | None = None,
        *,
        callbacks: "Sequence[CustomAsyncCallbackHandler]" = (),
        **kwargs: Any,
    ) -> LLMResponse:
        """Return the whole answer. `kwargs`: `user` and `request_id` for callbacks; all others are OpenAI's own fields.

        Raises LLMClientError, and ValueError for messages that are none.
        """

    @abstractmethod
    def stream_text(
        self,
        messages: list[LLMMessage],
        model: str | None = None,
        temperature: float = TEMPERATURE,
        max_tokens: int | None = None,
        *,
        callbacks: "Sequence[CustomAsyncCallbackHandler]" = (),
        **kwargs: Any,
    ) -> AsyncGenerator[str, None]:
        """Yield pieces of text as they come. Leaving the loop early ends the call, once the generator is closed.

        Raises as `generate_text`, also after the first piece.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let callbacks end, then close all connections; twice is fine."""

    async def health_check(self) -> JSON:
        """Return `{"status": "healthy" | "unhealthy", "error"?, "timestamp"}`; never raises."""
        return {"status": "healthy", "timestamp": datetime.now(UTC).isoformat()}

    def count_tokens(self, text: str, model: str) -> int:
        """Count a text by the model's own tokenizer where there is one, else at or above what the model takes."""
        from accounting.tokens.counter import count_completions

        return count_completions({"prompt": text}, model)

    def _count_tokens_estimate(self, text: str) -> int:
        """Return a rough count, by characters: costs nothing, knows no model."""
        return math.ceil(len(text) / CHARS_PER_TOKEN)

    def _estimate_cost(
        self,
        model: str,
        input_tokens: int,
        output_tokens: int,
        token_costs: Mapping[str, Mapping[str, float]],
    ) -> float:
        """Return USD. `token_costs`: model -> {input, output} in USD per million tokens. Raises ValueError for another model."""
        costs = token_costs.get(model)
        if costs is None:
            raise ValueError(f"no price for the model {model!r}")
        return (input_tokens * costs.get("input", 0.0) + output_tokens * costs.get("output", 0.0)) / _MILLION
