"""OpenAI's message list made regular, once for all dialects that are not OpenAI's.

Here: strings and parts are one form, every tool result knows its call's name and stands first in the turn after it,
neighbours of one role are one turn, arguments are objects. Not here: ids, whitespace, media and schemas, since each
dialect has its own rule. Errors name the field: `messages[3].content[1].image_url`.
Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from collections.abc import Callable
from typing import Any

from adapters.base import JSON
from adapters.conversation import (
    Audio,
    Conversation,
    File,
    Image,
    Part,
    Reasoning,
    Refusal,
    Role,
    Text,
    ToolCall,
    ToolResult,
    Turn,
    cache_of,
)
from adapters.errors import InvalidRequestError, UnsupportedParameterError
from adapters.exact import loads_exact
from adapters.parts import content_of, string_at
from adapters.tools import Tool, ToolChoice, sanitise_tool_id, tool_choice_of, tools_of, wants_legacy

__all__ = [
    "Audio",
    "Conversation",
    "File",
    "Image",
    "Part",
    "Reasoning",
    "Refusal",
    "Role",
    "Text",
    "Tool",
    "ToolCall",
    "ToolChoice",
    "ToolResult",
    "Turn",
    "arguments_of",
    "cache_of",
    "normalise",
    "sanitise_tool_id",
    "tool_choice_of",
    "tools_of",
    "wants_legacy",
]

_CALL_KEYS = frozenset({"id", "type", "function", "index"})


def normalise(body: JSON) -> Conversation:
    """Return the conversation of a chat request. Raises InvalidRequestError and UnsupportedParameterError."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequestError("'messages' must be a list with at least one message.", param="messages")
    reader = _Reader()
    for index, message in enumerate(messages):
        reader.read(message, f"messages[{index}]")
    return Conversation(system=reader.system, turns=reader.turns, dropped=("messages.name",) if reader.named else ())


def arguments_of(raw: Any) -> JSON:
    """Return a call's arguments as an object; what is none (cut off by a length limit) survives as `_invalid_json`."""
    if isinstance(raw, dict):
        return raw
    if raw is None or (isinstance(raw, str) and not raw.strip()):
        return {}
    if isinstance(raw, str):
        try:
            value = loads_exact(raw)
        except ValueError:
            value = None
        if isinstance(value, dict):
            return value
    return {"_invalid_json": raw if isinstance(raw, str) else str(raw)}


class _Reader:
    """Reads messages in order; `turns` is regular after each."""

    def __init__(self) -> None:
        self.system: list[Text] = []
        self.turns: list[Turn] = []
        self.named = False
        self._calls: dict[str, tuple[str, int]] = {}  # the id of a call -> its function's name, its place among all
        self._place = 0
        self._legacy: list[tuple[str, str]] = []  # calls of the old form without a result: name, invented id

    def read(self, message: Any, path: str) -> None:
        """Take one message."""
        if not isinstance(message, dict):
            raise InvalidRequestError(f"'{path}' must be an object.", param=path)
        role = message.get("role")
        readers: dict[Any, Callable[[JSON, str], None]] = {
            "system": self._system,
            "developer": self._system,
            "user": self._user,
            "assistant": self._assistant,
            "tool": self._tool,
            "function": self._function,
        }
        if not isinstance(role, str) or role not in readers:
            raise InvalidRequestError(
                f"'{path}.role' must be one of system, developer, user, assistant, tool and function.",
                param=f"{path}.role",
            )
        self.named = self.named or (bool(message.get("name")) and role not in ("function", "tool"))
        readers[role](message, path)

    def _system(self, message: JSON, path: str) -> None:
        parts = content_of(message, path)
        texts = [part for part in parts if isinstance(part, Text)]
        if len(texts) != len(parts):
            raise InvalidRequestError("A system message can hold only text.", param=f"{path}.content")
        if self.turns:
            if texts:
                self._append("system", list(texts))
        else:
            self.system += texts

    def _user(self, message: JSON, path: str) -> None:
        self._append("user", content_of(message, path))

    def _assistant(self, message: JSON, path: str) -> None:
        if message.get("audio") is not None:
            raise UnsupportedParameterError(f"{path}.audio", "This provider cannot refer to an earlier audio answer.")
        parts = [*_reasoning(message, path), *content_of(message, path)]
        refusal = message.get("refusal")
        if isinstance(refusal, str) and refusal:
            parts.append(Refusal(text=refusal, source=f"{path}.refusal"))
        parts += self._tool_calls(message, path)
        if parts:
            self._append("assistant", parts)

    def _tool_calls(self, message: JSON, path: str) -> list[ToolCall]:
        calls = message.get("tool_calls")
        if calls is not None and not isinstance(calls, list):
            raise InvalidRequestError(f"'{path}.tool_calls' must be a list.", param=f"{path}.tool_calls")
        found = [_tool_call(call, f"{path}.tool_calls[{index}]") for index, call in enumerate(calls or [])]
        old = message.get("function_call")
        if isinstance(old, dict) and not found:
            name = string_at(old, "name", f"{path}.function_call")
            call_id = f"call_legacy_{self._place}"
            self._legacy.append((name, call_id))
            raw = old.get("arguments")
            found = [
                ToolCall(
                    id=call_id,
                    name=name,
                    arguments=arguments_of(raw),
                    raw=raw if isinstance(raw, str) else "",
                    source=f"{path}.function_call",
                )
            ]
        for call in found:
            self._calls[call.id] = (call.name, self._place)
            self._place += 1
        return found

    def _tool(self, message: JSON, path: str) -> None:
        call_id = string_at(message, "tool_call_id", path)
        if call_id not in self._calls:
            raise InvalidRequestError(
                "A message of role 'tool' must answer a tool call that an earlier assistant message made.",
                param=f"{path}.tool_call_id",
            )
        self._result(call_id, message, path)

    def _function(self, message: JSON, path: str) -> None:
        name = string_at(message, "name", path)
        found = next((pair for pair in self._legacy if pair[0] == name), None)
        if found is None:
            raise InvalidRequestError(
                "A message of role 'function' must answer a function call that an earlier assistant message made.",
                param=f"{path}.name",
            )
        self._legacy.remove(found)
        self._result(found[1], message, path)

    def _result(self, call_id: str, message: JSON, path: str) -> None:
        name = self._calls[call_id][0]
        parts = content_of(message, path)
        result = ToolResult(id=call_id, name=name, parts=parts, cache=cache_of(message), source=path)
        self._append("user", [result])

    def _append(self, role: Role, parts: list[Part]) -> None:
        if self.turns and self.turns[-1].role == role:
            parts = [*self.turns.pop().parts, *parts]
        if role == "user":
            parts = self._results_first(parts)
        self.turns.append(Turn(role=role, parts=parts))

    def _results_first(self, parts: list[Part]) -> list[Part]:
        results: dict[str, ToolResult] = {}
        for part in parts:
            if not isinstance(part, ToolResult):
                continue
            seen = results.get(part.id)  # a second result of one call would be rejected: it continues the first
            results[part.id] = part if seen is None else _joined(seen, part)
        if not results:
            return parts
        ordered = sorted(results.values(), key=lambda result: self._calls[result.id][1])
        return [*ordered, *(part for part in parts if not isinstance(part, ToolResult))]


def _joined(first: ToolResult, second: ToolResult) -> ToolResult:
    return ToolResult(
        id=first.id,
        name=first.name,
        parts=[*first.parts, *second.parts],
        cache=second.cache or first.cache,
        source=first.source,
    )


def _tool_call(call: Any, path: str) -> ToolCall:
    if not isinstance(call, dict):
        raise InvalidRequestError(f"'{path}' must be an object.", param=path)
    if call.get("type") == "custom" or (call.get("custom") is not None and call.get("function") is None):
        raise UnsupportedParameterError(f"{path}.custom", "This provider has no custom tools.")
    function = call.get("function")
    if not isinstance(function, dict):
        raise InvalidRequestError(f"'{path}.function' must be an object.", param=f"{path}.function")
    raw = function.get("arguments")
    return ToolCall(
        id=string_at(call, "id", path),
        name=string_at(function, "name", f"{path}.function"),
        arguments=arguments_of(raw),
        raw=raw if isinstance(raw, str) else "",
        extra={key: value for key, value in call.items() if key not in _CALL_KEYS and value is not None},
        source=path,
    )


def _reasoning(message: JSON, path: str) -> list[Part]:
    details: list[JSON] = []
    for key in ("reasoning_details", "thinking_blocks"):
        value = message.get(key)
        if isinstance(value, list) and not details:
            details = [detail for detail in value if isinstance(detail, dict)]
    spoken = message.get("reasoning_content") or message.get("reasoning")
    text = spoken if isinstance(spoken, str) else ""
    return [Reasoning(details=details, text=text, source=path)] if details or text else []
