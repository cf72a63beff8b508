"""Writes down how far a stream has come, so that a crash charges what was relayed and at most one interval more.

`note` is called with what is about to be written already metered. As long as the client surely has no more than the last note and
an interval, nothing is written; a token is at least one byte of text, so the count itself is rarely needed. `room` says for how
much more that holds, so that what is about to be written need not even be metered.
"""

import asyncio

from accounting.charge import Attempt, Charge
from accounting.journal.aftermath import INTERVAL_TOKENS
from accounting.journal.format import Progress
from accounting.tokens.families import encoding_for, family_of
from accounting.tokens.ranks import load, loaded
from accounting.usage import Usage

UNTAKEN_MAX = 4096  # tokens, at most, that may wait in a translator: they take memory
_BY_OUTPUT = ("usd", "tokens", "output_tokens")


class Relayed:
    """One attempt's progress. A call that draws on no budget of tokens or money is told by its chunks, and loads no ranks."""

    def __init__(self, charge: Charge, attempt: Attempt) -> None:
        self._charge, self._attempt, self._meter = charge, attempt, attempt.meter
        self._exactly = any(row.budget.unit in _BY_OUTPUT for row in charge.hold.rows)
        self._encoding, _ = encoding_for(attempt.model)
        self._margin_percent = family_of(attempt.model).margin_percent
        self._noted = 0  # tokens in the last note: the charge wrote the first, before the request was sent
        self._count = 0  # tokens when last counted
        self._bound = 0  # of what was counted then
        self.room = 0  # so many tokens, or chunks, may be relayed after those that are metered, before the next `note`

    @property
    def counts_at_once(self) -> bool:
        """Whether counting takes no waiting: the ranks are there, or are not needed."""
        return not self._exactly or loaded(self._encoding)

    async def note(self) -> None:
        """Write a note if the one before does not cover what is about to be relayed. Waits only to load ranks."""
        if not self.counts_at_once and self._is_due():
            await asyncio.to_thread(load, self._encoding)
        self.note_at_once()

    def note_at_once(self) -> bool:
        """As `note`, without waiting; it may block to load ranks unless `counts_at_once`. Return whether it counted."""
        if self._charge.receipt is not None:
            self.room = UNTAKEN_MAX
            return False
        most = self._count + self._more()
        due = most > self._noted + INTERVAL_TOKENS
        if due:
            before, self._count = self._count, self.counted_at_once()
            self._bound = self._meter.output.upper_bound
            self._write(max(before, self._count - INTERVAL_TOKENS))
            most = self._count
        self.room = max(0, self._noted + INTERVAL_TOKENS - most) * 100 // max(100, self._margin_percent)
        return due

    def again(self) -> None:
        """Write the last note once more: the call is held under another number now."""
        self._write(self._noted)

    def _more(self) -> int:
        """Return how many tokens at most came since the last count."""
        if not self._exactly:
            return self._meter.chunks - self._count
        return -((self._bound - self._meter.output.upper_bound) * self._margin_percent // 100)

    async def counted(self) -> int:
        """Return the tokens of what was metered; the chunks, where no budget depends on tokens. Waits only to load ranks."""
        if not self.counts_at_once:
            await asyncio.to_thread(load, self._encoding)
        return self.counted_at_once()

    def counted_at_once(self) -> int:
        """As `counted`, without waiting; it may block to load ranks unless `counts_at_once`."""
        return self._meter.output.tokens() if self._exactly else self._meter.chunks

    def _is_due(self) -> bool:
        """Tell whether another note is needed."""
        if self._charge.receipt is not None:
            return False
        return self._count + self._more() > self._noted + INTERVAL_TOKENS

    def _write(self, output_tokens: int) -> None:
        self._noted = output_tokens
        charge = self._charge
        tokens = charge.hold.notes.get("input", 0)
        price = self._attempt.price
        cost = price.cost_nanousd(Usage(input=tokens, output=output_tokens)) if price is not None else 0
        progress = Progress(
            seq=charge.hold.seq, input_tokens=tokens, output_tokens=output_tokens, cost_nanousd=cost
        )  # fmt: skip
        charge.till.ledger.progress(charge.hold, progress.dump())
