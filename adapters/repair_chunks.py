"""Mends one chunk of a chat stream at a time, by small functions over the chunk and what the stream has said so far.

What a stranger would get wrong: a repair may need chunks of its own (an introduction for choice 0 when choice 1 speaks
first, `{}` for a call without arguments before its choice ends), and usage is taken out of every chunk and sent once, last:
openai-python forgets it when any chunk follows.
"""

from dataclasses import dataclass, field
from typing import Any

from adapters.base import JSON, Call
from adapters.repair import copy_reasoning, flatten_content, known_reason, raise_by_reasoning, repair_tier, repair_usage
from adapters.repair_tools import ToolState, missing_arguments, repair_tool_calls


@dataclass(slots=True)
class ChoiceState:
    """What one choice has said so far."""

    finish: str | None = None
    tools: ToolState = field(default_factory=ToolState)
    listed: dict[str, int] = field(default_factory=dict)  # per list in the deltas: how many entries came


@dataclass(slots=True)
class StreamState:
    """What the stream has said so far; `usage` is the last one told."""

    call: Call
    reasoning_apart: bool = False
    head: JSON = field(default_factory=dict)  # id, object, created, model: of the first chunk that has them
    choices: dict[int, ChoiceState] = field(default_factory=dict)
    usage: JSON | None = None


def repair_chunk(chunk: JSON, state: StreamState) -> tuple[list[JSON], bool]:
    """Return the chunks to send for this one (it is the last, if it is to be sent at all) and whether anything changed."""
    changed = repair_head(chunk, state) | repair_choice_list(chunk) | take_usage(chunk, state)
    before: list[JSON] = []
    for number, choice in enumerate(chunk["choices"]):
        changed |= repair_choice(choice, number)
        before += introductions(choice["index"], state)
        changed |= repair_delta(choice, state)
        changed |= repair_finish(choice, state)
        before += late_arguments(choice, state)
    if not chunk["choices"] and changed and _says_nothing(chunk):
        return before, True
    return [*before, chunk], bool(changed or before)


def endings(state: StreamState, reason: str | None = None) -> list[JSON]:
    """Return finish chunks for the choices that have not ended; without a reason the one that fits what they said."""
    out: list[JSON] = []
    for index in sorted(state.choices):
        choice = state.choices[index]
        if choice.finish is None:
            choice.finish = reason or ("tool_calls" if choice.tools.calls else "stop")
            if reason is None and choice.tools.calls:
                out += _arguments_chunk(index, state)
            out.append(_chunk(state, {"index": index, "delta": {}, "logprobs": None, "finish_reason": choice.finish}))
    return out


def usage_chunk(state: StreamState, usage: JSON) -> JSON:
    """Return the chunk that tells the usage."""
    return {**head(state), "choices": [], "usage": usage}


def head(state: StreamState) -> JSON:
    """Return id, object, created and model as every chunk of this stream has them."""
    call = state.call
    own = {
        "id": f"chatcmpl-{call.call_id}",
        "object": "chat.completion.chunk",
        "created": call.created,
        "model": call.upstream_model,
    }
    return own | state.head


def repair_head(chunk: JSON, state: StreamState) -> bool:
    """One id, object, created and model for the whole stream; an empty service tier is none."""
    if not state.head.get("id") and isinstance(chunk.get("id"), str) and chunk["id"]:
        state.head["id"] = chunk["id"]
    if not state.head.get("model") and isinstance(chunk.get("model"), str) and chunk["model"]:
        state.head["model"] = chunk["model"]
    if "created" not in state.head and _is_time(chunk.get("created")):
        state.head["created"] = int(chunk["created"])
    known, changed = head(state), False
    for key, value in known.items():
        if chunk.get(key) != value or type(chunk[key]) is not type(value):
            chunk[key], changed = value, True
    state.head = known
    return repair_tier(chunk) or changed


def repair_choice_list(chunk: JSON) -> bool:
    """`choices` is a list of objects, also where there are none."""
    choices = chunk.get("choices")
    if isinstance(choices, list) and all(isinstance(choice, dict) for choice in choices):
        return False
    chunk["choices"] = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
    return True


def take_usage(chunk: JSON, state: StreamState) -> bool:
    """Take usage out of the chunk, wherever a provider puts it; numbers on several chunks are cumulative."""
    x_groq = chunk.get("x_groq")
    usage = chunk.get("usage")
    if not usage and isinstance(x_groq, dict) and isinstance(x_groq.get("usage"), dict):
        usage = x_groq["usage"]
    if isinstance(usage, dict) and usage:
        usage = dict(usage)
        repair_usage(usage)
        if state.reasoning_apart:
            raise_by_reasoning(usage)
        state.usage = usage
    if chunk.get("usage") is None:
        return False
    del chunk["usage"]
    return True


def repair_choice(choice: JSON, number: int) -> bool:
    """A choice has an index and a delta."""
    changed = False
    if not isinstance(choice.get("index"), int) or isinstance(choice["index"], bool) or choice["index"] < 0:
        choice["index"], changed = number, True
    if not isinstance(choice.get("delta"), dict):
        message = choice.pop("message", None)
        choice["delta"], changed = (message if isinstance(message, dict) else {}), True
    if not isinstance(choice.get("logprobs"), dict | None):
        choice["logprobs"], changed = None, True
    return changed


def introductions(index: int, state: StreamState) -> list[JSON]:
    """Return first chunks for lower choices that have not spoken: SDKs fail when choice 1 appears before choice 0."""
    out: list[JSON] = []
    for lower in range(min(index, 128)):
        if lower not in state.choices:
            state.choices[lower] = ChoiceState()
            delta = {"role": "assistant", "content": ""}
            out.append(_chunk(state, {"index": lower, "delta": delta, "logprobs": None, "finish_reason": None}))
    return out


def repair_delta(choice: JSON, state: StreamState) -> bool:
    """Role once and first, content as text, reasoning under both names, list extensions with an index, tool calls."""
    delta, index = choice["delta"], choice["index"]
    first = index not in state.choices
    own = state.choices.setdefault(index, ChoiceState())
    changed = repair_role(delta, first=first) | flatten_content(delta) | copy_reasoning(delta)
    changed |= repair_tool_calls(delta, own.tools, state.call, index)
    return changed | index_lists(delta, own)


def repair_role(delta: JSON, *, first: bool) -> bool:
    """The first delta of a choice says the role, no other does."""
    if first:
        if delta.get("role") == "assistant":
            return False
        rest = {k: v for k, v in delta.items() if k != "role"}
        delta.clear()
        delta.update({"role": "assistant"} | rest)
        return True
    if not delta.get("role"):
        return False
    del delta["role"]
    return True


def index_lists(delta: JSON, own: ChoiceState) -> bool:
    """Objects in a list carry an integer `index`: SDKs merge by it."""
    changed = False
    for key, value in delta.items():
        if key == "tool_calls" or not isinstance(value, list):
            continue
        for entry in value:
            if isinstance(entry, dict):
                number = own.listed.get(key, 0)
                own.listed[key] = number + 1
                if not isinstance(entry.get("index"), int):
                    entry["index"], changed = number, True
    return changed


def repair_finish(choice: JSON, state: StreamState) -> bool:
    """One finish reason per choice, in OpenAI's words."""
    own = state.choices[choice["index"]]
    said = choice.get("finish_reason")
    reason = known_reason(said, tools=bool(own.tools.calls))
    if own.finish is not None:
        reason = None
    elif reason is not None:
        own.finish = reason
    if said == reason:
        return False
    choice["finish_reason"] = reason
    return True


def late_arguments(choice: JSON, state: StreamState) -> list[JSON]:
    """Return a chunk with `{}` for the calls that end without arguments; a call that was cut off stays as it is."""
    if choice.get("finish_reason") not in ("stop", "tool_calls"):
        return []
    return _arguments_chunk(choice["index"], state)


def _arguments_chunk(index: int, state: StreamState) -> list[JSON]:
    late = missing_arguments(state.choices[index].tools)
    choice = {"index": index, "delta": {"tool_calls": late}, "logprobs": None, "finish_reason": None}
    return [_chunk(state, choice)] if late else []


def _chunk(state: StreamState, choice: JSON) -> JSON:
    return {**head(state), "choices": [choice]}


def _says_nothing(chunk: JSON) -> bool:
    return not any(
        value
        for key, value in chunk.items()
        if key not in ("id", "object", "created", "model", "system_fingerprint", "service_tier", "provider")
    )


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 2**53
