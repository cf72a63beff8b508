"""Changes to the conversation that some servers need: a role's name, the form of tool ids, echoed reasoning.

What a stranger would get wrong: a tool id must be rewritten alike in the call and in its result, and the same way in
every later request, or the provider's prompt cache misses; so the new id is a hash of the old one.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from adapters.base import JSON
from adapters.quirks import Quirks

_NINE = re.compile(r"[A-Za-z0-9]{9}")
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def changed_messages(messages: list[Any], quirks: Quirks, recalled: Mapping[int, str]) -> dict[int, JSON]:
    """Return, by position, the members of a message that must be set; messages without an entry stay.

    `recalled` is the reasoning that is remembered for a message, by position.
    """
    changes: dict[int, JSON] = {}
    for number, message in enumerate(messages):
        if isinstance(message, dict):
            new = _changes(message, quirks, recalled.get(number, ""))
            if new:
                changes[number] = new
    return changes


def nine(tool_id: str) -> str:
    """Return the id itself if it is nine letters or digits, else nine that depend on nothing but the id."""
    if _NINE.fullmatch(tool_id):
        return tool_id
    number, letters = int.from_bytes(hashlib.sha256(tool_id.encode("utf-8", "surrogatepass")).digest(), "big"), []
    for _ in range(9):
        number, digit = divmod(number, len(_DIGITS))
        letters.append(_DIGITS[digit])
    return "".join(letters)


def _changes(message: JSON, quirks: Quirks, recalled: str) -> JSON:
    new: JSON = {}
    if not quirks.developer_role and message.get("role") == "developer":
        new["role"] = "system"
    calls = message.get("tool_calls")
    has_calls = isinstance(calls, list) and bool(calls)
    if quirks.tool_id == "nine":
        if has_calls and isinstance(calls, list) and any(_must_change(call) for call in calls):
            new["tool_calls"] = [{**call, "id": nine(call["id"])} if _must_change(call) else call for call in calls]
        answered = message.get("tool_call_id")
        if isinstance(answered, str) and nine(answered) != answered:
            new["tool_call_id"] = nine(answered)
    if quirks.reasoning_echo and has_calls and not isinstance(message.get("reasoning_content"), str):
        # The clients that drop what the model thought cannot send it back: an empty text is accepted, none is not.
        own = message.get("reasoning")
        new["reasoning_content"] = own if isinstance(own, str) else recalled
    return new


def _must_change(call: Any) -> bool:
    return isinstance(call, dict) and isinstance(call.get("id"), str) and nine(call["id"]) != call["id"]
