"""An OpenAI chat request as Claude's body, for each place that hosts Claude.

The hosts differ in little: where the model is named, a version field, and whether Claude fetches URLs itself. The same
request gives the same bytes each time, tools and system first, since prompt caches compare them from the start.
Sources: https://platform.claude.com/docs/en/api/messages/create,
https://platform.claude.com/docs/en/build-with-claude/claude-on-vertex-ai
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from adapters.base import JSON, Call
from adapters.claude.choice import Choice, choose
from adapters.claude.content import Blocks, wanted_urls
from adapters.claude.models import Traits, traits_of
from adapters.claude.thinking import Plan, plan
from adapters.claude.thoughts import loop_lost, recall
from adapters.errors import InvalidRequestError
from adapters.memory import Memory
from adapters.messages import normalise
from adapters.tools import wants_legacy
from adapters.treatment import Treatment

Host: TypeAlias = Literal["anthropic", "vertex", "bedrock"]

CACHE_POINTS_MAX = 4
_VERSIONS: Mapping[str, str] = {"vertex": "vertex-2023-10-16", "bedrock": "bedrock-2023-05-31"}
_BETA = re.compile(r"[A-Za-z0-9._-]{1,100}")
_NO_AUDIO = "Claude gives no audio."
_NO_LOGPROBS = "Claude gives no log probabilities."

TREATMENT = Treatment(
    provider="Claude",
    mapped=frozenset(
        [
            "function_call",
            "functions",
            "max_completion_tokens",
            "max_tokens",
            "messages",
            "metadata",
            "model",
            "parallel_tool_calls",
            "reasoning_effort",
            "response_format",
            "safety_identifier",
            "service_tier",
            "stop",
            "stream",
            "stream_options",
            "temperature",
            "tool_choice",
            "tools",
            "top_p",
            "user",
            "web_search_options",
        ]
    ),
    dropped=frozenset(
        [
            "frequency_penalty",
            "logit_bias",
            "prediction",
            "presence_penalty",
            "prompt_cache_key",
            "prompt_cache_options",
            "prompt_cache_retention",
            "seed",
            "store",
            "verbosity",
        ]
    ),
    refused={
        "n": "Claude gives one choice for each request.",
        "logprobs": _NO_LOGPROBS,
        "top_logprobs": _NO_LOGPROBS,
        "audio": _NO_AUDIO,
        "modalities": _NO_AUDIO,
        "moderation": "Claude gives no moderation results.",
    },
    native=frozenset(
        [
            "anthropic_beta",
            "cache_control",
            "container",
            "context_management",
            "diagnostics",
            "mcp_servers",
            "output_config",
            "stop_sequences",
            "thinking",
            "top_k",
            "user_profile_id",
        ]
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A body, and what the answer's translators must know of it."""

    body: JSON
    betas: tuple[str, ...] = ()  # to be named in the header anthropic-beta
    dropped: tuple[str, ...] = ()
    answer_tool: str | None = None  # calls of this tool are the answer's content
    legacy: bool = False  # answer in the form of `functions`


def media_urls(call: Call, host: Host) -> tuple[str, ...]:
    """Return the URLs that must be fetched for this host; none for a request that is wrong in itself."""
    try:
        conversation = normalise(call.body)
    except InvalidRequestError:
        return ()
    return wanted_urls(conversation, fetch_https=host != "anthropic")


def build(call: Call, host: Host, memory: Memory) -> Built:
    """Return Claude's body for a chat call. Raises InvalidRequestError and UnsupportedParameterError."""
    body, traits = call.body, traits_of(call.upstream_model)
    native, dropped = TREATMENT.apply(body)
    conversation, choice = normalise(body), choose(body, traits)
    max_tokens = _max_tokens(call, traits)
    thoughts = recall(memory, conversation.turns)
    lost = loop_lost(conversation.turns, thoughts)
    plans = plan(body, traits, max_tokens=max_tokens, forced=choice.forced, loop_lost=lost)
    blocks = Blocks(traits, call.media, fetch_https=host != "anthropic")
    system = blocks.system(conversation.system)
    if choice.system_line:
        system.append({"type": "text", "text": choice.system_line})
    betas = _betas(native.pop("anthropic_beta", None))
    made: JSON = {"anthropic_version": _VERSIONS[host]} if host in _VERSIONS else {"model": call.upstream_model}
    made["max_tokens"] = max_tokens
    made |= {"tools": choice.tools} if choice.tools else {}
    made |= {"tool_choice": choice.tool_choice} if choice.tool_choice else {}
    made |= {"system": system} if system else {}
    made["messages"] = blocks.messages(conversation.turns, thoughts, thinking=plans.on)
    told = [*conversation.dropped, *dropped, *choice.dropped, *plans.dropped]
    made |= _sampling(body, native, traits, plans, told)
    made |= _reasoning(native, choice, plans)
    made |= _accounts(body, host, told)
    made |= native
    if call.stream and host != "bedrock":
        made["stream"] = True
    if host == "bedrock" and betas:
        made["anthropic_beta"] = list(betas)
    _limit_cache_points(made, told)
    return Built(
        body=made,
        betas=() if host == "bedrock" else betas,
        dropped=tuple(dict.fromkeys(told)),
        answer_tool=choice.answer_tool,
        legacy=wants_legacy(body),
    )


def _max_tokens(call: Call, traits: Traits) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        value = call.body.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidRequestError(f"'{name}' must be an integer of at least 1.", param=name)
        return call.output_limit if call.output_limit is not None else value
    return call.output_limit if call.output_limit is not None else traits.output_max


def _sampling(body: JSON, native: JSON, traits: Traits, plans: Plan, told: list[str]) -> JSON:
    """Return temperature, top_p and the stop sequences; the first two, and top_k, only where the model takes them."""
    made: JSON = {}
    allowed = traits.sampling and not plans.on
    temperature, top_p = _number(body, "temperature"), _number(body, "top_p")
    if temperature is not None and allowed:
        made["temperature"] = min(max(temperature, 0), 1)
    elif temperature is not None:
        told.append("temperature")
    if top_p is not None and allowed and (temperature is None or traits.both):
        made["top_p"] = min(max(top_p, 0), 1)
    elif top_p is not None:
        told.append("top_p")
    if "top_k" in native and not allowed:
        del native["top_k"]
        told.append("top_k")
    stops = _stops(body.get("stop"))
    if stops:
        native.pop("stop_sequences", None)
        made["stop_sequences"] = stops
    return made


def _number(body: JSON, name: str) -> Any:
    value = body.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise InvalidRequestError(f"'{name}' must be a number.", param=name)
    return value


def _stops(stop: Any) -> list[str]:
    stops = [stop] if isinstance(stop, str) else [] if stop is None else stop
    if not isinstance(stops, list) or not all(isinstance(one, str) for one in stops):
        raise InvalidRequestError("'stop' must be a string or a list of strings.", param="stop")
    return [one for one in stops if one.strip()]


def _reasoning(native: JSON, choice: Choice, plans: Plan) -> JSON:
    """Return `thinking` and `output_config`, the client's own `output_config` first."""
    native.pop("thinking", None)
    own = native.pop("output_config", None)
    config: JSON = dict(own) if isinstance(own, dict) else {}
    if choice.format is not None:
        config.setdefault("format", choice.format)
    if plans.effort is not None:
        config.setdefault("effort", plans.effort)
    made: JSON = {"output_config": config} if config else {}
    if plans.thinking is not None:
        made["thinking"] = plans.thinking
        if plans.thinking.get("type") == "disabled" and config.get("effort") in ("xhigh", "max"):
            config["effort"] = "high"  # above it thinking cannot be turned off
    return made


def _accounts(body: JSON, host: Host, told: list[str]) -> JSON:
    """Return `metadata` and `service_tier`."""
    made: JSON = {}
    user = body.get("safety_identifier") or body.get("user")
    metadata = body.get("metadata")
    if isinstance(metadata, dict) and metadata.keys() == {"user_id"}:  # Anthropic's own form of it
        made["metadata"] = metadata
    elif metadata:
        told.append("metadata")
    if isinstance(user, str) and user and "metadata" not in made:
        made["metadata"] = {"user_id": user}
    tier = body.get("service_tier")
    known = {"auto": "auto", "default": "standard_only", "standard_only": "standard_only", "priority": "auto"}
    if isinstance(tier, str) and tier in known and host == "anthropic":
        made["service_tier"] = known[tier]
    elif tier is not None and tier not in ("auto", "default"):
        told.append("service_tier")
    return made


def _betas(asked: Any) -> tuple[str, ...]:
    names = asked.split(",") if isinstance(asked, str) else asked if isinstance(asked, list) else []
    return tuple(name.strip() for name in names if isinstance(name, str) and _BETA.fullmatch(name.strip()))


def _limit_cache_points(made: JSON, told: list[str]) -> None:
    """Keep four cache points: the first, which most calls share, and the last three, which reach furthest."""
    blocks = [*made.get("tools", []), *made.get("system", [])]
    for message in made["messages"]:
        for block in message["content"]:
            inner = block.get("content")
            blocks += [*(inner if isinstance(inner, list) else []), block]
    room = CACHE_POINTS_MAX - ("cache_control" in made)
    points = [block for block in blocks if "cache_control" in block]
    if len(points) > room:
        told.append("cache_control")
        for block in points[1 : len(points) - room + 1]:
            del block["cache_control"]
