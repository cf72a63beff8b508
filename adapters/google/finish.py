"""Why Google's model stopped, in OpenAI's five words.

STOP stands for tool calls too; OpenAI's word for those depends on what was seen before. Reasons that OpenAI has no word
for become `stop`, with Google's own word beside it: the answer is what there is, and a null would break the SDKs.
Source: https://ai.google.dev/api/generate-content#FinishReason
"""

FILTERED = frozenset(
    [
        "SAFETY",
        "RECITATION",
        "BLOCKLIST",
        "PROHIBITED_CONTENT",
        "SPII",
        "LANGUAGE",
        "IMAGE_SAFETY",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "MODEL_ARMOR",
        "NO_IMAGE",
        "ESCALATION",
        "JAILBREAK",
    ]
)
_PLAIN = frozenset(["", "STOP", "MAX_TOKENS", "FINISH_REASON_UNSPECIFIED"]) | FILTERED


def finish_of(native: str, *, called: bool, legacy: bool = False) -> str:
    """Return OpenAI's finish_reason; `called` if the choice made a call, `legacy` if the client speaks of functions."""
    if native == "MAX_TOKENS":
        return "length"
    if native in FILTERED:
        return "content_filter"
    if called:
        return "function_call" if legacy else "tool_calls"
    return "stop"


def is_unusual(native: str) -> bool:
    """Tell whether OpenAI's word says less than Google's, so that the client should see both."""
    return native not in _PLAIN
