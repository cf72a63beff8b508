"""A chat request sent to Bedrock, held against Amazon's own description of the interface."""

import base64
import re
from typing import Any

import botocore.loaders
import botocore.model
import botocore.validate

from tests.bedrock import (
    CLAUDE,
    HELLO,
    adapter,
    call,
    sent,
)

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(8)).decode()
WEBP = base64.b64encode(b"RIFF\0\0\0\0WEBPVP8 ").decode()
PDF = base64.b64encode(b"%PDF-1.4 ...").decode()
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "City", "description": "A city.", "schema": SCHEMA}}
EMPTY = {"json": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("f", "g")]
CALLED = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}],
}
RESULT = {"role": "tool", "tool_call_id": "a", "content": "done"}
LOOP = [*HELLO, CALLED, RESULT]

_MODEL = botocore.model.ServiceModel(botocore.loaders.Loader().load_service_model("bedrock-runtime", "service-2"))
_SHAPE = _MODEL.operation_model("Converse").input_shape


def complaints(native: dict[str, Any], model: str = CLAUDE) -> list[str]:
    """Return what Amazon's own SDK would refuse, and the enums and patterns that it leaves to the service."""
    problems: list[str] = []

    def walk(value: Any, shape: Any, path: str) -> Any:
        if shape.type_name == "structure" and not getattr(shape, "is_document_type", False):
            return {k: walk(v, shape.members[k], f"{path}.{k}") if k in shape.members else v for k, v in value.items()}
        if shape.type_name == "list":
            return [walk(v, shape.member, f"{path}[{i}]") for i, v in enumerate(value)]
        if shape.type_name == "blob":
            return base64.b64decode(value, validate=True)
        if shape.type_name == "string" and path != ".modelId":
            if getattr(shape, "enum", None) and value not in shape.enum:
                problems.append(f"{path}: {value!r} is none of {shape.enum}")
            if (pattern := shape.metadata.get("pattern")) and not re.fullmatch(pattern, value):
                problems.append(f"{path}: {value!r} does not match {pattern}")
            if len(value) > shape.metadata.get("max", len(value)):
                problems.append(f"{path}: too long")
        return value

    report = botocore.validate.ParamValidator().validate(walk({**native, "modelId": model}, _SHAPE, ""), _SHAPE)
    return problems + ([report.generate_report()] if report.has_errors() else [])


def checked(body: dict[str, Any] | None = None, model: str = CLAUDE, **changes: Any) -> dict[str, Any]:
    native = sent(body, model, **changes)
    assert complaints(native, model) == []
    return native


def dropped(body: dict[str, Any], model: str = CLAUDE) -> tuple[str, ...]:
    return adapter().exchange(call(body, model)).dropped


def user(*parts: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}]


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def file(data: str, filename: str | None = None) -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": data, **({"filename": filename} if filename else {})}}


def shown(messages: list[dict[str, Any]]) -> list[tuple[str, list[Any]]]:
    return [(m["role"], [next(iter(b.items())) for b in m["content"]]) for m in messages]
