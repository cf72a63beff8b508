"""Token counts of one call, in the one arithmetic that prices and budgets use.

OpenAI's: `input` includes what was read from and written to a cache, `output` includes reasoning. Providers' numbers
that contradict each other are read so that nothing used is lost and nothing is negative.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

TOKENS_MAX = 2**40  # far above any call; a larger number is a provider's mistake


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one call. cached, cache_write, audio_input and image_input are parts of input; reasoning and audio_output of output."""

    input: int = 0
    cached: int = 0
    cache_write: int = 0  # to a cache of the usual lifetime (5 minutes)
    cache_write_1h: int = 0  # to a cache that lives an hour, which costs more
    audio_input: int = 0
    image_input: int = 0
    output: int = 0
    reasoning: int = 0
    audio_output: int = 0
    service_tier: str | None = None  # what the provider says it served: default, flex, priority
    estimated: bool = False  # counted by us, because the provider did not say

    @property
    def total(self) -> int:
        """Input and output together."""
        return self.input + self.output


def usage_from_openai(usage: Mapping[str, Any], *, service_tier: str | None = None) -> Usage:
    """Read OpenAI's `usage` object (of chat, completions, embeddings or responses).

    Output is the largest of what is said of it: completion, reasoning, and total less prompt; some providers leave the
    reasoning out of the completion. Absent, negative or absurd numbers count as 0. An explicit zero is a value.
    """
    first = _count(usage, "prompt_tokens") or _count(usage, "input_tokens")
    done = _count(usage, "completion_tokens") or _count(usage, "output_tokens")
    details_in = _part(usage, "prompt_tokens_details", "input_tokens_details")
    details_out = _part(usage, "completion_tokens_details", "output_tokens_details")
    total, estimated = _count(usage, "total_tokens"), usage.get("estimated") is True  # ours: a translator had to count
    if not (any(details_in.values()) or any(details_out.values())):  # none are told, or none but zeros
        output = max(done, total - first)
        return Usage(input=first, output=output, service_tier=service_tier, estimated=estimated)
    reasoning = _count(details_out, "reasoning_tokens")
    cached = min(_count(details_in, "cached_tokens"), first)
    cache_write_1h = min(_count(details_in, "cache_write_1h_tokens"), first - cached)
    cache_write = min(_count(details_in, "cache_write_tokens"), first - cached) - cache_write_1h
    output = max(done, reasoning, total - first)
    return Usage(
        input=first,
        cached=cached,
        cache_write=max(0, cache_write),
        cache_write_1h=cache_write_1h,
        audio_input=min(_count(details_in, "audio_tokens"), first),
        image_input=min(_count(details_in, "image_tokens"), first),
        output=output,
        reasoning=min(reasoning, output),
        audio_output=min(_count(details_out, "audio_tokens"), output),
        service_tier=service_tier,
        estimated=estimated,
    )


def _part(usage: Mapping[str, Any], key: str, other: str) -> Mapping[str, Any]:
    value = usage.get(key)
    if not (value and isinstance(value, dict)):
        value = usage.get(other)
    return value if isinstance(value, dict) else _NONE


def _count(usage: Mapping[str, Any], key: str) -> int:
    value = usage.get(key)
    if type(value) is int and 0 <= value <= TOKENS_MAX:  # nearly always
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= TOKENS_MAX:
        return 0
    return int(value)


_NONE: Mapping[str, Any] = {}
