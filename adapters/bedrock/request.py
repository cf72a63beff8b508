"""A chat request as Converse's body: every field mapped, dropped and told, or refused.

The same request gives the same bytes each time. `modelId` is in the URL, and whether it streams is too.
Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
"""

import re
from dataclasses import dataclass

from adapters.base import JSON, Call
from adapters.bedrock.blocks import Blocks
from adapters.bedrock.inference import Thinking, inference_config, max_tokens, thinking_of, without_limits
from adapters.bedrock.models import Model, model_of
from adapters.bedrock.tools import ToolPlan, plan_tools
from adapters.claude.thoughts import loop_lost, recall
from adapters.errors import InvalidRequestError
from adapters.memory import Memory
from adapters.messages import Conversation, normalise, wants_legacy
from adapters.treatment import Treatment

TREATMENT = Treatment(
    provider="Bedrock",
    mapped=frozenset(
        {
            "function_call", "functions", "max_completion_tokens", "max_tokens", "messages", "metadata", "model",
            "parallel_tool_calls", "reasoning_effort", "response_format", "service_tier", "stop", "stream",
            "stream_options", "temperature", "tool_choice", "tools", "top_p",
        }
    ),
    dropped=frozenset(
        {
            "frequency_penalty", "logit_bias", "prediction", "presence_penalty", "prompt_cache_key",
            "prompt_cache_options", "prompt_cache_retention", "safety_identifier", "seed", "store", "user", "verbosity",
        }
    ),
    refused={
        "n": "Bedrock gives one choice only.",
        "logprobs": "Bedrock gives no log probabilities.",
        "top_logprobs": "Bedrock gives no log probabilities.",
        "audio": "Bedrock does not answer in audio.",
        "modalities": "Bedrock answers in text only.",
        "moderation": "Bedrock has guardrails instead: see guardrailConfig.",
        "web_search_options": "Bedrock does not search the web.",
    },
    native=frozenset(
        {
            # Converse's own
            "additionalModelRequestFields", "additionalModelResponseFieldPaths", "guardrailConfig", "inferenceConfig",
            "outputConfig", "performanceConfig", "promptVariables", "requestMetadata", "serviceTier",
            # of its models, put into additionalModelRequestFields
            "anthropic_beta", "output_config", "reasoningConfig", "reasoning_config", "thinking", "top_k",
        }
    ),
)  # fmt: skip
_OF_MODELS = ("anthropic_beta", "output_config", "reasoningConfig", "reasoning_config", "thinking")
_WHOLE = (
    "guardrailConfig", "performanceConfig", "promptVariables", "requestMetadata", "additionalModelResponseFieldPaths",
)  # fmt: skip
_TIERS = {"priority": "priority", "fast": "priority", "default": "default", "flex": "flex"}
_METADATA = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,\-.]{0,256}")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Converse:
    """One request, and what the answer must be read with."""

    body: JSON
    dropped: tuple[str, ...]
    json_tool: str | None  # the tool whose input is the answer's text
    legacy: bool  # the client speaks `function_call`


def converse(call: Call, memory: Memory) -> Converse:
    """Build the body. `memory` holds the signed reasoning of earlier answers, by their tool calls.

    Raises InvalidRequestError and UnsupportedParameterError, naming the field.
    """
    native, dropped = TREATMENT.apply(call.body)
    conversation, model = normalise(call.body), model_of(call.upstream_model)
    thinks = model.keeps_reasoning and call.body.get("reasoning_effort") != "none"
    remembered = recall(memory, conversation.turns) if thinks else {}
    blocks = Blocks(call, model, remembered)
    messages = blocks.messages(conversation)
    plan = plan_tools(call.body, model, blocks, messages)
    config = _object(native, "inferenceConfig")
    limit = max_tokens(call, model, config)
    resumable = not loop_lost(conversation.turns, remembered)
    thinking = thinking_of(call, model, limit, forced=plan.forced, resumable=resumable)
    inference, unsent = inference_config(call, model, config, thinking=thinking.on or _thinks(native))
    body: JSON = {}
    system = _system(conversation, plan, model, blocks, messages)
    if system:
        body["system"] = system
    body["messages"] = messages
    body["inferenceConfig"] = inference
    if plan.config:
        body["toolConfig"] = plan.config
    output = {**(plan.output or {}), **_object(native, "outputConfig")}
    if output:
        body["outputConfig"] = output
    additional, more = _additional(native, model, thinking)
    if additional:
        body["additionalModelRequestFields"] = additional
    body.update({name: native[name] for name in _WHOLE if name in native})
    more += _tier_and_metadata(call.body, native, body)
    if call.body.get("parallel_tool_calls") is False:
        more.append("parallel_tool_calls")
    if thinking.dropped:
        more.append("reasoning_effort")
    return Converse(
        body=body,
        dropped=tuple(dict.fromkeys([*dropped, *conversation.dropped, *blocks.dropped, *unsent, *more])),
        json_tool=plan.json_tool,
        legacy=wants_legacy(call.body),
    )


def _system(
    conversation: Conversation, plan: ToolPlan, model: Model, blocks: Blocks, messages: list[JSON]
) -> list[JSON]:
    system = [*blocks.system(conversation.system), *({"text": text} for text in plan.system)]
    if model.system or not system:
        return system
    first = messages[0]  # a model without a system slot reads it as the beginning of what the user says
    first["content"] = [*(block for block in system if "text" in block), *first["content"]]
    return []


def _thinks(native: JSON) -> bool:
    thinking = native.get("thinking") or _object(native, "additionalModelRequestFields").get("thinking")
    return isinstance(thinking, dict) and thinking.get("type") in ("enabled", "adaptive")


def _additional(native: JSON, model: Model, thinking: Thinking) -> tuple[JSON, list[str]]:
    """Return a model's own fields; what the client says in the model's words wins over what we made of OpenAI's."""
    fields: JSON = dict(thinking.fields)
    if "top_k" in native:
        *holders, name = model.top_k
        holder = fields
        for key in holders:
            holder = holder.setdefault(key, {})
        holder[name] = native["top_k"]
    fields.update({name: native[name] for name in _OF_MODELS if name in native})
    own, limited = without_limits(_object(native, "additionalModelRequestFields"))
    fields.update(own)
    return fields, ["additionalModelRequestFields.max_tokens"] if limited else []


def _tier_and_metadata(body: JSON, native: JSON, out: JSON) -> list[str]:
    dropped: list[str] = []
    tier, metadata = body.get("service_tier"), body.get("metadata")
    if "serviceTier" in native:
        out["serviceTier"] = native["serviceTier"]
    elif isinstance(tier, str) and tier in _TIERS:
        out["serviceTier"] = {"type": _TIERS[tier]}
    elif tier not in (None, "auto"):
        dropped.append("service_tier")
    if isinstance(metadata, dict) and "requestMetadata" not in out:
        pairs = {
            key: value
            for key, value in metadata.items()
            if key and _METADATA.fullmatch(key) and isinstance(value, str) and _METADATA.fullmatch(value)
        }
        if len(pairs) < len(metadata):
            dropped.append("metadata")
        if pairs:
            out["requestMetadata"] = dict(list(pairs.items())[:16])
    return dropped


def _object(native: JSON, name: str) -> JSON:
    value = native.get(name, {})
    if not isinstance(value, dict):
        raise InvalidRequestError(f"'{name}' must be an object.", param=name)
    return value
