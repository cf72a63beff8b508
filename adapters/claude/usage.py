"""Claude's token counts in OpenAI's arithmetic.

Claude's `input_tokens` is only what no cache was asked for; OpenAI's prompt is all of it. Thinking is inside the output
in both. `cache_write_tokens` includes those of `cache_write_1h_tokens`.
Source: https://platform.claude.com/docs/en/build-with-claude/prompt-caching
"""

from collections.abc import Mapping
from typing import Any

from adapters.base import JSON

_TOKENS_MAX = 2**40
_TIERS = {"standard": "default", "priority": "priority"}


def usage_of(usage: Mapping[str, Any]) -> JSON:
    """Return OpenAI's usage object; absent and absurd counts are 0."""
    created = _part(usage, "cache_creation")
    hour = _count(created, "ephemeral_1h_input_tokens")
    written = max(_count(usage, "cache_creation_input_tokens"), hour + _count(created, "ephemeral_5m_input_tokens"))
    cached = _count(usage, "cache_read_input_tokens")
    prompt = _count(usage, "input_tokens") + written + cached
    completion = _count(usage, "output_tokens")
    thought = min(_count(_part(usage, "output_tokens_details"), "thinking_tokens"), completion)
    details: JSON = {"cached_tokens": cached, "cache_write_tokens": written}
    if hour:
        details["cache_write_1h_tokens"] = hour
    made: JSON = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": details,
        "completion_tokens_details": {"reasoning_tokens": thought},
    }
    server = {key: value for key, value in _part(usage, "server_tool_use").items() if value}
    return {**made, "server_tool_use": server} if server else made


def merged(usage: JSON, later: Any) -> JSON:
    """Return the usage with a later event's counts over it; they are totals, and null says nothing."""
    if not isinstance(later, dict):
        return usage
    return {**usage, **{key: value for key, value in later.items() if value is not None}}


def tier_of(usage: Mapping[str, Any]) -> str | None:
    """Return OpenAI's name of the service tier, None for those that it does not have."""
    tier = usage.get("service_tier")
    return _TIERS.get(tier) if isinstance(tier, str) else None


def _part(usage: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = usage.get(key)
    return value if isinstance(value, Mapping) else {}


def _count(usage: Mapping[str, Any], key: str) -> int:
    value = usage.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _TOKENS_MAX:
        return 0
    return int(value)
