"""Count the input tokens of a request before it is sent, for any of OpenAI's four request forms.

For OpenAI's models text and messages are counted by the documented formula; tools and schemas, whose rendering is not
published, at or above it. Other vendors' models are counted by o200k and a margin. `upper_bound` is the cheap
alternative: it never loads ranks and no tokenizer exceeds it. Bodies may hold anything; nothing here raises on them.
All functions may run in any thread.
"""

from functools import lru_cache
from typing import Any, Literal, TypeAlias

from accounting.tokens.families import Family, encoding_for, family_of
from accounting.tokens.prompt import Prompt
from accounting.tokens.text import byte_count, count_text, needs_thread

__all__ = [
    "count_chat",
    "count_completions",
    "count_embeddings",
    "count_input",
    "count_responses",
    "count_text",
    "encoding_for",
    "needs_thread",
    "upper_bound",
]

JSON: TypeAlias = dict[str, Any]
Operation: TypeAlias = Literal["chat", "completions", "embeddings", "responses"]


def count_input(operation: Operation, body: JSON, model: str) -> int:
    """Count the input of a request of that form; `model` is the upstream model. Loads ranks if need be."""
    family = family_of(model)
    prompt = Prompt(lambda text: _raised(text, family), model, family)
    return _walk(operation, body, prompt)


def upper_bound(operation: Operation, body: JSON, model: str) -> int:
    """Bound the input at one token per byte of UTF-8, media by their formula; takes microseconds, loads no ranks."""
    return _walk(operation, body, _bounding(model))


def count_chat(body: JSON, model: str) -> int:
    """Count a chat completion's input.

    Source: https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken
    """
    return count_input("chat", body, model)


def count_completions(body: JSON, model: str) -> int:
    """Count the prompt of a (legacy) completion: a text, texts, token ids or lists of them, and the suffix."""
    return count_input("completions", body, model)


def count_embeddings(body: JSON, model: str) -> int:
    """Count the input of an embedding: a text, texts, token ids or lists of them."""
    return count_input("embeddings", body, model)


def count_responses(body: JSON, model: str) -> int:
    """Count the input of a response: instructions, input items, tools and format. Not what `previous_response_id` holds."""
    return count_input("responses", body, model)


@lru_cache(maxsize=512)
def _bounding(model: str) -> Prompt:
    return Prompt(byte_count, model, family_of(model))


def _walk(operation: Operation, body: JSON, prompt: Prompt) -> int:
    if operation == "chat":
        return prompt.chat(body)
    if operation == "responses":
        return prompt.response(body)
    if operation == "completions":
        return prompt.plain(body.get("prompt")) + prompt.plain(body.get("suffix"))
    return prompt.plain(body.get("input"))


def _raised(text: str, family: Family) -> int:
    """Count, with the family's margin, but never above a token per byte."""
    count = count_text(text, family.encoding)
    if family.margin_percent == 100:  # noqa: PLR2004
        return count
    return min(byte_count(text), -(-count * family.margin_percent // 100))
