"""Tools and the choice among them as Google's `tools` and `toolConfig`.

All functions are one tool's functionDeclarations; Google's own tools (search, code execution …) stand beside it.
Source: https://ai.google.dev/api/caching#Tool
"""

from adapters.base import JSON
from adapters.errors import UnsupportedParameterError
from adapters.google.models import Model
from adapters.google.schema import parameters_of
from adapters.messages import Tool, ToolChoice, tool_choice_of, tools_of

_NATIVE = {
    "google_search": "googleSearch",
    "google_search_retrieval": "googleSearchRetrieval",
    "code_execution": "codeExecution",
    "url_context": "urlContext",
    "file_search": "fileSearch",
    "google_maps": "googleMaps",
    "computer_use": "computerUse",
    "enterprise_web_search": "enterpriseWebSearch",
    "function_declarations": "functionDeclarations",
    "retrieval": "retrieval",
}
_NATIVE_NAMES = frozenset(_NATIVE.values())


def tooling_of(body: JSON, model: Model) -> tuple[JSON, list[str]]:
    """Return `tools` and `toolConfig` as far as there are any, and the fields that had no place.

    Raises InvalidRequestError and UnsupportedParameterError.
    """
    dropped: list[str] = []
    tools = tools_of(body, native=True)
    choice = tool_choice_of(body)
    functions = [_declaration(tool, model) for tool in tools if tool.native is None]
    native: list[JSON] = [_own(tool) for tool in tools if tool.native is not None]
    search = body.get("web_search_options")
    if search is not None:
        native.append({"googleSearch": {}})
        if search:
            dropped.append("web_search_options")
    if _unneeded(body, choice, model):
        functions, choice = [], None  # tools that may not be called, beside a JSON answer that excludes them
    out: JSON = {}
    if functions or native:
        out["tools"] = [*([{"functionDeclarations": functions}] if functions else []), *native]
    if choice is not None and functions:
        out["toolConfig"] = {"functionCallingConfig": _calling(choice)}
    elif choice is not None and choice.mode in {"required", "named"}:
        raise UnsupportedParameterError("tool_choice", "There is no function that the model could be made to call.")
    if body.get("parallel_tool_calls") is False and functions:
        dropped.append("parallel_tool_calls")
    return out, dropped


def has_functions(tooling: JSON) -> bool:
    """Tell whether there are functions among the tools."""
    return any("functionDeclarations" in tool for tool in tooling.get("tools", ()))


def _unneeded(body: JSON, choice: ToolChoice | None, model: Model) -> bool:
    form = body.get("response_format")
    wants_json = isinstance(form, dict) and form.get("type") in ("json_object", "json_schema")
    return wants_json and choice is not None and choice.mode == "none" and not model.json_with_tools


def _declaration(tool: Tool, model: Model) -> JSON:
    declaration: JSON = {"name": tool.name}
    if tool.description:
        declaration["description"] = tool.description
    return {**declaration, **parameters_of(tool.parameters, openapi=model.schema == "openapi")}


def _own(tool: Tool) -> JSON:
    given = tool.native or {}
    kind = given.get("type")
    if isinstance(kind, str) and _NATIVE.get(kind, kind) in _NATIVE_NAMES:
        name = _NATIVE.get(kind, kind)
        return {name: given.get(kind) or given.get(name) or {}}
    own = {_NATIVE.get(key, key): value for key, value in given.items() if key != "type"}
    if not own or not _NATIVE_NAMES.issuperset(own):
        raise UnsupportedParameterError(tool.source, "This provider has no tools of this type.")
    return own


def _calling(choice: ToolChoice) -> JSON:
    if choice.mode == "named":
        return {"mode": "ANY", "allowedFunctionNames": [choice.name]}
    if choice.allowed is not None:
        mode = "ANY" if choice.mode == "required" else "VALIDATED"
        return {"mode": mode, "allowedFunctionNames": list(choice.allowed)}
    return {"mode": {"auto": "AUTO", "none": "NONE", "required": "ANY"}[choice.mode]}
