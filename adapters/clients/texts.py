"""Reads what a client's caller wants of OpenAI's JSON: the text of a completion or a chunk, and why it ended. Bears anything."""

import re
from typing import Any

from adapters.base import JSON

# OpenAI's reasoning models take no temperature but their own. Source: https://platform.openai.com/docs/guides/reasoning
_REASONING = re.compile(r"(?:.*/)?(?:o[1-9](?![0-9a-z])|gpt-5(?!.*chat))", re.IGNORECASE)


def content_of(completion: JSON) -> str:
    """Return the text of the first choice; a refusal is text too."""
    choice = _first_choice(completion)
    said = choice.get("delta") if isinstance(choice.get("delta"), dict) else choice.get("message")
    if not isinstance(said, dict):
        return ""
    return _text(said.get("content")) or _text(said.get("refusal"))


def finish_of(completion: JSON) -> str | None:
    """Return the finish reason of the first choice."""
    reason = _first_choice(completion).get("finish_reason")
    return reason if isinstance(reason, str) else None


def refuses_sampling(model: str) -> bool:
    """Tell whether a temperature that nobody asked for must not be sent to this model."""
    return _REASONING.match(model) is not None


def _first_choice(completion: JSON) -> JSON:
    choices = completion.get("choices")
    rows = [row for row in choices if isinstance(row, dict)] if isinstance(choices, list) else []
    return next((row for row in rows if not row.get("index")), {})


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(p["text"] for p in content if isinstance(p, dict) and isinstance(p.get("text"), str))
    return ""
