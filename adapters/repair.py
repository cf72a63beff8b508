"""Mends what servers in OpenAI's format do that breaks OpenAI's SDKs: the repairs that whole answers and chunks share.

Each repair is one small function that changes a parsed object and says whether it did; an object that no repair touches
is sent on in its own bytes. What a stranger would get wrong: a mended field is not always wrong in itself
(`usage` in the last content chunk, `role` in every delta): SDKs add up deltas, so a repetition becomes "assistantassistant".
`adapters.repair_chunks` has the repairs of streams, `adapters.repair_tools` those of tool calls in streams.
"""

from collections.abc import Mapping
from typing import Any

from adapters.base import JSON, Call
from adapters.openai_lane.parsing import dumps

REASONS = frozenset({"stop", "length", "tool_calls", "content_filter", "function_call"})
_REASONS: Mapping[str, str] = {
    "eos": "stop", "eos_token": "stop", "end_turn": "stop", "stop_sequence": "stop", "end": "stop", "complete": "stop",
    "completed": "stop", "max_tokens": "length", "max_length": "length", "model_length": "length", "truncated": "length",
    "max_output_tokens": "length", "model_context_window_exceeded": "length", "tool_use": "tool_calls",
    "tool_call": "tool_calls", "tool": "tool_calls", "function_calls": "tool_calls", "safety": "content_filter",
    "refusal": "content_filter", "content_filtered": "content_filter", "guardrail_intervened": "content_filter",
    "sensitive": "content_filter", "recitation": "content_filter", "prohibited_content": "content_filter",
}  # fmt: skip
_TIERS = (None, "auto", "default", "flex", "scale", "priority", "fast")
_OTHER_TIERS: Mapping[str, str] = {"on_demand": "default", "standard": "default", "performance": "priority"}
_NOT_PLAIN = frozenset({"reasoning", "tool_calls", "function_call", "audio"})  # of a message: to be looked at closely
_TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens")


def repair_completion(body: JSON, call: Call, *, reasoning_apart: bool = False) -> set[str]:
    """Mend a whole chat completion in place; return the top-level keys that changed (gone ones included)."""
    if not reasoning_apart and is_plain(body):
        return set()
    return mend_completion(body, call, reasoning_apart=reasoning_apart)


def mend_completion(body: JSON, call: Call, *, reasoning_apart: bool = False) -> set[str]:
    """Do what `repair_completion` does, without a look at whether there is anything to do."""
    changed = {key for key, value in _head(call).items() if _fill(body, key, value)}
    if repair_tier(body):
        changed.add("service_tier")
    if isinstance(body.get("usage"), dict):
        usage = body["usage"]
        if [repair_usage(usage), reasoning_apart and raise_by_reasoning(usage)] != [False, False]:
            changed.add("usage")
    choices = [choice for choice in body["choices"] if isinstance(choice, dict)]
    if len(choices) != len(body["choices"]):
        body["choices"] = choices
        changed.add("choices")
    for number, choice in enumerate(choices):
        if _repair_choice(choice, number, call):
            changed.add("choices")
    return changed


def is_plain(body: JSON) -> bool:
    """Tell at a glance that there is nothing to mend, as in most answers: texts only, and all as OpenAI has it."""
    get = body.get
    if get("object") != "chat.completion" or type(get("created")) is not int or get("service_tier") not in _TIERS:
        return False
    answer_id, model, usage = get("id"), get("model"), get("usage")
    if not (type(answer_id) is str and answer_id and type(model) is str and model and type(usage) is dict):
        return False
    for key in _TOKENS:
        count = usage.get(key)
        if type(count) is not int or not 0 <= count < 2**53:
            return False
    for choice in body["choices"]:
        if type(choice) is not dict or type(choice.get("index")) is not int:
            return False
        message, reason = choice.get("message"), choice.get("finish_reason")
        if not (type(message) is dict and type(reason) is str and reason in REASONS):
            return False
        if choice.get("logprobs") is not None or not _NOT_PLAIN.isdisjoint(message):
            return False
        if message.get("role") != "assistant" or type(message.get("content")) is not str:
            return False
    return True


def repair_tier(body: JSON) -> bool:
    """Say the service tier in OpenAI's words, or not at all: the strict SDK refuses any other."""
    if "service_tier" not in body or body["service_tier"] in _TIERS:
        return False
    said = body.pop("service_tier")
    word = _OTHER_TIERS.get(said) if isinstance(said, str) else None
    if word is not None:
        body["service_tier"] = word
    return True


def repair_usage(usage: JSON) -> bool:
    """Make the three counts whole numbers, and present if any of them is."""
    before = [usage.get(key) for key in _TOKENS]
    counts = [_whole(value) for value in before]
    if all(count is None for count in counts):
        return False
    prompt, done, total = counts
    if total is None:
        total = (prompt or 0) + (done or 0)
    if done is None:
        done = max(0, total - (prompt or 0))
    if prompt is None:
        prompt = max(0, total - done)
    after = [prompt, done, total]
    usage.update(zip(_TOKENS, after, strict=True))
    return any(type(a) is not type(b) or a != b for a, b in zip(before, after, strict=True))


def raise_by_reasoning(usage: JSON) -> bool:
    """Count the reasoning into `completion_tokens`, as OpenAI does, where the total says that it is apart."""
    details = usage.get("completion_tokens_details")
    reasoning = _whole(details.get("reasoning_tokens")) if isinstance(details, dict) else None
    prompt, done, total = (_whole(usage.get(key)) for key in _TOKENS)
    if not reasoning or prompt is None or done is None or total is None or prompt + done + reasoning != total:
        return False
    usage["completion_tokens"] = done + reasoning
    return True


def known_reason(reason: Any, *, tools: bool) -> str | None:
    """Return OpenAI's word for a finish reason, None for none given ("" and null)."""
    if reason is None or reason == "":
        return None
    word = str(reason)
    return word if word in REASONS else _REASONS.get(word.lower(), "tool_calls" if tools else "stop")


def flatten_content(message: JSON) -> bool:
    """Turn content parts into the text they hold; thinking parts go to `reasoning_content`."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return False
    if not isinstance(content, list):
        message["content"] = _text_of(content) if isinstance(content, dict) else str(content)
        return True
    texts, thoughts = [], []
    for part in content:
        if isinstance(part, dict) and part.get("type") in ("thinking", "reasoning"):
            thoughts.append(_text_of(part.get("thinking", part.get("reasoning", part.get("text")))))
        else:
            texts.append(_text_of(part))
    message["content"] = "".join(texts) if texts else None
    if thoughts and not isinstance(message.get("reasoning_content"), str):
        message["reasoning_content"] = "".join(thoughts)
    return True


def copy_reasoning(message: JSON) -> bool:
    """Give `reasoning` its commoner name beside its own."""
    if message.get("reasoning_content") is not None or not isinstance(message.get("reasoning"), str):
        return False
    message["reasoning_content"] = message["reasoning"]
    return True


def arguments_text(arguments: Any) -> str:
    """Return a call's arguments as the text that OpenAI sends; objects are written out."""
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else dumps(arguments).decode("utf-8", "replace")


def minted_id(call: Call, choice: int, number: int) -> str:
    """Return an id for a tool call that came without one: the same whenever this call is translated."""
    return f"call_{call.call_id}_{choice}_{number}"


def _head(call: Call) -> JSON:
    return {
        "id": f"chatcmpl-{call.call_id}",
        "object": "chat.completion",
        "created": call.created,
        "model": call.upstream_model,
    }


def _fill(body: JSON, key: str, default: Any) -> bool:
    value = body.get(key)
    if key == "created":
        new = int(value) if isinstance(value, float) and value == value and abs(value) < 2**53 else value  # noqa: PLR0124 - NaN
        new = new if isinstance(new, int) and not isinstance(new, bool) else default
    elif key == "object":
        new = default
    else:
        new = value if isinstance(value, str) and value else default
    body[key] = new
    return bool(type(new) is not type(value) or new != value)


def _repair_choice(choice: JSON, number: int, call: Call) -> bool:
    changed = False
    if not isinstance(choice.get("index"), int) or isinstance(choice["index"], bool):
        choice["index"], changed = number, True
    message = choice.get("message")
    if not isinstance(message, dict):
        delta = choice.pop("delta", None)
        message, changed = (delta if isinstance(delta, dict) else {}), True
        choice["message"] = message
    changed |= _repair_message(message, choice["index"], call)
    tools = bool(message.get("tool_calls"))
    reason = known_reason(choice.get("finish_reason"), tools=tools) or ("tool_calls" if tools else "stop")
    if choice.get("finish_reason") != reason:
        choice["finish_reason"], changed = reason, True
    if not isinstance(choice.get("logprobs"), dict | None):
        choice["logprobs"], changed = None, True
    return changed


def _repair_message(message: JSON, choice: int, call: Call) -> bool:
    changed = flatten_content(message)
    if message.get("role") != "assistant":
        message["role"], changed = "assistant", True
    if "content" not in message:
        message["content"], changed = None, True
    changed |= copy_reasoning(message)
    changed |= _remove_empty_shells(message)
    calls = message.get("tool_calls")
    if isinstance(calls, dict):
        calls, changed = [calls], True
        message["tool_calls"] = calls
    if calls == [] or not isinstance(calls, list | None):
        del message["tool_calls"]
        return True
    kept = [entry for entry in calls or [] if isinstance(entry, dict)]
    if calls and len(kept) != len(calls):
        message["tool_calls"], changed = kept, True
    taken: set[str] = set()
    for number, entry in enumerate(kept):
        changed |= _repair_call(entry, minted_id(call, choice, number), taken)
    return changed


def _remove_empty_shells(message: JSON) -> bool:
    """Remove objects that a server written in Go sends for "none": all their fields are empty."""
    shells = [
        key for key, field in (("function_call", "name"), ("audio", "id"))
        if isinstance(message.get(key), dict) and not message[key].get(field)
    ]  # fmt: skip
    for key in shells:
        del message[key]
    return bool(shells)


def _repair_call(entry: JSON, new_id: str, taken: set[str]) -> bool:
    changed = False
    if not isinstance(entry.get("id"), str) or not entry["id"] or entry["id"] in taken:
        entry["id"], changed = new_id, True
    taken.add(entry["id"])
    if entry.get("type") == "custom":
        return changed
    if entry.get("type") != "function":
        entry["type"], changed = "function", True
    function = entry.get("function")
    if not isinstance(function, dict):
        function, changed = {"name": str(entry.get("name") or "")}, True
        entry["function"] = function
    arguments = arguments_text(function.get("arguments")) or "{}"
    if arguments != function.get("arguments"):
        function["arguments"], changed = arguments, True
    return changed


def _text_of(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, list):
        return "".join(_text_of(p) for p in part)
    if isinstance(part, dict):
        return _text_of(part.get("text", part.get("content")))
    return ""


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        return None
    return int(value)
