"""Google's token counts in OpenAI's arithmetic.

Thoughts are beside the candidates' tokens here but inside the completion there; what server-side tools put into the
prompt is beside the prompt's. `serviceTier` and `trafficType` are no counts.
Source: https://ai.google.dev/api/generate-content#UsageMetadata
"""

from typing import Any

from adapters.base import JSON
from adapters.lenient import items

TOKENS_MAX = 2**40
_TIERS = {"standard": "default", "flex": "flex", "priority": "priority"}


def usage_of(metadata: Any) -> JSON | None:
    """Return OpenAI's `usage`, or None if `metadata` counts nothing (some chunks say only {trafficType})."""
    if not isinstance(metadata, dict) or not any(key.endswith("TokenCount") for key in metadata):
        return None
    prompt = _count(metadata, "promptTokenCount") + _count(metadata, "toolUsePromptTokenCount")
    thoughts = _count(metadata, "thoughtsTokenCount")
    completion = _count(metadata, "candidatesTokenCount") + thoughts
    if "promptTokenCount" in metadata:  # a count may be missing while the total knows of it
        completion = max(completion, _count(metadata, "totalTokenCount") - prompt)
    into = _modalities(metadata, "promptTokensDetails", "toolUsePromptTokensDetails")
    out = _modalities(metadata, "candidatesTokensDetails", "responseTokensDetails")
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": _count(metadata, "cachedContentTokenCount"), **into},
        "completion_tokens_details": {"reasoning_tokens": thoughts, **out},
    }


def tier_of(metadata: Any) -> str | None:
    """Return the service tier that was served, in OpenAI's words; None if it was not said."""
    tier = metadata.get("serviceTier") if isinstance(metadata, dict) else None
    return _TIERS.get(tier.lower().removeprefix("service_tier_")) if isinstance(tier, str) else None


def _modalities(metadata: JSON, *keys: str) -> JSON:
    counts = {"audio_tokens": 0, "image_tokens": 0}
    for key in keys:
        for detail in items(metadata.get(key)):
            name = {"AUDIO": "audio_tokens", "IMAGE": "image_tokens"}.get(str(detail.get("modality")))
            if name:
                counts[name] += _count(detail, "tokenCount")
    return {name: count for name, count in counts.items() if count or name == "audio_tokens"}


def _count(holder: JSON, key: str) -> int:
    value = holder.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= TOKENS_MAX:
        return 0
    return int(value)
