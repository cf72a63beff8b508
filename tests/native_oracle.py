"""When two native requests mean the same: a recorded one and the one that Bursar builds for the same OpenAI request.

Each step away from plain equality says why it may be taken.
"""

import json
from typing import Any

from tests import recorded

OPAQUE = {"cachedContent", "safetySettings", "labels"}  # the recording client's own extras, in no OpenAI request


def oracle_ids(*formats: str) -> list[str]:
    """Return the cases whose recorded native request OpenAI's format can say without loss."""
    found = []
    for case_id in recorded.case_ids(*formats):
        request = recorded.load(case_id)["request"]
        if request["openai_source"] == "derived" and not request["losses_in_derivation"] and request.get("native"):
            found.append(case_id)
    return found


def differences(case: dict[str, Any], ours: dict[str, Any]) -> str:
    """Return what differs between the request that was built for a case and the recorded one, "" if nothing does."""
    theirs, openai = case["request"]["native"], case["request"]["openai"]
    left, right = {
        "anthropic-messages": lambda: (claude(ours), claude(theirs)),
        "gemini": lambda: (google(ours, openai), google(theirs, openai)),
        "bedrock-converse": lambda: (bedrock(ours), bedrock(theirs)),
    }[case["upstream_format"]]()
    return "" if left == right else f"{json.dumps(left)[:2000]}\n!=\n{json.dumps(right)[:2000]}"


def claude(native: dict[str, Any]) -> Any:
    """Return a request to Claude without the one thing that we send otherwise on purpose.

    A model that has no effort xhigh gets the one below it, and thinking with it; the recording was refused.
    """
    native = dict(native)
    if native.get("output_config") in ({"effort": "xhigh"}, {"effort": "high"}):
        native.pop("output_config")
        native.pop("thinking", None)
    return canonical(native)


def canonical(value: Any, key: str = "") -> Any:
    """Make equal what Claude reads as equal.

    A field that states its default (stream false, is_error false, an empty description, a null) is as if absent; a
    string is the one text block that it stands for. A document's title is what OpenAI's `filename` is for and is left
    out here because the recordings have none; media types are left out because the recorded media were replaced by
    others, so that the type which they declare is not theirs (we send what the bytes show).
    """
    if isinstance(value, list):
        return [canonical(item) for item in value]
    if not isinstance(value, dict):
        return [{"type": "text", "text": value}] if key in ("content", "system") and isinstance(value, str) else value
    if key in ("input_schema", "schema", "input"):
        return value
    unsaid = {"stream": False, "is_error": False, "description": ""}
    return {
        name: canonical(inner, name)
        for name, inner in value.items()
        if inner is not None and unsaid.get(name, ...) != inner and name not in ("title", "media_type")
    }


def google(native: dict[str, Any], openai: dict[str, Any]) -> dict[str, Any]:
    """Bring a body for Google to one of its equivalent forms."""
    native = json.loads(json.dumps(native))
    native = {k: v for k, v in native.items() if k in native.keys() - OPAQUE or k in openai}
    config = native.pop("generationConfig", {})
    if config.get("responseModalities") == ["TEXT"]:  # the default
        del config["responseModalities"]
    if config:
        native["generationConfig"] = config
    system = native.get("systemInstruction")
    if system:
        system.pop("role", None)  # ignored there
    merged: list[dict[str, Any]] = []
    for content in native["contents"]:  # neighbours of one role are one turn
        parts = [_google_part(part) for part in content["parts"]]
        if merged and merged[-1]["role"] == content["role"]:
            merged[-1]["parts"] += parts
        else:
            merged.append({"role": content["role"], "parts": parts})
    native["contents"] = merged
    for tool in native.get("tools", []):
        for declaration in tool.get("functionDeclarations", []):
            if not declaration.get("description"):
                declaration.pop("description", None)  # an empty one says nothing
            if "parameters_json_schema" in declaration:  # both spellings are accepted
                declaration["parametersJsonSchema"] = declaration.pop("parameters_json_schema")
    return native


def _google_part(part: dict[str, Any]) -> dict[str, Any]:
    camel = {"function_call": "functionCall", "function_response": "functionResponse", "inline_data": "inlineData"}
    part = {camel.get(key, key): value for key, value in part.items() if "signature" not in key.lower()}
    response = part.get("functionResponse", {}).get("response")
    if response is not None:  # the key is the client's choice; OpenAI's clients choose none
        part["functionResponse"]["response"] = next(iter(response.values())) if len(response) == 1 else response
    return part


def bedrock(native: dict[str, Any]) -> dict[str, Any]:
    """Return a request to Converse in the form in which two that mean the same are equal."""
    native = json.loads(json.dumps(native))
    config = native.setdefault("inferenceConfig", {})
    config.pop("maxTokens", None)  # ours always says one (wire 3.38); the caller compares it
    if not native.get("system"):
        native.pop("system", None)  # an empty list says nothing
    elif any("cachePoint" in block for block in native["system"]):
        # the derived request of the client does not say where the recording's client wanted its cache points
        native["system"] = [block for block in native["system"] if "cachePoint" not in block]
    for message in native["messages"]:
        for block in message["content"]:
            if "toolResult" in block:
                block["toolResult"].pop("status", None)  # success is the default, and OpenAI's form knows no other
                for inner in block["toolResult"]["content"]:
                    if "json" in inner:  # the same JSON, as text
                        inner["text"] = json.dumps(inner.pop("json"))
                    inner["text"] = _parsed(inner["text"])
            if "image" in block:
                block["image"].pop("format")  # ours is what the bytes say, not what was declared (wire 3.56)
    definition = native.get("outputConfig", {}).get("textFormat", {}).get("structure", {}).get("jsonSchema")
    if definition:
        definition["schema"] = json.loads(definition["schema"])  # spaces between tokens mean nothing
        definition.pop("description", None)  # the derivation lost it
    return native


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
