"""Walk over a request and sum up what each piece of it costs, given how to count a text.

The one walk serves the exact count and the cheap bound, so that the two can never disagree about what is counted.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import orjson

from accounting.tokens.families import Family
from accounting.tokens.media import SOUND_REFERENCE_TOKENS, audio_tokens, file_tokens, image_tokens

JSON: TypeAlias = dict[str, Any]

PRIMING_TOKENS = 3  # every answer is primed with <|start|>assistant<|message|>
NAME_TOKENS = 1
CALL_TOKENS = 8  # marks around an earlier tool call
TOOLS_TOKENS = 24  # marks around all tools: the namespace and its end
TOOL_TOKENS = 12  # marks around one tool
FORMAT_TOKENS = 24  # the heading over a response format
FORMAT_SCHEMA_TOKENS = 200  # other vendors' instructions to keep to it
_BESIDE = frozenset({"tools", "functions", "tool_choice", "function_call", "response_format", "prediction"})
_NODES_MAX = 1_000_000  # of a value that is too deep for a JSON writer


class Prompt:
    """The sums of one request. `count` is given each text once; media are counted by the family's formula."""

    def __init__(self, count: Callable[[str], int], model: str, family: Family) -> None:
        self._count = count
        self._model = model
        self._family = family

    def chat(self, body: JSON) -> int:
        """Sum up a chat completion's messages, tools, functions, response format and prediction."""
        messages = body.get("messages")
        total = (
            PRIMING_TOKENS
            + self._family.base_tokens
            + sum(map(self._message, messages if isinstance(messages, list) else []))
        )
        if _BESIDE.isdisjoint(body):
            return total
        total += self._tools(body.get("tools")) + self._tools(body.get("functions"))
        total += self._choice(body.get("tool_choice")) + self._choice(body.get("function_call"))
        total += self._format(body.get("response_format"))
        prediction = body.get("prediction")
        if isinstance(prediction, dict):
            total += self._content(prediction.get("content"))
        return total

    def response(self, body: JSON) -> int:
        """Sum up a response's instructions, input items, tools and text format."""
        total = PRIMING_TOKENS + self._family.base_tokens
        instructions, items = body.get("instructions"), body.get("input")
        for content in (instructions, items):
            if isinstance(content, str):
                total += self._family.message_tokens + NAME_TOKENS + self._count(content)
            elif isinstance(content, list):
                total += sum(map(self._item, content))
        text = body.get("text")
        total += self._tools(body.get("tools")) + self._choice(body.get("tool_choice"))
        return total + self._format(text.get("format") if isinstance(text, dict) else None)

    def plain(self, value: Any) -> int:
        """Sum up a prompt or embedding input: text, texts, token ids, lists of token ids."""
        if isinstance(value, str):
            return self._count(value)
        if isinstance(value, list):
            return sum(1 if isinstance(item, int) else self.plain_item(item) for item in value)
        return 0 if value is None else self._json(value)

    def plain_item(self, item: Any) -> int:
        """Sum up one of several inputs: a text, or token ids."""
        if isinstance(item, list):
            return sum(1 if isinstance(entry, int) else self._json(entry) for entry in item)
        return self._count(item) if isinstance(item, str) else self._json(item)

    def _message(self, message: Any) -> int:
        if not isinstance(message, dict):
            return self._family.message_tokens + self._json(message)
        if len(message) == 2 and type(text := message.get("content")) is str and type(message.get("role")) is str:  # noqa: PLR2004 - as most are
            return self._family.message_tokens + self._count(message["role"]) + self._count(text)
        total = self._family.message_tokens + self._texts(message, ("role", "refusal", "tool_call_id"))
        if isinstance(message.get("name"), str):
            total += NAME_TOKENS + self._count(message["name"])
        total += self._content(message.get("content")) + self._reasoning(message)
        calls = message.get("tool_calls")
        total += sum(map(self._call, calls if isinstance(calls, list) else []))
        total += self._call({"function": message["function_call"]}) if message.get("function_call") else 0
        return total + (SOUND_REFERENCE_TOKENS if message.get("audio") else 0)

    def _content(self, content: Any) -> int:
        if isinstance(content, str):
            return self._count(content)
        if isinstance(content, list):
            return sum(map(self._part, content))
        return 0 if content is None else self._json(content)

    def _part(self, part: Any) -> int:
        if isinstance(part, str):
            return self._count(part)
        if not isinstance(part, dict):
            return self._json(part)
        kind = str(part.get("type"))
        if kind in ("image_url", "input_image"):
            return self._image(part)
        if kind == "input_audio":
            return self._audio(part.get("input_audio"))
        if kind in ("file", "input_file"):
            return self._file(part.get("file") if isinstance(part.get("file"), dict) else part)
        texts = [part[key] for key in ("text", "refusal") if isinstance(part.get(key), str)]
        return sum(map(self._count, texts)) if texts else self._json(part)

    def _image(self, part: JSON) -> int:
        image = part.get("image_url")
        detail = part.get("detail")
        if isinstance(image, dict):
            detail, image = image.get("detail", detail), image.get("url")
        url = image if isinstance(image, str) else ""
        return image_tokens(url, detail if isinstance(detail, str) else "auto", self._model, self._family)

    def _audio(self, audio: Any) -> int:
        data = audio.get("data") if isinstance(audio, dict) else None
        if not isinstance(data, str):
            return SOUND_REFERENCE_TOKENS
        return audio_tokens(data, str(audio.get("format")), self._family)

    def _file(self, file: Any) -> int:
        data = next((file[key] for key in ("file_data", "file_url") if isinstance(file.get(key), str)), "")
        name = self._texts(file, ("filename",))
        return name + file_tokens(data, self._model, self._family, self._count)

    def _call(self, call: Any) -> int:
        if not isinstance(call, dict):
            return CALL_TOKENS + self._json(call)
        inner = next((call[key] for key in ("function", "custom") if isinstance(call.get(key), dict)), call)
        return CALL_TOKENS + self._texts(inner, ("name", "arguments", "input"))

    def _item(self, item: Any) -> int:
        """Sum up one input item of the responses form; one of a kind not known here counts as its JSON."""
        if isinstance(item, dict) and ("role" in item or item.get("type") == "message"):
            return self._message(item)
        if isinstance(item, dict) and str(item.get("type")) in {
            "input_text",
            "input_image",
            "input_file",
            "input_audio",
        }:
            return self._family.message_tokens + self._part(item)
        if isinstance(item, dict) and isinstance(item.get("output"), list):
            return self._family.message_tokens + self._texts(item, ("call_id",)) + self._content(item["output"])
        return self._family.message_tokens + self._json(item)

    def _tools(self, tools: Any) -> int:
        if not tools:
            return 0
        each = tools if isinstance(tools, list) else [tools]
        if self._family.exact:
            each = [rendered(tool) for tool in each]
        return TOOLS_TOKENS + self._family.tools_tokens + sum(TOOL_TOKENS + self._json(tool) for tool in each)

    def _choice(self, choice: Any) -> int:
        return 0 if choice in (None, "auto", "none") else 4 + self._json(choice)

    def _format(self, response_format: Any) -> int:
        if not isinstance(response_format, dict) or str(response_format.get("type")) == "text":
            return 0
        schema = FORMAT_SCHEMA_TOKENS if not self._family.exact else 0
        return FORMAT_TOKENS + schema + self._json(response_format)

    def _reasoning(self, message: JSON) -> int:
        """Earlier reasoning goes upstream under one of several names; the same text under two of them goes once."""
        total = max(self._texts(message, (key,)) for key in ("reasoning_content", "reasoning"))
        details = message.get("reasoning_details")
        parts = [part for part in details if isinstance(part, dict)] if isinstance(details, list) else []
        return max(total, sum(self._texts(part, ("text", "summary", "data")) for part in parts))

    def _texts(self, source: JSON, keys: Iterable[str]) -> int:
        return sum(self._count(source[key]) for key in keys if isinstance(source.get(key), str))

    def _json(self, value: Any) -> int:
        return self._count(json_text(value))


def rendered(tool: Any) -> Any:
    """Leave out what OpenAI does not show its models of a tool: it renders them as types, without the JSON around."""
    if not isinstance(tool, dict):
        return tool
    inner = tool.get("function") if tool.get("type") == "function" else tool
    if not isinstance(inner, dict):
        return tool
    kept = {key: value for key, value in inner.items() if key != "strict" and value not in ("", None)}
    parameters = inner.get("parameters")
    if isinstance(parameters, dict):
        kept["parameters"] = _rendered_object(parameters)
        if not parameters.get("properties"):
            del kept["parameters"]
    return kept


def _rendered_object(schema: JSON) -> JSON:
    properties = schema.get("properties")
    known = properties.keys() if isinstance(properties, dict) else ()
    required = schema.get("required")
    told_by_types = isinstance(required, list) and all(isinstance(name, str) and name in known for name in required)
    drop = {"type", "required"} if told_by_types or required is None else {"type"}
    kept = {key: value for key, value in schema.items() if key not in drop}
    if kept.get("additionalProperties") is False:
        del kept["additionalProperties"]
    return kept


def json_text(value: Any) -> str:
    """Write a value as compact JSON; one that is too deep for that as its strings and a mark for every other node."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # too deep, an integer beyond 64 bits, half of a surrogate pair
        pass
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (RecursionError, TypeError, ValueError):
        return " ".join(_leaves(value))


def _leaves(value: Any) -> list[str]:
    leaves: list[str] = []
    waiting = [value]
    while waiting and len(leaves) < _NODES_MAX:
        node = waiting.pop()
        if isinstance(node, dict):
            leaves.append("{}")
            waiting.extend(node.keys())
            waiting.extend(node.values())
        elif isinstance(node, list | tuple):
            leaves.append("[]")
            waiting.extend(node)
        else:
            leaves.append(node if isinstance(node, str) else str(node)[:64])
    return leaves
