"""Holds a stream slice by slice (`hold: slice`): which calls may be held so, and how a stream comes by its next slice.

Not for what cannot be counted as it passes: thought that the provider bills and does not show. Nor where a cancelled stream is
billed to its end. Nor beside a budget of another policy or a limit of tokens per minute, which must know of all at once. Such
calls are clamped. So is one whose first slice does not fit: nothing is left that it could grow by.
"""

import re
from collections.abc import Sequence

from accounting.ask import Ask, Draw, Rate
from accounting.charge import Charge
from accounting.hold import Hold
from accounting.store.errors import StoreError
from adapters.vendors import bills_after_cancel
from proxy.asked import Asked
from proxy.grant import Grant
from proxy.upstreams import Target

SLICE_TOKENS = 1024  # of each choice
MARGIN_TOKENS = 256  # what a provider may write in the time of two round trips, and what is on its way
# Models that think before they answer, and show little or nothing of it.
_HIDES_THOUGHT = re.compile(
    r"(^|[/.-])(o\d|gpt-[5-9]|grok-[3-9]|gemini-(2\.5|[3-9])|qwq)|reason|think|research|magistral|-pro\b"
)


def may_slice(asked: Asked, targets: Sequence[Target], draws: Sequence[Draw], rates: Sequence[Rate]) -> bool:
    """Tell whether a call may be held slice by slice: all budgets that bind its output want it, and nothing forbids it."""
    binding = [draw.budget for draw in draws if draw.per_output and draw.budget.binds]
    if not asked.stream or not binding or any(budget.hold != "slice" for budget in binding):
        return False
    if any(rate.per_output for rate in rates):
        return False
    thinks = asked.thinking > 0 or asked.body.get("reasoning_effort") or asked.body.get("reasoning")
    if thinks or any(_HIDES_THOUGHT.search(target.model.lower()) for target in targets):
        return False
    return not any(bills_after_cancel(t.upstream.endpoint.kind, t.upstream.endpoint.preset) for t in targets)


def sent_upstream(hold: Hold, ask: Ask, wanted: int) -> int:
    """Return the output tokens per choice that may be asked for: `wanted` where the hold can grow to that, else what it holds."""
    grows = wanted > ask.wanted and not hold.escrow and hold.granted >= ask.wanted
    return wanted if grows else hold.granted


class Slices:
    """One stream's. `whole` output tokens per choice is as far as it may grow."""

    def __init__(self, charge: Charge, ask: Ask, whole: int, choices: int, model: str) -> None:
        self._charge, self._ask, self._whole, self._choices, self._model = charge, ask, whole, choices, model
        self._granted = min(charge.hold.granted, whole)

    def grant(self) -> Grant:
        """Return up to where the stream may go before the next slice is needed."""
        if self._granted >= self._whole:
            return Grant.of(self._whole, self._choices, self._model, clamps=True)
        return Grant(tokens=self._granted * self._choices, slack=-MARGIN_TOKENS * self._choices)

    async def more(self) -> Grant | None:
        """Return the grant with another slice; None if the budget has no room for as much as the margin."""
        if self._granted >= self._whole:
            return None
        hold, wanted = self._charge.hold, min(self._granted + SLICE_TOKENS, self._whole)
        try:
            least = min(self._granted + MARGIN_TOKENS, wanted)
            if not await self._charge.till.ledger.grow(hold, self._ask, wanted, least):
                return None
            self._granted = min(hold.granted, self._whole)
        except StoreError:
            if not all(draw.budget.outage == "allow" for draw in self._ask.draws if draw.budget.binds):
                return None
            self._granted = wanted
        return self.grant()
