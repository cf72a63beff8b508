"""The rules that every chat stream of Bursar's keeps, checked on the client's side of the socket.

S1 role once and first, choice 0 introduced first; S2, S3 tool indexes 0, 1, 2 …, id, type and name once; S4 one finish per
choice, nothing said after it; S5 usage last, only if asked for; S6 `data:` and comments only; S7 lists of objects with an
index; S10 one id, created and model. Then the official accumulator reads it, each chunk by the strict types.
"""

import json
from typing import Any

from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

REASONS = {"stop", "length", "tool_calls", "content_filter", "function_call"}
_SAID = ("content", "refusal", "tool_calls", "function_call", "reasoning_content")


def events_of(raw: bytes) -> tuple[list[dict[str, Any]], bool, list[str]]:
    """Return the chunks, whether [DONE] came last, and what is wrong with the framing."""
    chunks: list[dict[str, Any]] = []
    done, wrong = False, []
    raw = (b"\n" + raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")).replace(b"\ndata:{", b"\ndata: {")[
        1:
    ]  # as good to every reader
    raw = raw.replace(b"data:[DONE]", b"data: [DONE]")
    if raw and not raw.endswith(b"\n\n"):
        wrong.append("S6: the last event has no blank line")
    for event in raw.decode("utf-8", "replace").split("\n\n"):
        for line in event.split("\n"):
            if not line or line.startswith(":"):
                continue
            if not line.startswith("data: "):
                wrong.append(f"S6: a line of another kind: {line[:40]!r}")
            elif line.startswith("data: [DONE]"):  # as the SDKs read it
                done = True
            elif done:
                wrong.append("an event after [DONE]")
            else:
                chunks.append(json.loads(line[6:]))
    return chunks, done, wrong


def broken_rules(raw: bytes, *, usage: bool | None = None, error: bool = False) -> list[str]:
    """Return what breaks a rule. `usage`: whether it was asked for (None: not looked at); `error`: it must end in one."""
    chunks, done, wrong = events_of(raw)
    told = [chunk for chunk in chunks if chunk.get("error")]
    if error:
        if not told or chunks[-1] is not told[0]:
            wrong.append("S9: the last event is no error")
        elif not {"message", "type", "param", "code"} <= set(told[0]["error"]):
            wrong.append("S9: an error without the four keys")
        if any(c.get("finish_reason") for chunk in chunks for c in chunk.get("choices", ())):
            wrong.append("S9: a finish reason before an error")
    elif told or not done:
        wrong.append(f"no clean end: {told}")
    plain = [chunk for chunk in chunks if not chunk.get("error")]
    wrong += _heads(plain) + _choices(plain, ended=not error) + _usages(plain, usage)
    return wrong + _accumulated(plain)


def accumulated(chunks: list[dict[str, Any]]) -> ChatCompletion:
    """Return what the official helper makes of the chunks."""
    state = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk, strict=True))
    return state.current_completion_snapshot


def _heads(chunks: list[dict[str, Any]]) -> list[str]:
    heads = {(chunk.get("id"), chunk.get("created"), chunk.get("model")) for chunk in chunks}
    wrong = [f"S10: {len(heads)} heads"] if len(heads) > 1 else []
    if any(not (h[0] and isinstance(h[1], int) and h[2]) for h in heads):
        wrong.append(f"S10: an empty head {heads}")
    if any(chunk.get("type") == "ping" for chunk in chunks):
        wrong.append("S6: an event that is no chunk")
    if any(chunk.get("object") != "chat.completion.chunk" for chunk in chunks):
        wrong.append("S10: object")
    return wrong


def _choices(chunks: list[dict[str, Any]], *, ended: bool) -> list[str]:
    wrong: list[str] = []
    seen: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            index, delta = choice["index"], choice["delta"]
            if index not in seen:
                if index != len(seen):
                    wrong.append(f"S1: choice {index} comes before choice {len(seen)}")
                if delta.get("role") != "assistant":
                    wrong.append("S1: the first delta has no role")
                seen[index] = {"calls": [], "finish": None}
            elif "role" in delta:
                wrong.append("S1: role a second time")
            state = seen[index]
            if state["finish"] and any(delta.get(key) for key in _SAID):
                wrong.append("S4: content after the finish")
            wrong += _calls(delta.get("tool_calls") or [], state["calls"]) + _lists(delta)
            if choice.get("finish_reason") is not None:
                wrong += ["S4: a second finish"] if state["finish"] else []
                wrong += [] if choice["finish_reason"] in REASONS else [f"S4: {choice['finish_reason']!r}"]
                state["finish"] = choice["finish_reason"]
    if ended and (not seen or not all(state["finish"] for state in seen.values())):
        wrong.append("S4: a choice without a finish")
    for state in seen.values():
        for call in state["calls"]:
            if ended and state["finish"] in ("stop", "tool_calls") and not call["arguments"] and not call["custom"]:
                wrong.append("a call without arguments")
        ids = [call["id"] for call in state["calls"]]
        wrong += ["S3: two calls of one id"] if len(set(ids)) < len(ids) else []
    return wrong


def _calls(deltas: list[dict[str, Any]], calls: list[dict[str, Any]]) -> list[str]:
    wrong: list[str] = []
    for delta in deltas:
        index = delta.get("index")
        if not isinstance(index, int) or index > len(calls):
            return [*wrong, f"S2: index {index!r}"]
        custom = delta.get("type") == "custom"
        function = delta.get("function") or {}
        if index == len(calls):
            if not delta.get("id") or not delta.get("type") or not (custom or function.get("name")):
                wrong.append("S3: the first delta of a call lacks id, type or name")
            calls.append({"id": delta.get("id"), "arguments": "", "custom": custom})
        elif "id" in delta or "type" in delta or "name" in function:
            wrong.append("S3: id, type or name a second time")
        calls[index]["arguments"] += function.get("arguments") or ""
    return wrong


def _lists(delta: dict[str, Any]) -> list[str]:
    return [
        f"S7: {key} without index"
        for key, value in delta.items()
        if isinstance(value, list) and any(isinstance(i, dict) and not isinstance(i.get("index"), int) for i in value)
    ]


def _usages(chunks: list[dict[str, Any]], usage: bool | None) -> list[str]:
    told = [number for number, chunk in enumerate(chunks) if chunk.get("usage")]
    if usage is None:
        return []
    if not usage:
        return ["S5: usage that was not asked for"] if told else []
    if told != [len(chunks) - 1] or chunks[-1]["choices"]:
        return [f"S5: usage in chunks {told} of {len(chunks)}"]
    counts = chunks[-1]["usage"]
    adds_up = counts["prompt_tokens"] + counts["completion_tokens"] == counts["total_tokens"]
    return [] if adds_up else [f"usage does not add up: {counts}"]


def _accumulated(chunks: list[dict[str, Any]]) -> list[str]:
    try:
        made = accumulated(chunks)
    except Exception as error:
        return [f"the accumulator: {error!r}"[:300]]
    wrong = [f"the accumulator: role {c.message.role!r}" for c in made.choices if c.message.role != "assistant"]
    if chunks and chunks[-1].get("usage") and made.usage is None:
        wrong.append("the accumulator lost the usage")
    return wrong
