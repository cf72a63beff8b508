"""From what a provider said of an answer to counts that may be recorded: reported numbers first, else counted, never negative.

An explicit zero is a value: prompt 12 and completion 0 stay 12 and 0. A total without its parts is split by the counted
prompt. Nothing reported: the content is counted, by the model's own tokenizer where there is one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from accounting.callbacks.handler import JSON
from accounting.tokens.counter import count_chat
from accounting.tokens.families import encoding_for
from accounting.tokens.text import count_text
from accounting.usage import TOKENS_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """`total` is prompt and completion together; `corrected` says that what was reported could not be true."""

    prompt: int = 0
    completion: int = 0
    corrected: bool = False

    @property
    def total(self) -> int:
        """Prompt and completion together."""
        return self.prompt + self.completion


def counts_of(response: JSON, count_prompt: Callable[[], int], count_content: Callable[[], int]) -> Counts:
    """Return prompt and completion of an answer; the two functions are asked only for what is not reported."""
    prompt, wrong_prompt = _number(response.get("prompt_tokens"))
    completion, wrong_completion = _number(response.get("completion_tokens"))
    total, wrong_total = _number(response.get("tokens_used"))
    corrected = wrong_prompt or wrong_completion or wrong_total
    if prompt is not None and completion is not None:
        if total is not None and total > prompt + completion:
            return Counts(prompt=prompt, completion=total - prompt, corrected=True)
        return Counts(
            prompt=prompt, completion=completion, corrected=corrected or total not in (None, prompt + completion)
        )
    if total is not None:
        return _split(total, prompt, completion, count_prompt, corrected=corrected)
    if prompt is None:
        prompt = count_prompt()
    if completion is None:
        completion = count_content()
    return Counts(prompt=prompt, completion=completion, corrected=corrected)


def count_messages(messages: list[JSON], model: str, ratio: float) -> int:
    """Count a prompt; list content counts by its parts. Where the tokenizer fails, `ratio` characters make a token."""
    try:
        return count_chat({"messages": messages}, model)
    except Exception:  # noqa: BLE001 - a count must not fail for a tokenizer that cannot be loaded
        return sum(estimate(content_text(message.get("content")), ratio) for message in messages)


def count_answer(content: Any, model: str, ratio: float) -> int:
    """Count an answer's text; without a tokenizer, `ratio` characters make a token."""
    text = content_text(content)
    try:
        return count_text(text, encoding_for(model)[0])
    except Exception:  # noqa: BLE001 - as above
        return estimate(text, ratio)


def estimate(text: str, ratio: float) -> int:
    """Return characters by `ratio`, rounded up: at least one token for any text."""
    return math.ceil(len(text) / ratio) if text else 0


def content_text(content: Any) -> str:
    """Return the text of a message's content: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") if isinstance(part, dict) else part for part in content)
        return "".join(part for part in parts if isinstance(part, str))
    return ""


def _split(
    total: int, prompt: int | None, completion: int | None, count_prompt: Callable[[], int], *, corrected: bool
) -> Counts:
    if completion is not None:
        known = min(completion, total)
        return Counts(prompt=total - known, completion=known, corrected=corrected or completion > total)
    known = prompt if prompt is not None else count_prompt()
    return Counts(
        prompt=min(known, total), completion=max(0, total - known), corrected=corrected or (prompt or 0) > total
    )


def _number(value: Any) -> tuple[int | None, bool]:
    """Return a count, None where none was given; and whether what was given is none (negative, absurd, no number)."""
    if value is None:
        return None, False
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= TOKENS_MAX:
        return None, True
    return int(value), False
