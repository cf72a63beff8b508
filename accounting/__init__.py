"""Tokens, prices, budgets, the ledger in Redis, the journal, callbacks. Knows nothing of HTTP."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accounting.repository import TokenUsageRepository

__all__ = ["TokenUsageRepository"]


def __getattr__(name: str) -> Any:
    """Import the library's names when they are first asked for."""
    if name == "TokenUsageRepository":
        from accounting.repository import TokenUsageRepository

        return TokenUsageRepository
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
