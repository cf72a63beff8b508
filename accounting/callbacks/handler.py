"""What a callback is: three methods over plain dicts, so that it depends on no client's types."""

from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import Any, TypeAlias

JSON: TypeAlias = dict[str, Any]


class CustomAsyncCallbackHandler(ABC):
    """Hears of a call's start, then of its end or its failure. What it returns is kept only by a composite.

    The runner calls it on a loop and in a thread that belong to its kind of handler, several calls at once; the events of
    one call come in their order, one after the other. What is raised is counted, and logged by the handler's name alone.
    """

    @abstractmethod
    async def on_llm_start(self, messages: list[JSON], **kwargs: Any) -> Any:
        """Hear that a call is sent; kwargs: provider, model, temperature, max_tokens, request_id, user."""

    @abstractmethod
    async def on_llm_end(self, response: JSON, **kwargs: Any) -> Any:
        """Hear of an answer; kwargs as at the start, and `cancelled` where the caller hung up.

        Its keys: content, tokens_used, prompt_tokens, completion_tokens, provider, model, response_time (seconds),
        cost_estimate (USD, None where no price is known).
        """

    @abstractmethod
    async def on_llm_error(self, error: Exception, **kwargs: Any) -> Any:
        """Hear of a failure; kwargs as at the start, and tokens_used, prompt_tokens, completion_tokens of what was billed."""

    async def health_check(self) -> JSON:
        """Return `{"status": "healthy" | "unhealthy", "error"?, "timestamp"}`; never raises."""
        return healthy()

    async def close(self) -> None:  # noqa: B027 - most handlers hold nothing
        """Give back what the handler holds; called on the loop that its calls were made on."""


def healthy() -> JSON:
    """Return the answer of something that works, with the time of now (RFC 3339, UTC)."""
    return {"status": "healthy", "timestamp": datetime.now(UTC).isoformat()}


def unhealthy(error: BaseException | str) -> JSON:
    """Return the answer of something that does not; of an exception that is not ours only the kind is told."""
    text = error if isinstance(error, str) else type(error).__name__
    return {"status": "unhealthy", "error": text, "timestamp": datetime.now(UTC).isoformat()}
