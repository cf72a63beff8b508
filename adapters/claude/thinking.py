"""Whether and how a Claude model shall think in one call: effort, budget and what forbids them.

Thinking yields to a forced tool choice and to a tool loop whose signed thoughts are lost, since Claude refuses both
pairs; a budget yields to the output limit. What yielded is told.
Source: https://platform.claude.com/docs/en/build-with-claude/extended-thinking
"""

from dataclasses import dataclass
from typing import Any

from adapters.base import JSON
from adapters.claude.models import Traits
from adapters.errors import InvalidRequestError

BUDGET_TOKENS_MIN = 1024
_BUDGET_TOKENS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 32768, "max": 32768}
_ORDER = ("minimal", "low", "medium", "high", "xhigh", "max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The `thinking` field (None: leave it out), the effort, whether thoughts may come, and which fields yielded."""

    thinking: JSON | None = None
    effort: str | None = None
    on: bool = False
    dropped: tuple[str, ...] = ()


def plan(body: JSON, traits: Traits, *, max_tokens: int, forced: bool, loop_lost: bool) -> Plan:
    """Decide. `forced`: the choice of tool is; `loop_lost`: an open tool loop lacks its thoughts.

    Raises InvalidRequestError for an effort that OpenAI does not have.
    """
    native, effort = body.get("thinking"), _effort(body.get("reasoning_effort"))
    if isinstance(native, dict):
        return _native(native, traits, max_tokens=max_tokens, barred=forced or loop_lost)
    if effort is None and not forced:
        return Plan(on=traits.thinking in ("default", "between", "always"))
    if effort is None or effort == "none" or forced:
        told = ("reasoning_effort",) if effort not in (None, "none") else ()
        return _least(traits, effort, told)
    if traits.thinking == "none":
        return Plan(dropped=("reasoning_effort",))
    if traits.thinking == "budget":
        return _budget(_BUDGET_TOKENS[effort], "reasoning_effort", max_tokens=max_tokens, barred=loop_lost)
    if loop_lost and traits.thinking in ("adaptive", "default"):
        return _least(traits, _nearest(effort, traits), ("reasoning_effort",))
    return Plan(thinking={"type": "adaptive", "display": "summarized"}, effort=_nearest(effort, traits), on=True)


def _effort(value: Any) -> str | None:
    if value is None or value == "none":
        return value  # type: ignore[no-any-return]  # one of the two just named
    if value not in _ORDER:
        raise InvalidRequestError(
            "'reasoning_effort' must be one of none, minimal, low, medium, high, xhigh and max.",
            param="reasoning_effort",
        )
    return str(value)


def _least(traits: Traits, effort: str | None, told: tuple[str, ...]) -> Plan:
    """Return as little thinking as the model can do; a model that cannot stop is at least asked for low effort."""
    kept = None if effort == "none" else effort
    if traits.thinking == "always":
        dropped = told or (("reasoning_effort",) if effort == "none" else ())
        return Plan(effort="low" if effort == "none" else _nearest(kept, traits), on=True, dropped=dropped)
    if traits.thinking == "none":
        return Plan(dropped=told)
    if traits.thinking == "between":
        return Plan(thinking={"type": "between_tools"}, effort=_nearest(kept, traits), on=True, dropped=told)
    if kept in ("xhigh", "max"):
        kept = "high"  # thinking cannot be turned off above it
    if effort is None and traits.thinking != "default":
        return Plan()
    return Plan(thinking={"type": "disabled"}, effort=_nearest(kept, traits), dropped=told)


def _budget(wanted: int, field: str, *, max_tokens: int, barred: bool) -> Plan:
    """Return a budget that leaves a fifth of the output for the answer; none if there is no room for the least."""
    budget = min(wanted, max(BUDGET_TOKENS_MIN, max_tokens * 4 // 5))
    if barred or budget >= max_tokens or budget < BUDGET_TOKENS_MIN:
        return Plan(thinking={"type": "disabled"}, dropped=(field,))
    return Plan(thinking={"type": "enabled", "budget_tokens": budget}, on=True)


def _native(native: JSON, traits: Traits, *, max_tokens: int, barred: bool) -> Plan:
    kind = native.get("type")
    if kind == "disabled":
        return Plan(thinking=native)
    if barred and traits.thinking in ("none", "budget", "adaptive", "default"):
        off: JSON | None = None if traits.thinking == "none" else {"type": "disabled"}
        return Plan(thinking=off, dropped=("thinking",))
    budget = native.get("budget_tokens")
    if kind == "enabled" and isinstance(budget, int) and budget >= max_tokens:
        less = _budget(budget, "thinking", max_tokens=max_tokens, barred=False)
        return less if not less.on else Plan(thinking={**native, **(less.thinking or {})}, on=True)
    return Plan(thinking=native, on=True)


def _nearest(effort: str | None, traits: Traits) -> str | None:
    """Return the highest effort of the model that is not above the one asked for, at least its lowest."""
    if effort is None or not traits.efforts:
        return None
    rank = _ORDER.index(effort)
    return next((known for known in reversed(traits.efforts) if _ORDER.index(known) <= rank), traits.efforts[0])
