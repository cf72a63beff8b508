"""Decides the whole answer to one request before a byte of it is sent: its tokens, its ends, its usage. Pure.

The same request bytes get the same text. What is sent and when is the playback's; how it is written is the formats'.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeGuard

import orjson

from adapters.base import JSON
from proxy.fake import words
from proxy.fake.script import Script, split

Count = Callable[[str], int]
_N_MAX = 128


def count_by_bytes(text: str) -> int:
    """Count a quarter of the UTF-8 bytes, rounded up: the rule where no tokenizer is given."""
    return -(-len(text.encode()) // 4)


class BadRequestError(Exception):
    """The request breaks OpenAI's rules; `param` names the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One answer: its pieces (of text, or of a tool's arguments) and why it ends."""

    pieces: tuple[str, ...]
    finish: str  # stop, length, tool_calls
    tool: str | None = None  # the name of the tool that is called
    reasoning: int = 0  # tokens before the first piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The whole answer to a request for text."""

    operation: str  # chat, completions, responses
    id: str  # what follows the prefix of the operation's ids
    model: str
    created: int
    stream: bool
    include_usage: bool
    prompt_tokens: int
    cached: int
    choices: tuple[Choice, ...]

    @property
    def completion_tokens(self) -> int:
        """All choices together."""
        return sum(c.reasoning + len(c.pieces) for c in self.choices)

    def steps(self) -> Iterator[tuple[int, str | None]]:
        """Yield choice and piece of every token in the order of generation; a token that is not shown has no piece."""
        longest = max((c.reasoning + len(c.pieces) for c in self.choices), default=0)
        for at in range(longest):
            for index, choice in enumerate(self.choices):
                if at < choice.reasoning:
                    yield index, None
                elif at - choice.reasoning < len(choice.pieces):
                    yield index, choice.pieces[at - choice.reasoning]

    def usage(self, generated: int) -> JSON:
        """Return OpenAI's usage object for so many generated tokens."""
        reasoning = min(generated, sum(c.reasoning for c in self.choices))
        written = {"cache_write_tokens": 0} if self.operation == "responses" else {}
        first, done = ("input", "output") if self.operation == "responses" else ("prompt", "completion")
        return {
            f"{first}_tokens": self.prompt_tokens,
            f"{done}_tokens": generated,
            "total_tokens": self.prompt_tokens + generated,
            f"{first}_tokens_details": {"cached_tokens": self.cached, **written},
            f"{done}_tokens_details": {"reasoning_tokens": reasoning},
        }


def generator(raw: bytes) -> random.Random:
    """Return the source of everything that looks random in the answer to these request bytes."""
    return random.Random(hashlib.blake2b(raw, digest_size=16).digest())  # noqa: S311 - a seed, not a secret


def plan(operation: str, raw: bytes, body: JSON, script: Script, *, number: int, created: int, count: Count) -> Plan:
    """Plan the answer; the ids of two calls differ by `number`, whatever else is alike. Raises BadRequestError."""
    rng = generator(raw)
    prompts = _prompts(operation, body, count)
    choices = tuple(_choice(rng, operation, body, script) for _ in range(len(prompts) * _n(body)))
    options = body.get("stream_options")
    prompt_tokens = sum(prompts)
    return Plan(
        operation=operation,
        id=f"{rng.randbytes(8).hex()}{number:08x}",
        model=split(str(body.get("model")))[0],
        created=created,
        stream=body.get("stream") is True,
        include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        prompt_tokens=prompt_tokens,
        cached=min(script.cached, prompt_tokens),
        choices=choices,
    )


def count_input(value: object, count: Count) -> int:
    """Count one input: text, or tokens given as integers. Raises BadRequestError."""
    if isinstance(value, str):
        return count(value)
    if isinstance(value, list) and all(isinstance(v, int) for v in value):
        return len(value)
    raise BadRequestError("Expected a string or a list of token numbers.", "input")


def inputs(value: object) -> list[object]:
    """Return the inputs in OpenAI's four forms of them: text, texts, tokens, lists of tokens. Raises BadRequestError."""
    if isinstance(value, list) and value and not all(isinstance(v, int) for v in value):
        return value
    if value in ("", [], None):
        raise BadRequestError("The input must not be empty.", "input")
    return [value]


def _prompts(operation: str, body: JSON, count: Count) -> list[int]:
    if operation == "completions":
        return [count_input(p, count) for p in inputs(body.get("prompt", "<|endoftext|>"))]
    messages = body.get("messages") if operation == "chat" else body.get("input")
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) for m in messages):
        param = "messages" if operation == "chat" else "input"
        raise BadRequestError(f"'{param}' must be a list with at least one message.", param)
    # OpenAI's published rule: https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken
    total = 3 + sum(4 + count(_text(m)) for m in messages)
    for key in ("tools", "instructions"):
        if body.get(key):
            total += count(orjson.dumps(body[key]).decode())
    return [total]


def _text(message: JSON) -> str:
    content = message.get("content")
    parts = [content] if isinstance(content, str) else []
    if isinstance(content, list):
        parts = [p["text"] for p in content if isinstance(p, dict) and isinstance(p.get("text"), str)]
    if message.get("tool_calls"):
        parts.append(orjson.dumps(message["tool_calls"]).decode())
    return "".join(parts)


def _n(body: JSON) -> int:
    n = body.get("n")
    if n is None:
        return 1
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= _N_MAX:
        raise BadRequestError(f"'n' must be an integer from 1 to {_N_MAX}.", "n")
    return n


def _limit(body: JSON, script: Script) -> int | None:
    for key in ("max_completion_tokens", "max_output_tokens", "max_tokens"):
        limit = body.get(key)
        if limit is None:
            continue
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise BadRequestError(f"'{key}' must be an integer of at least 1.", key)
        return None if script.ignore_limit < 0 else limit + script.ignore_limit
    return None


def _choice(rng: random.Random, operation: str, body: JSON, script: Script) -> Choice:
    limit = _limit(body, script)
    tool = _tool(body, script) if operation == "chat" else None
    length = words.natural_length(rng) if script.length is None else script.length
    if tool is not None:
        pieces, finish = words.arguments(rng, tool.get("parameters")), "tool_calls"
    else:
        pieces, finish = _stopped(words.pieces(rng, length), body.get("stop")), "stop"
    reasoning = script.reasoning if limit is None else min(script.reasoning, limit)
    if limit is not None and reasoning + len(pieces) > limit:
        pieces, finish = pieces[: limit - reasoning], "length"
    return Choice(
        pieces=pieces, finish=finish, tool=None if tool is None else str(tool.get("name")), reasoning=reasoning
    )


def _stopped(pieces: tuple[str, ...], stop: object) -> tuple[str, ...]:
    stops = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    wanted = [s for s in stops if isinstance(s, str) and s]
    text = ""
    for at, piece in enumerate(pieces if wanted else ()):
        text += piece
        if any(s in text for s in wanted):
            return pieces[:at]
    return pieces


def _tool(body: JSON, script: Script) -> JSON | None:
    tools = body.get("tools")
    functions: list[JSON] = [t["function"] for t in tools if _is_function(t)] if isinstance(tools, list) else []
    if not functions:
        return None
    choice, last = body.get("tool_choice"), body["messages"][-1]
    said = _text(last).split() if last.get("role") == "user" else []
    if choice == "none":
        return None
    named = choice["function"].get("name") if _is_function(choice) else None
    if named is None and said[:1] == ["call"]:
        named = said[1] if len(said) > 1 else ""
    if named is None and choice != "required" and not script.tool:
        return None
    return next((f for f in functions if f.get("name") == named), functions[0])


def _is_function(value: object) -> TypeGuard[JSON]:
    return isinstance(value, dict) and isinstance(value.get("function"), dict)
