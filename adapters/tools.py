"""The functions that a request offers, and how the model may choose: OpenAI's three ways of saying it, as one.

`tools_of` and `tool_choice_of` are for dialects that are not OpenAI's. A request of the old form (`functions`) must be
answered in the old form too: ask `wants_legacy`.
Source: https://platform.openai.com/docs/api-reference/chat/create
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Literal

from adapters.base import JSON
from adapters.conversation import cache_of
from adapters.errors import InvalidRequestError, UnsupportedParameterError

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One function. `parameters` is the client's JSON Schema with the object at its root that all dialects ask for.

    `native` is set instead of the rest for a tool in the provider's own form.
    """

    name: str
    description: str | None = None
    parameters: JSON
    strict: bool | None = None
    cache: JSON | None = None
    native: JSON | None = None
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolChoice:
    """How the model may choose: `name` only with named; `allowed` restricts the tools of auto and required."""

    mode: Literal["auto", "none", "required", "named"]
    name: str | None = None
    allowed: tuple[str, ...] | None = None


def tools_of(body: JSON, *, native: bool = False) -> list[Tool]:
    """Return the tools of a request, those of the old `functions` too; none for null and [].

    With `native`, a tool that is neither function nor custom is kept as it is, else refused.
    Raises InvalidRequestError and UnsupportedParameterError (custom tools).
    """
    tools, key = body.get("tools"), "tools"
    if not tools:
        functions, key = body.get("functions"), "functions"
        tools = [{"type": "function", "function": f} for f in functions] if isinstance(functions, list) else functions
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise InvalidRequestError(f"'{key}' must be a list.", param=key)
    return [_tool(tool, f"{key}[{index}]", native=native) for index, tool in enumerate(tools)]


def tool_choice_of(body: JSON) -> ToolChoice | None:
    """Return the choice, the old `function_call` too; None if the client left it open. Raises InvalidRequestError."""
    choice = body.get("tool_choice")
    if choice is None:
        return _legacy_choice(body.get("function_call"))
    if choice in ("auto", "none", "required"):
        return ToolChoice(mode=choice)
    if not isinstance(choice, dict):
        raise InvalidRequestError("'tool_choice' must be auto, none, required or an object.", param="tool_choice")
    kind = choice.get("type")
    if kind == "function":
        return ToolChoice(mode="named", name=_name(choice.get("function"), "tool_choice.function"))
    if kind == "allowed_tools":
        return _allowed(choice.get("allowed_tools"))
    if kind == "custom":
        raise UnsupportedParameterError("tool_choice.custom", "This provider has no custom tools.")
    raise InvalidRequestError("'tool_choice.type' must be function or allowed_tools.", param="tool_choice.type")


def wants_legacy(body: JSON) -> bool:
    """Tell whether the client speaks the old form, and so expects `message.function_call` instead of `tool_calls`."""
    return bool(body.get("functions")) and not body.get("tools")


def sanitise_tool_id(tool_id: str, pattern: re.Pattern[str], length: int = 24) -> str:
    """Return the id if all of it matches `pattern`, else another of `length` letters and digits, always the same one."""
    if pattern.fullmatch(tool_id):
        return tool_id
    number = int.from_bytes(hashlib.sha256(tool_id.encode("utf-8", "surrogatepass")).digest(), "big")
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(digits)


def object_schema(schema: Any) -> JSON:
    """Return a tool's schema with an object at its root; keys keep their order, added ones come last."""
    if not isinstance(schema, dict):
        return {"type": "object", "properties": {}}
    if "type" in schema and ("properties" in schema or schema["type"] != "object"):
        return schema
    added: JSON = {} if "type" in schema else {"type": "object"}
    return {**schema, **added, **({} if "properties" in schema else {"properties": {}})}


def _tool(tool: Any, path: str, *, native: bool) -> Tool:
    if not isinstance(tool, dict):
        raise InvalidRequestError(f"'{path}' must be an object.", param=path)
    kind = tool.get("type")
    if kind == "custom" and "function" not in tool and not (native and "input_schema" in tool):
        raise UnsupportedParameterError(path, "This provider has no custom tools.")
    function = tool.get("function")
    if function is None and kind != "function":
        if not native:
            raise UnsupportedParameterError(path, "This provider has no tools of this type.")
        name = tool.get("name")
        return Tool(name=name if isinstance(name, str) else "", parameters={}, native=tool, source=path)
    where = path if path.startswith("functions") else f"{path}.function"
    if not isinstance(function, dict):
        raise InvalidRequestError(f"'{where}' must be an object.", param=where)
    name = _name(function, where)
    description, parameters = function.get("description"), function.get("parameters")
    if parameters is not None and not isinstance(parameters, dict):
        raise InvalidRequestError(f"'{where}.parameters' must be an object.", param=f"{where}.parameters")
    strict = function.get("strict")
    return Tool(
        name=name,
        description=description if isinstance(description, str) else None,
        parameters=object_schema(parameters),
        strict=strict if isinstance(strict, bool) else None,
        cache=cache_of(tool) or cache_of(function),
        source=path,
    )


def _legacy_choice(choice: Any) -> ToolChoice | None:
    if choice is None:
        return None
    if choice in ("auto", "none"):
        return ToolChoice(mode=choice)
    return ToolChoice(mode="named", name=_name(choice, "function_call"))


def _allowed(allowed: Any) -> ToolChoice:
    path = "tool_choice.allowed_tools"
    if not isinstance(allowed, dict):
        raise InvalidRequestError(f"'{path}' must be an object.", param=path)
    mode = allowed.get("mode", "auto")
    if mode not in ("auto", "required"):
        raise InvalidRequestError(f"'{path}.mode' must be auto or required.", param=f"{path}.mode")
    tools = allowed.get("tools")
    if not isinstance(tools, list) or not tools:
        raise InvalidRequestError(f"'{path}.tools' must be a list with a tool in it.", param=f"{path}.tools")
    names = []
    for index, tool in enumerate(tools):
        where = f"{path}.tools[{index}]"
        inner = tool.get("function", tool) if isinstance(tool, dict) else None
        names.append(_name(inner, where))
    return ToolChoice(mode="required" if mode == "required" else "auto", allowed=tuple(names))


def _name(holder: Any, path: str) -> str:
    name = holder.get("name") if isinstance(holder, dict) else None
    if not isinstance(name, str) or not name:
        raise InvalidRequestError(f"'{path}.name' must be a string with text in it.", param=f"{path}.name")
    return name
