"""OpenAI's `reasoning_effort` as Google's thinkingConfig: a level for newer models, a budget of tokens for older ones.

Some models cannot be told not to think: they get the least they take. The two forms together are refused upstream.
Source: https://ai.google.dev/gemini-api/docs/thinking and https://ai.google.dev/gemini-api/docs/openai#thinking
"""

from adapters.base import JSON
from adapters.errors import InvalidRequestError
from adapters.google.models import Model

BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 32_768, "max": 32_768}
_ORDER = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


def thinking_of(effort: object, model: Model) -> JSON | None:
    """Return the thinkingConfig for an effort, None for a model that does not think. Raises InvalidRequestError."""
    if not isinstance(effort, str) or effort not in BUDGETS:
        raise InvalidRequestError(f"'reasoning_effort' must be one of {', '.join(_ORDER)}.", param="reasoning_effort")
    if model.thinking == "none":
        return None
    if model.thinking == "level":
        return {"thinkingLevel": _level(effort, model.levels), "includeThoughts": effort != "none"}
    budget = min(BUDGETS[effort], model.budget_max)
    if budget == 0 and model.budget_zero:
        return {"thinkingBudget": 0}
    return {"thinkingBudget": max(budget, model.budget_min), "includeThoughts": effort != "none"}


def _level(effort: str, levels: tuple[str, ...]) -> str:
    """Return the highest level that is not above the effort, else the lowest there is."""
    below = [level for level in levels if _ORDER.index(level) <= _ORDER.index(effort)]
    return (below or levels[:1])[-1].upper()
