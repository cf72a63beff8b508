"""Limits, sampling and reasoning of a request: `inferenceConfig`, and what only one family of models knows.

`maxTokens` is always sent: without it Claude stops at 4096, and no cost could be promised. For the same reason nothing
that a client puts into `additionalModelRequestFields` may say it again in a model's own words, or ask for more answers.
Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InferenceConfiguration.html
"""

from dataclasses import dataclass, field
from typing import Any

from adapters.base import JSON, Call
from adapters.bedrock.models import Model
from adapters.errors import InvalidRequestError

BUDGET_TOKENS_MIN = 1024  # Claude thinks with no less
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 32768, "max": 32768}
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")  # weakest first
_LIMITS = frozenset(
    {
        "max_tokens", "max_tokens_to_sample", "max_gen_len", "max_new_tokens", "max_completion_tokens",
        "max_output_tokens", "maxTokens", "maxTokenCount", "maxNewTokens", "n", "num_generations", "numResults",
        "best_of",
    }
)  # fmt: skip
_LIMIT_HOLDERS = frozenset({"inferenceConfig", "inference_config", "textGenerationConfig"})


@dataclass(slots=True)
class Thinking:
    """How the model is asked to reason: the fields for it, and whether Claude's rules for thinking hold."""

    fields: JSON = field(default_factory=dict)
    on: bool = False
    dropped: bool = False


def inference_config(call: Call, model: Model, native: JSON, *, thinking: bool) -> tuple[JSON, list[str]]:
    """Return `inferenceConfig` and the names of the fields that had to be left out. Raises InvalidRequestError."""
    body, dropped = call.body, []
    config: JSON = {**native, "maxTokens": max_tokens(call, model, native)}
    for name, key in (("temperature", "temperature"), ("top_p", "topP")):
        value = body.get(name)
        if value is not None:
            config[key] = _fraction(value, name)
    stops = _stops(body.get("stop"))
    if stops:
        config["stopSequences"] = stops
    unwanted = {"temperature", "topP"} if thinking or model.sampling == "none" else set()
    if model.sampling == "either" and "temperature" in config:
        unwanted.add("topP")
    for name, key in (("temperature", "temperature"), ("top_p", "topP")):
        if key in unwanted and config.pop(key, None) is not None:
            dropped.append(name)
    return config, dropped


def max_tokens(call: Call, model: Model, native: JSON) -> int:
    """Return the output limit: the grant, else the client's own, else what the model's row says."""
    if call.output_limit is not None:
        return max(1, call.output_limit)
    for name in ("max_completion_tokens", "max_tokens"):
        value = call.body.get(name)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidRequestError(f"'{name}' must be a positive integer.", param=name)
            return value
    value = native.get("maxTokens")
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else model.max_tokens


def thinking_of(call: Call, model: Model, limit: int, *, forced: bool, resumable: bool) -> Thinking:
    """Return how `reasoning_effort` is said to the model. Raises InvalidRequestError.

    `forced`: a tool must be called, which Claude does not do while it thinks. `resumable`: the reasoning that belongs
    to the calls being answered is at hand; without it Claude refuses to go on thinking.
    """
    effort = call.body.get("reasoning_effort")
    if effort is None:
        return Thinking()
    if effort not in _EFFORTS:
        raise InvalidRequestError(f"'reasoning_effort' must be one of {', '.join(_EFFORTS)}.", param="reasoning_effort")
    match model.reasoning:
        case None:
            return Thinking(dropped=effort != "none")
        case "budget":
            return _budget(effort, limit, allowed=resumable and not forced)
        case "adaptive":
            return _adaptive(effort, model, forced=forced)
        case "gpt_oss" | "nova2" | "qwen":
            return _by_level(effort, model)


def without_limits(fields: JSON) -> tuple[JSON, bool]:
    """Return a model's own fields without those that would raise the output limit, and whether there were any."""
    kept: JSON = {}
    found = False
    for name, value in fields.items():
        if name in _LIMITS:
            found = True
        elif name in _LIMIT_HOLDERS and isinstance(value, dict):
            kept[name], inner = without_limits(value)
            found = found or inner
        else:
            kept[name] = value
    return kept, found


def _budget(effort: str, limit: int, *, allowed: bool) -> Thinking:
    if effort == "none":
        return Thinking()
    budget = min(_BUDGETS[effort], limit * 3 // 4)  # the rest is for the answer
    if not allowed or budget < BUDGET_TOKENS_MIN:
        return Thinking(dropped=True)
    return Thinking(fields={"thinking": {"type": "enabled", "budget_tokens": budget}}, on=True)


def _adaptive(effort: str, model: Model, *, forced: bool) -> Thinking:
    if effort == "none":
        return Thinking(fields={"thinking": {"type": "disabled"}})
    if forced:
        return Thinking(dropped=True)
    thinking = {"type": "adaptive"}
    if model.sampling == "none":  # the models from 4.7 on keep their thoughts to themselves unless asked
        thinking["display"] = "summarized"
    effort = _nearest(effort, model.efforts)
    return Thinking(fields={"thinking": thinking, "output_config": {"effort": effort}}, on=True)


def _by_level(effort: str, model: Model) -> Thinking:
    level = _nearest(effort, model.efforts)
    if model.reasoning == "gpt_oss":
        return Thinking(fields={"reasoning_effort": level})
    if model.reasoning == "nova2":
        config = {"type": "disabled"} if effort == "none" else {"type": "enabled", "maxReasoningEffort": level}
        return Thinking(fields={"reasoningConfig": config})
    if effort == "none":  # Qwen cannot be told not to
        return Thinking(dropped=True)
    return Thinking(fields={"reasoning_config": level})


def _nearest(effort: str, known: tuple[str, ...]) -> str:
    """Return the strongest known effort that is not above `effort`, else the weakest."""
    rank = _EFFORTS.index(effort)
    return next((level for level in reversed(known) if _EFFORTS.index(level) <= rank), known[0])


def _fraction(value: Any, name: str) -> float:
    """Return a number between 0 and 1; OpenAI's temperature goes to 2, Bedrock's ends at 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise InvalidRequestError(f"'{name}' must be a number that is not negative.", param=name)
    return min(value, 1)


def _stops(stop: Any) -> list[str]:
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(text, str) for text in stops):
        raise InvalidRequestError("'stop' must be a string or a list of strings.", param="stop")
    return [text for text in stops if text.strip()]
