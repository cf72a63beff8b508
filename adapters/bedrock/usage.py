"""Bedrock's token counts in OpenAI's arithmetic, and its stop reasons in OpenAI's words.

`inputTokens` is what no cache held: OpenAI's prompt is the sum of it and both cache counts. OpenAI's own models break
the rule when they stream: there it is already the sum, and `totalTokens` counts the cache twice.
Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html,
https://github.com/maximhq/bifrost/pull/6942
"""

from typing import Any

from adapters.base import JSON

TOKENS_MAX = 2**40  # a larger count is a mistake

_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "malformed_model_output": "stop",
    "malformed_tool_use": "stop",
}


def openai_usage(usage: Any, *, vendor: str = "", streamed: bool = False) -> JSON | None:
    """Return OpenAI's usage object, None if there is none to read; counts that are absurd are 0."""
    if not isinstance(usage, dict) or not usage:
        return None
    fresh, output = _count(usage, "inputTokens"), _count(usage, "outputTokens")
    read = _count(usage, "cacheReadInputTokens", "cacheReadInputTokenCount")
    write = _count(usage, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    cached = read + write
    inclusive = 0 < cached <= fresh and (
        (vendor == "openai" and streamed) or _count(usage, "totalTokens") == fresh + output
    )
    prompt = fresh if inclusive else fresh + cached
    details: JSON = {"cached_tokens": read, "cache_write_tokens": write}
    hour = min(write, _hour_tokens(usage.get("cacheDetails")))
    if hour:
        details["cache_write_1h_tokens"] = hour
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": details,
    }


def finish_reason(stop_reason: Any, *, calls: bool) -> str:
    """Return OpenAI's word for why it ended; `calls` tells whether the client got any tool call.

    What was said counts more than the word: calls that ended well are `tool_calls`, and without one nothing is.
    """
    reason = _REASONS.get(stop_reason, "stop") if isinstance(stop_reason, str) else "stop"
    if reason in {"stop", "tool_calls"}:
        return "tool_calls" if calls else "stop"
    return reason


def tier_of(answer: JSON) -> str | None:
    """Return the service tier in OpenAI's words, None where it has none for it."""
    tier = answer.get("serviceTier")
    name = tier.get("type") if isinstance(tier, dict) else None
    return name if name in ("default", "flex", "priority") else None


def _hour_tokens(details: Any) -> int:
    entries = details if isinstance(details, list) else []
    return sum(
        _count(entry, "inputTokens") for entry in entries if isinstance(entry, dict) and entry.get("ttl") == "1h"
    )


def _count(usage: JSON, *names: str) -> int:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= TOKENS_MAX:
            return int(value)
    return 0
