"""Reads a request body: the few fields that Bursar acts on, checked and bounded. All others are the provider's business."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import orjson

from accounting.prices.table import MODEL_CHARS_MAX
from adapters.base import JSON, Operation
from adapters.errors import InvalidRequestError
from adapters.splice import splice
from proxy.config.environment import CallDefaults
from proxy.errors import ClientError, bad_body, from_adapter

MESSAGES_MAX = 4096
CHOICES_MAX = 128
OUTPUT_MAX = 2**31
DEPTH_MAX = 64
_LIMITS: dict[Operation, tuple[str, ...]] = {
    "chat": ("max_completion_tokens", "max_tokens"),
    "completions": ("max_tokens",),
    "responses": ("max_output_tokens",),
    "embeddings": (),
}
_NEEDED: dict[Operation, str] = {
    "chat": "messages",
    "completions": "prompt",
    "embeddings": "input",
    "responses": "input",
}

# Fields that make a provider do, or read, what no output limit bounds: https://platform.openai.com/docs/pricing
_UNBOUNDED = (
    "web_search_options", "search_parameters", "plugins", "mcp_servers", "previous_response_id", "conversation",
    "prompt_template", "background", "audio", "container",
)  # fmt: skip
# What is looked at no further where a request has none of it.
_SELDOM = frozenset(
    {"stream_options", "n", "best_of", "thinking", "reasoning", "service_tier", "tools", *_UNBOUNDED}
)  # fmt: skip
_BOUNDED_TOOLS = ("function", "custom", None)  # no set: a client may say anything, also what has no hash


class Asked(msgspec.Struct, frozen=True):
    """One request. `limit` is the client's own output limit per choice; `thinking` a budget that the output must exceed."""

    operation: Operation
    raw: bytes
    body: JSON
    model: str
    stream: bool
    show_usage: bool
    choices: int
    limit: int | None
    two_limits: bool  # both spellings were given: they must be made to agree
    thinking: int
    service_tier: str | None
    unbounded: str | None  # the first field whose cost no output limit bounds


def read_request(operation: Operation, raw: bytes, defaults: CallDefaults) -> Asked:
    """Parse and check; what the client leaves out comes from `defaults`. Raises ClientError 400, naming the field."""
    body = _object(raw)
    if defaults.model is not None or defaults.temperature is not None:
        body, raw = _with_defaults(body, raw, defaults)
    model = body.get("model")
    if type(model) is not str or not model:
        raise bad_body(
            "you must provide a model parameter" if model is None else "model must be a text that is not empty", "model"
        )
    if len(model) > MODEL_CHARS_MAX:  # much is kept by it, also in the store
        raise bad_body(f"model must have at most {MODEL_CHARS_MAX} characters", "model")
    _check_input(operation, body)
    stream = "stream" in body and _flag(body, "stream")
    limit, two_limits = None, False
    for name in _LIMITS[operation]:
        if name in body and (value := _count(body, name, OUTPUT_MAX)) is not None:
            limit, two_limits = value if limit is None else max(limit, value), limit is not None
    if _SELDOM.isdisjoint(body):
        choices = 1 if operation != "completions" else _prompts(body)
        return Asked(operation, raw, body, model, stream, False, choices, limit, two_limits, 0, None, None)
    show_usage, choices = _shows_usage(body, stream), _choices(operation, body)
    tier = tier if isinstance(tier := body.get("service_tier"), str) else None
    return Asked(
        operation, raw, body, model, stream, show_usage, choices, limit, two_limits,
        _thinking(body), tier, _unbounded(body),
    )  # fmt: skip


def spliced(raw: bytes, changes: Mapping[str, bytes | None]) -> bytes:
    """Return the body with members set or (None) taken out. Raises ClientError 400 where one is given twice."""
    try:
        return splice(raw, changes)
    except InvalidRequestError as error:
        raise from_adapter(error) from error


def _object(raw: bytes) -> JSON:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:
            body = json.loads(raw)  # integers beyond 64 bits are JSON too
            json.dumps(body, ensure_ascii=False).encode()  # half of a surrogate pair is not text
        except (ValueError, RecursionError) as error:
            raise bad_body("We could not parse the JSON body of your request.") from error
    if type(body) is not dict:
        raise bad_body("The body must be a JSON object.")
    if _may_be_deep(raw) and _too_deep(body):
        raise bad_body(f"The body is nested more than {DEPTH_MAX} levels deep.")
    return body


def _with_defaults(body: JSON, raw: bytes, defaults: CallDefaults) -> tuple[JSON, bytes]:
    missing: JSON = {}
    if defaults.model is not None and body.get("model") is None:
        missing["model"] = defaults.model
    if defaults.temperature is not None and body.get("temperature") is None:
        missing["temperature"] = defaults.temperature
    if not missing:
        return body, raw
    return {**body, **missing}, spliced(raw, {name: orjson.dumps(value) for name, value in missing.items()})


def _may_be_deep(raw: bytes) -> bool:
    """Tell whether there are as many brackets; to find the next one is much faster than to count all of them."""
    found = 0
    for bracket in (b"{", b"["):
        at = raw.find(bracket)
        while at >= 0:
            found += 1
            if found > DEPTH_MAX:
                return True
            at = raw.find(bracket, at + 1)
    return False


def _too_deep(body: JSON) -> bool:
    level: list[Iterable[Any]] = [body.values()]
    for _ in range(DEPTH_MAX):
        below: list[Iterable[Any]] = []
        for values in level:
            for value in values:
                if type(value) is dict:
                    below.append(value.values())
                elif type(value) is list:
                    below.append(value)
        if not below:
            return False
        level = below
    return True


def _check_input(operation: Operation, body: JSON) -> None:
    name = _NEEDED[operation]
    value = body.get(name)
    if value is None and not (operation == "responses" and body.get("prompt")):
        raise bad_body(f"Missing required parameter: '{name}'.", name)
    if operation == "chat":
        if type(value) is not list or not value:
            raise bad_body("'messages' must be an array with at least one message.", "messages")
        if len(value) > MESSAGES_MAX:
            raise bad_body(f"'messages' has more than {MESSAGES_MAX} messages.", "messages")
        for index, message in enumerate(value):
            if type(message) is not dict:
                raise bad_body(f"'messages[{index}]' must be an object.", f"messages[{index}]")


def _shows_usage(body: JSON, stream: bool) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise bad_body("'stream_options' must be an object.", "stream_options")
    if not stream:
        raise bad_body("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
    return options.get("include_usage") is True


def _flag(body: JSON, name: str) -> bool:
    value = body.get(name)
    if value is True or value is False:
        return value
    if value is not None:
        raise bad_body(f"'{name}' must be true or false.", name)
    return False


def _count(body: JSON, name: str, most: int) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= most:  # no bool, which is an instance of int
        raise bad_body(f"'{name}' must be an integer of at least 1.", name)
    return value


def _choices(operation: Operation, body: JSON) -> int:
    if operation not in ("chat", "completions"):
        return 1
    each = max(_count(body, "n", CHOICES_MAX) or 1, _count(body, "best_of", CHOICES_MAX) or 1)
    return each * _prompts(body) if operation == "completions" else each


def _prompts(body: JSON) -> int:
    prompts = body["prompt"]
    return len(prompts) if isinstance(prompts, list) and prompts and not isinstance(prompts[0], int) else 1


def _thinking(body: JSON) -> int:
    """The tokens that a request sets apart for thinking; they count against its output limit."""
    for place in (body.get("thinking"), body.get("reasoning")):
        if isinstance(place, dict):
            for name in ("budget_tokens", "max_tokens"):
                value: Any = place.get(name)
                if isinstance(value, int) and not isinstance(value, bool) and 0 < value < OUTPUT_MAX:
                    return value
    return 0


def _unbounded(body: JSON) -> str | None:
    for name in _UNBOUNDED:
        value = body.get(name)
        if value is not None and value is not False and value != []:  # an empty object turns the feature on
            return name
    tools = body.get("tools")
    if isinstance(tools, list):
        for index, tool in enumerate(tools):
            if isinstance(tool, dict) and tool.get("type") not in _BOUNDED_TOOLS:
                return f"tools[{index}]"
    return None


def unbounded_cost(field: str) -> ClientError:
    """400: on a hard cost budget, what cannot be bounded cannot be admitted."""
    return ClientError(
        400,
        f"'{field}' can cost more than any output limit bounds, and this call draws on a hard cost budget. Leave it out.",
        code="unbounded_cost",
        param=field,
        headers={"x-should-retry": "false"},
    )
