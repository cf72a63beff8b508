"""Mends tool calls in a stream: which delta belongs to which call, and what each may carry.

What a stranger would get wrong: neither the index nor the id alone tells calls apart. Some servers send every parallel
call with index 0 (a new id is a new call), some begin at 1, some give no id (a new name after whole arguments is a new
call), some repeat id and name in every fragment (SDKs would add them up).
"""

from dataclasses import dataclass, field
from typing import Any

from adapters.base import JSON, Call
from adapters.openai_lane.parsing import parse
from adapters.repair import arguments_text, minted_id

_WATCHED_MAX = 64 * 1024  # characters of arguments that are kept to see whether a call is whole


@dataclass(slots=True)
class OpenCall:
    """What one call has said so far."""

    id: str  # the server's own, "" if it gave none
    named: bool
    custom: bool = False
    arguments: str = ""  # only for calls without an id
    any_arguments: bool = False


@dataclass(slots=True)
class ToolState:
    """The calls of one choice, in order of appearance; `by_index` says which one a server's index means now."""

    calls: list[OpenCall] = field(default_factory=list)
    by_index: dict[int, int] = field(default_factory=dict)
    by_id: dict[str, int] = field(default_factory=dict)


def repair_tool_calls(delta: JSON, state: ToolState, call: Call, choice: int) -> bool:
    """Mend `delta["tool_calls"]` in place; True if anything changed."""
    entries = delta.get("tool_calls")
    if entries is None:
        return False
    if isinstance(entries, dict):
        entries = [entries]
    if not isinstance(entries, list):
        del delta["tool_calls"]
        return True
    changed = entries is not delta["tool_calls"]
    new = []
    for entry in entries:
        mended = _mended(entry, state, call, choice) if isinstance(entry, dict) and not _is_empty(entry) else None
        changed |= mended != entry
        new += [mended] if mended is not None else []
    if changed:
        delta["tool_calls"] = new
        if not new:
            del delta["tool_calls"]
    return changed


def missing_arguments(state: ToolState) -> list[JSON]:
    """Return the fragments that give `{}` to the calls that had no arguments, once."""
    late: list[JSON] = []
    for number, open_call in enumerate(state.calls):
        if not open_call.any_arguments and not open_call.custom:
            open_call.any_arguments = True
            late.append({"index": number, "function": {"arguments": "{}"}})
    return late


def _mended(entry: JSON, state: ToolState, call: Call, choice: int) -> JSON:
    given = entry.get("function")
    function: JSON = given if isinstance(given, dict) else {}
    known = _which(entry, function, state)
    if known is None:
        return _first(entry, function, state, call, choice)
    return _continued(entry, function, state.calls[known], known)


def _which(entry: JSON, function: JSON, state: ToolState) -> int | None:
    """Return the number of the call that this delta continues, None if it opens one."""
    own_id, index, named = entry.get("id"), _index(entry), bool(function.get("name"))
    if isinstance(own_id, str) and own_id:
        if own_id in state.by_id:
            return state.by_id[own_id]
        known = state.by_index.get(index) if index is not None else None
        return None if named else known
    known = (len(state.calls) - 1 if state.calls else None) if index is None else state.by_index.get(index)
    if known is None or not named:
        return known
    before = state.calls[known]
    anew = index is None or (
        not before.id and before.any_arguments and parse(before.arguments.encode("utf-8", "replace")) is not None
    )
    return None if anew and before.named else known


def _first(entry: JSON, function: JSON, state: ToolState, call: Call, choice: int) -> JSON:
    number = len(state.calls)
    own_id = entry["id"] if isinstance(entry.get("id"), str) else ""
    index = _index(entry)
    custom = entry.get("type") == "custom"
    arguments = arguments_text(function.get("arguments"))
    state.calls.append(OpenCall(own_id, bool(function.get("name")), custom, arguments[:_WATCHED_MAX], bool(arguments)))
    state.by_index[number if index is None else index] = number
    if own_id:
        state.by_id[own_id] = number
    first = {**entry, "index": number, "id": own_id or minted_id(call, choice, number)}
    if not custom:
        first["type"] = "function"
        first["function"] = {**function, "name": function.get("name") or "", "arguments": arguments}
    return first


def _continued(entry: JSON, function: JSON, open_call: OpenCall, number: int) -> JSON:
    rest = {k: v for k, v in entry.items() if k not in ("id", "type")} | {"index": number}
    if open_call.custom:
        return rest
    fragment = arguments_text(function.get("arguments"))
    open_call.any_arguments |= bool(fragment)
    if not open_call.id and len(open_call.arguments) < _WATCHED_MAX:
        open_call.arguments += fragment
    more = {k: v for k, v in function.items() if k != "name"}
    if not open_call.named and function.get("name"):
        open_call.named, more["name"] = True, function["name"]
    return {**rest, "function": {**more, "arguments": fragment}}


def _is_empty(entry: JSON) -> bool:
    """Tell whether an entry says nothing of any call."""
    return not any(value for key, value in entry.items() if key not in ("index", "type"))


def _index(entry: JSON) -> int | None:
    value: Any = entry.get("index")
    return value if isinstance(value, int) and not isinstance(value, bool) else None
