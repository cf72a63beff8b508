"""What each family of models on Bedrock takes, as data: Converse is one interface, but its models are not alike.

A model that no row knows (a new vendor, an application inference profile whose ARN tells nothing) is sent whatever the
client asked for: Bedrock's own refusal is clearer than a guess of ours. The first row that matches wins.
Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/conversation-inference-supported-models-features.html,
https://docs.aws.amazon.com/bedrock/latest/userguide/structured-output.html and
https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeAlias

MAX_TOKENS_DEFAULT = 4096  # of a model that the table does not know; every model on Bedrock but the oldest takes it

Reasoning: TypeAlias = Literal["budget", "adaptive", "gpt_oss", "nova2", "qwen"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One family: the forms of Converse that it takes. The defaults are those of an unknown model."""

    vendor: str = ""
    tool_choice: frozenset[str] = frozenset({"any", "tool"})  # beside auto, which all that know tools take
    tools: bool = True
    system: bool = True
    json_schema: bool = False  # outputConfig.textFormat
    strict_tools: bool = True
    tool_results: Literal["text", "json"] = "text"  # what a result's text is sent as
    tool_results_alone: bool = False  # a turn with results may hold nothing else
    reasoning: Reasoning | None = None
    efforts: tuple[str, ...] = ("low", "medium", "high")  # weakest first
    keeps_reasoning: bool = False  # takes signed reasoning back
    sampling: Literal["both", "either", "none"] = "both"  # temperature and top_p
    cache: frozenset[str] = frozenset({"system", "messages", "tools"})
    cache_ttl: bool = False  # a cache point may say how long
    top_k: tuple[str, ...] = ("top_k",)  # its path in additionalModelRequestFields
    starts_with_user: bool = False
    audio: bool = True
    max_tokens: int = MAX_TOKENS_DEFAULT


_NO_CACHE: frozenset[str] = frozenset()
_NO_CHOICE: frozenset[str] = frozenset()

_CLAUDE = Model(
    vendor="anthropic", json_schema=False, strict_tools=False, keeps_reasoning=True, audio=False, cache_ttl=False
)
_CLAUDE_4 = replace(_CLAUDE, reasoning="budget", max_tokens=64000)
_CLAUDE_45 = replace(_CLAUDE_4, json_schema=True, strict_tools=True, sampling="either", cache_ttl=True)
_CLAUDE_46 = replace(_CLAUDE_45, reasoning="adaptive", efforts=("low", "medium", "high", "max"), max_tokens=128000)
_CLAUDE_47 = replace(_CLAUDE_46, json_schema=False, sampling="none", efforts=("low", "medium", "high", "xhigh", "max"))
_NOVA = Model(
    vendor="amazon",
    strict_tools=False,
    cache=frozenset({"system", "messages"}),
    top_k=("inferenceConfig", "topK"),
    starts_with_user=True,
    max_tokens=5000,
)
_OPEN = Model(cache=_NO_CACHE, starts_with_user=True, strict_tools=False, max_tokens=8192)
_OPEN_SCHEMA = replace(_OPEN, json_schema=True, strict_tools=True)

# matched against the id without region prefixes and ARN, from its start
_TABLE: tuple[tuple[str, Model], ...] = (
    (r"anthropic\.claude-(v2|instant)", replace(_CLAUDE, tools=False, cache=_NO_CACHE)),
    (r"anthropic\.claude-3-(haiku|sonnet|opus)", replace(_CLAUDE, cache=_NO_CACHE)),
    (r"anthropic\.claude-3-5", replace(_CLAUDE, max_tokens=8192)),
    (r"anthropic\.claude-3-7", replace(_CLAUDE_4)),
    (r"anthropic\.claude-opus-4-1\b", replace(_CLAUDE_4, sampling="either", max_tokens=32000)),
    (r"anthropic\.claude-opus-4-(0\b|\d{8})", replace(_CLAUDE_4, max_tokens=32000)),
    (r"anthropic\.claude-sonnet-4-(0\b|\d{8})", _CLAUDE_4),
    (r"anthropic\.claude-(opus|sonnet|haiku)-4-5\b", _CLAUDE_45),
    (r"anthropic\.claude-(opus|sonnet|haiku)-4-6\b", _CLAUDE_46),
    (r"anthropic\.", _CLAUDE_47),  # later ones
    # its effort "high" forbids an output limit, without which nothing can be promised about cost
    (r"amazon\.nova-2", replace(_NOVA, reasoning="nova2", efforts=("low", "medium"), max_tokens=65535)),
    (r"amazon\.nova-premier", replace(_NOVA, max_tokens=32000)),
    (r"amazon\.nova", _NOVA),
    (r"amazon\.titan-text", replace(_OPEN, tools=False, system=False, max_tokens=3072)),
    (r"openai\.gpt-oss", replace(_OPEN_SCHEMA, vendor="openai", reasoning="gpt_oss", max_tokens=16384)),
    (r"openai\.", replace(_OPEN_SCHEMA, vendor="openai", reasoning="gpt_oss", cache=Model().cache, max_tokens=16384)),
    (r"qwen\.", replace(_OPEN_SCHEMA, vendor="qwen", reasoning="qwen", efforts=("low", "high"))),
    (r"deepseek\.r1", replace(_OPEN, vendor="deepseek", tools=False, max_tokens=32768)),
    (r"deepseek\.", replace(_OPEN_SCHEMA, vendor="deepseek")),
    (
        r"mistral\.(magistral|ministral-3|mistral-large-3|voxtral)",
        replace(_OPEN_SCHEMA, vendor="mistral", tool_results="json", tool_results_alone=True),
    ),
    (r"mistral\.(mistral-7b|mixtral)", replace(_OPEN, vendor="mistral", tools=False, system=False, max_tokens=4096)),
    (
        r"mistral\.",
        replace(_OPEN, vendor="mistral", tool_choice=frozenset({"any"}), tool_results="json", tool_results_alone=True),
    ),
    (r"meta\.", replace(_OPEN, vendor="meta", tool_choice=_NO_CHOICE, tool_results_alone=True, max_tokens=2048)),
    (r"cohere\.command-r", replace(_OPEN, vendor="cohere", tool_choice=_NO_CHOICE, max_tokens=4000)),
    (r"cohere\.", replace(_OPEN, vendor="cohere", tools=False, system=False, max_tokens=4000)),
    (r"ai21\.jamba", replace(_OPEN, vendor="ai21", tool_choice=_NO_CHOICE, max_tokens=4096)),
    (r"ai21\.", replace(_OPEN, vendor="ai21", tools=False, system=False, max_tokens=4096)),
    (r"writer\.", replace(_OPEN, vendor="writer", tool_choice=_NO_CHOICE, max_tokens=8192)),
    (r"(google\.gemma|minimax\.|moonshot|nvidia\.|zai\.)", _OPEN_SCHEMA),
)
_ROWS = tuple((re.compile(pattern), model) for pattern, model in _TABLE)
_NAME = re.compile(
    r"(?:^|[./:])((?:anthropic|amazon|openai|qwen|deepseek|mistral|meta|cohere|ai21|writer|google|minimax"
    r"|moonshotai|moonshot|nvidia|zai)\.[^/]+)$"
)


@lru_cache(maxsize=256)
def model_of(upstream_model: str) -> Model:
    """Return what the model takes; region prefixes (`us.`, `global.`) and the ARN around an id are looked through."""
    found = _NAME.search(upstream_model)
    if found is not None:
        for pattern, model in _ROWS:
            if pattern.match(found[1]):
                return model
    return Model()
