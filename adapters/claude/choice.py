"""Which tools Claude is offered, how it may choose, and the tool that stands in for a structured answer.

Models without structured outputs are made to call a tool whose input is the answer; the answer's translators turn that
call back into content, so the client never sees it.
Source: https://platform.claude.com/docs/en/agents-and-tools/tool-use/define-tools
"""

from dataclasses import dataclass
from typing import Any

from adapters.base import JSON
from adapters.claude.models import Traits
from adapters.claude.schema import closed, open_ended
from adapters.errors import InvalidRequestError
from adapters.tools import Tool, ToolChoice, object_schema, tool_choice_of, tools_of, wants_legacy

_JSON_LINE = "Answer with one JSON object and nothing else."


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """`tools` and `tool_choice` as sent; `answer_tool` is the name of the tool that stands in for the answer."""

    tools: list[JSON]
    tool_choice: JSON | None = None
    format: JSON | None = None  # of output_config
    system_line: str | None = None
    answer_tool: str | None = None
    dropped: tuple[str, ...] = ()

    @property
    def forced(self) -> bool:
        """True if Claude must call a tool, which it cannot do while thinking."""
        return self.tool_choice is not None and self.tool_choice["type"] in ("any", "tool")


def choose(body: JSON, traits: Traits) -> Choice:
    """Return the tools, the choice and the answer's format. Raises InvalidRequestError, UnsupportedParameterError."""
    offered = tools_of(body, native=True)
    choice = tool_choice_of(body)
    dropped = () if offered or choice is None or choice.mode in ("auto", "none") else ("tool_choice",)
    tools, selected = _selected(offered, choice if offered else None)
    selected = _alone(selected, body, bool(offered))
    native = [*(_tool(tool) for tool in tools), *_web_search(body)]
    kind, wanted = _format(body)
    if kind == "json_object":
        return Choice(tools=native, tool_choice=selected, system_line=_JSON_LINE, dropped=dropped)
    if wanted is None:
        return Choice(tools=native, tool_choice=selected, dropped=dropped)
    schema = wanted.get("schema")
    if traits.schema and not open_ended(schema):
        form = {"type": "json_schema", "schema": closed(schema if schema is not None else object_schema(None))}
        return Choice(tools=native, tool_choice=selected, format=form, dropped=dropped)
    if selected is not None and selected["type"] in ("any", "tool"):  # the client wants a call now, not an answer
        return Choice(tools=native, tool_choice=selected, dropped=(*dropped, "response_format"))
    return _emulated(native, selected, wanted, dropped)


def _emulated(native: list[JSON], selected: JSON | None, wanted: JSON, dropped: tuple[str, ...]) -> Choice:
    name = "json_answer"
    while any(tool.get("name") == name for tool in native):
        name += "_"
    description = wanted.get("description")
    tool = {
        "name": name,
        "description": description if isinstance(description, str) and description else "Gives the final answer.",
        "input_schema": object_schema(wanted.get("schema")),
    }
    alone = not native or (selected is not None and selected["type"] == "none")
    forced: JSON = {"type": "tool", "name": name} if alone else {"type": "any"}
    forced["disable_parallel_tool_use"] = True
    return Choice(tools=[*native, tool], tool_choice=forced, answer_tool=name, dropped=dropped)


def _selected(tools: list[Tool], choice: ToolChoice | None) -> tuple[list[Tool], JSON | None]:
    if choice is None:
        return tools, None
    if choice.allowed is not None:
        tools = [tool for tool in tools if tool.name in choice.allowed]
        if not tools:
            raise InvalidRequestError(
                "None of the allowed tools is among 'tools'.", param="tool_choice.allowed_tools.tools"
            )
        if choice.mode == "required" and len(tools) == 1:
            return tools, {"type": "tool", "name": tools[0].name}
    if choice.mode == "named":
        return tools, {"type": "tool", "name": choice.name}
    return tools, {"type": {"auto": "auto", "none": "none", "required": "any"}[choice.mode]}


def _alone(selected: JSON | None, body: JSON, offered: bool) -> JSON | None:
    """Return the choice with one call at a time, where asked for or where the old form has room for only one."""
    if not offered or not (body.get("parallel_tool_calls") is False or wants_legacy(body)):
        return selected
    selected = selected or {"type": "auto"}
    return selected if selected["type"] == "none" else {**selected, "disable_parallel_tool_use": True}


def _tool(tool: Tool) -> JSON:
    if tool.native is not None:
        return dict(tool.native)
    made: JSON = {"name": tool.name}
    if tool.description:
        made["description"] = tool.description
    made["input_schema"] = tool.parameters
    if tool.strict is not None:
        made["strict"] = tool.strict
    if tool.cache:
        made["cache_control"] = tool.cache
    return made


def _web_search(body: JSON) -> list[JSON]:
    options = body.get("web_search_options")
    if options is None:
        return []
    if not isinstance(options, dict):
        raise InvalidRequestError("'web_search_options' must be an object.", param="web_search_options")
    tool: JSON = {"type": "web_search_20250305", "name": "web_search", "max_uses": 5}
    place = options.get("user_location")
    inner = place.get("approximate") if isinstance(place, dict) else None
    if isinstance(inner, dict):
        known = {
            key: inner[key] for key in ("city", "region", "country", "timezone") if isinstance(inner.get(key), str)
        }
        tool["user_location"] = {"type": "approximate", **known}
    return [tool]


def _format(body: JSON) -> tuple[str, JSON | None]:
    form: Any = body.get("response_format")
    if form is None:
        return "text", None
    kind = form.get("type") if isinstance(form, dict) else None
    if kind not in ("text", "json_object", "json_schema"):
        raise InvalidRequestError(
            "'response_format.type' must be text, json_object or json_schema.", param="response_format.type"
        )
    if kind != "json_schema":
        return kind, None
    wanted = form.get("json_schema")
    if not isinstance(wanted, dict) or not isinstance(wanted.get("schema", {}), dict):
        raise InvalidRequestError(
            "'response_format.json_schema' must be an object with a schema.", param="response_format.json_schema"
        )
    return kind, wanted
