"""Tools, the choice among them, and structured output, as `toolConfig` and `outputConfig`.

Converse has no choice "none", and refuses a history with calls in it when no tools are declared: what the history used
is then declared again. Where a model takes no JSON Schema for its text, a tool that must be called takes the schema, and
the answer side turns its input back into text.
Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ToolConfiguration.html
"""

import re
from dataclasses import dataclass, field
from typing import Any

from adapters.base import JSON
from adapters.bedrock.blocks import Blocks
from adapters.bedrock.models import Model
from adapters.claude.schema import closed, open_ended
from adapters.errors import InvalidRequestError, UnsupportedParameterError
from adapters.exact import dumps_exact
from adapters.messages import Tool, ToolChoice, tool_choice_of, tools_of
from adapters.tools import object_schema

JSON_TOOL = "json"
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NATIVE = ("toolSpec", "systemTool", "cachePoint")
_NO_TOOLS_NOW = "Do not call any tool in this turn; answer in words."
_JSON_ONLY = "Answer with one JSON object and nothing else."


@dataclass(slots=True)
class ToolPlan:
    """What a request says of tools. `json_tool` is the emulating tool's name, `system` what must be said in words."""

    config: JSON | None = None
    output: JSON | None = None
    system: list[str] = field(default_factory=list)
    json_tool: str | None = None
    forced: bool = False  # some tool must be called


def plan_tools(body: JSON, model: Model, blocks: Blocks, messages: list[JSON]) -> ToolPlan:
    """Return the plan for a request with these messages. Raises InvalidRequestError and UnsupportedParameterError."""
    tools, choice = tools_of(body, native=True), tool_choice_of(body)
    if tools and not model.tools:
        raise UnsupportedParameterError("tools", "This model cannot call tools.")
    plan = ToolPlan()
    schema = _response_schema(body.get("response_format"), plan)
    used = _used_names(messages)
    if choice is not None and choice.mode == "none":
        tools = [tool for tool in tools if tool.name in used]
        if used:
            plan.system.append(_NO_TOOLS_NOW)
    if choice is not None and choice.allowed is not None:
        tools = [tool for tool in tools if tool.name in choice.allowed or tool.name in used]
    specs = [block for tool in tools for block in _specs(tool, model, blocks)]
    if not any("toolSpec" in spec or "systemTool" in spec for spec in specs):
        specs = [{"toolSpec": {"name": name, "inputSchema": {"json": object_schema(None)}}} for name in used]
    wanted = _choice(choice, model, len(tools))
    if schema is not None:
        wanted = _structure(schema, model, plan, specs, wanted)
    if specs:
        plan.config = {"tools": specs, **({"toolChoice": wanted} if wanted else {})}
        plan.forced = bool(wanted) and "auto" not in wanted
    return plan


def _specs(tool: Tool, model: Model, blocks: Blocks) -> list[JSON]:
    if tool.native is not None:
        kept = {key: tool.native[key] for key in _NATIVE if key in tool.native}
        if len(kept) != 1:
            raise UnsupportedParameterError(tool.source, "This provider has no tools of this type.")
        return [kept]
    if not _NAME.fullmatch(tool.name):
        raise InvalidRequestError("A tool's name has 1 to 64 letters, digits, '_' and '-'.", param=tool.source)
    spec: JSON = {"name": tool.name}
    if tool.description and tool.description.strip():
        spec["description"] = tool.description
    spec["inputSchema"] = {"json": tool.parameters}
    if tool.strict and model.strict_tools:
        spec["strict"] = True
    return [{"toolSpec": spec}, *blocks.cache_point(tool.cache, "tools")]


def _choice(choice: ToolChoice | None, model: Model, count: int) -> JSON:
    if choice is None or choice.mode == "none":
        return {}
    if choice.mode == "auto":
        return (
            {"auto": {}} if count and model.tool_choice else {}
        )  # what a model does anyway is said to those that take it
    if not count:
        raise InvalidRequestError("'tool_choice' asks for a tool, but there are none.", param="tool_choice")
    names = choice.allowed or ()
    name = choice.name or (names[0] if len(names) == 1 else None)
    if name is not None and "tool" in model.tool_choice:
        return {"tool": {"name": name}}
    if "any" in model.tool_choice and (name is None or count == 1):
        return {"any": {}}
    raise UnsupportedParameterError("tool_choice", "This model cannot be made to call a tool.")


def _response_schema(wanted: Any, plan: ToolPlan) -> JSON | None:
    """Return the json_schema part of `response_format`; json_object has no form but words."""
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if wanted is None or kind == "text":
        return None
    if kind == "json_object":
        plan.system.append(_JSON_ONLY)
        return None
    schema = wanted.get("json_schema") if isinstance(wanted, dict) else None
    if kind != "json_schema" or not isinstance(schema, dict):
        raise InvalidRequestError(
            "'response_format' must be text, json_object or json_schema with its schema.", param="response_format"
        )
    return schema


def _structure(wanted: JSON, model: Model, plan: ToolPlan, specs: list[JSON], choice: JSON) -> JSON:
    """Put the schema into `plan` or, as a tool, into `specs`; return the tool choice that holds then."""
    schema = wanted.get("schema")
    schema = schema if isinstance(schema, dict) else {"type": "object"}
    if model.json_schema and not open_ended(schema):
        definition = {"name": wanted.get("name"), "description": wanted.get("description")}
        definition = {key: value for key, value in definition.items() if isinstance(value, str) and value}
        definition["schema"] = dumps_exact(closed(schema)).decode()
        plan.output = {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": definition}}}
        return choice
    if "tool" in choice:  # the one call that must be made is not the answer
        return choice
    if not model.tools or not model.tool_choice:
        raise UnsupportedParameterError("response_format", "This model cannot be bound to a JSON Schema.")
    taken = {spec["toolSpec"]["name"] for spec in specs if "toolSpec" in spec}
    name = next(name for name in _names() if name not in taken)
    alone = not specs
    specs.append(
        {
            "toolSpec": {
                "name": name,
                "description": wanted.get("description") or "Give your answer to the user with this tool.",
                "inputSchema": {"json": object_schema(schema)},
            }
        }
    )
    plan.json_tool = name
    return {"tool": {"name": name}} if alone and "tool" in model.tool_choice else {"any": {}}


def _names() -> Any:
    yield JSON_TOOL
    number = 1
    while True:
        number += 1
        yield f"{JSON_TOOL}_{number}"


def _used_names(messages: list[JSON]) -> list[str]:
    """Return the names of the tools that the history called, each once."""
    return list(
        {block["toolUse"]["name"]: None for message in messages for block in message["content"] if "toolUse" in block}
    )
