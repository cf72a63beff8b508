"""A call that may be reserved, and the exact count of its input where a bound is too near to a limit."""

import asyncio
from collections.abc import Sequence

import msgspec

from accounting.tokens.counter import count_input, needs_thread
from accounting.tokens.families import encoding_for
from accounting.tokens.ranks import loaded
from proxy.admission import Terms
from proxy.asked import Asked
from proxy.principal import Principal
from proxy.upstreams import Target


class Admitted(msgspec.Struct, frozen=True):
    """A call that may be reserved: everything that admission found out about it."""

    request_id: str
    asked: Asked
    principal: Principal
    targets: Sequence[Target]
    terms: Terms
    cache_key: str | None
    began_s: float = 0.0  # when its body was there, on the loop's clock

    def notes(self) -> dict[str, object]:
        """Return what the journal needs to charge the call after a crash; no prompt."""
        caller, (provider, model) = self.principal.caller, self.targets[0].names
        worst = self.terms.worst
        return {
            "key": caller.key, "user": caller.user, "team": caller.team, "provider": provider, "model": model,
            "asked": self.asked.model, "input": self.terms.input_tokens, "choices": self.asked.choices,
            "output_nanousd": worst.output_nanousd, "input_nanousd": worst.input_nanousd,
        }  # fmt: skip


async def counted(asked: Asked, model: str) -> int:
    """Count exactly; in a thread where that would hold up the loop."""
    if needs_thread(len(asked.raw)) or not loaded(encoding_for(model)[0]):
        return await asyncio.to_thread(count_input, asked.operation, asked.body, model)
    return count_input(asked.operation, asked.body, model)
