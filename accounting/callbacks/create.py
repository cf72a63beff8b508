"""Makes handlers in one line."""

from accounting.callbacks.composite import CompositeCallbackHandler
from accounting.callbacks.handler import CustomAsyncCallbackHandler
from accounting.callbacks.tokens import DetailedRedisTokenCallbackHandler, RedisTokenCallbackHandler
from accounting.repository import TokenUsageRepository


def create_token_callback(
    user_id: str, cycle_start_date: str | None = None, *, repository: TokenUsageRepository | None = None
) -> RedisTokenCallbackHandler:
    """Return a handler that adds to the user's total. Raises ValueError as the handler does."""
    return RedisTokenCallbackHandler(user_id, cycle_start_date, repository=repository)


def create_detailed_token_callback(
    user_id: str, cycle_start_date: str | None = None, *, repository: TokenUsageRepository | None = None
) -> DetailedRedisTokenCallbackHandler:
    """Return a handler that keeps prompt and completion apart. Raises ValueError as the handler does."""
    return DetailedRedisTokenCallbackHandler(user_id, cycle_start_date, repository=repository)


def create_composite_callback(*handlers: CustomAsyncCallbackHandler) -> CompositeCallbackHandler:
    """Return all of them as one, run together."""
    return CompositeCallbackHandler(handlers)
