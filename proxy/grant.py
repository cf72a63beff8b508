"""How much a stream may give, and the way to more.

What a stranger would get wrong: our count of an honest provider's tokens may lie above its own, so a grant has some slack.
"""

from collections.abc import Awaitable, Callable

import msgspec

from accounting.tokens.families import encoding_for


class Grant(msgspec.Struct, frozen=True):
    """What the stream may give in all, over its choices; `tokens` is None where no budget depends on it."""

    tokens: int | None
    slack: int = 0  # how far our count of an honest provider's tokens may lie above its own

    @classmethod
    def of(cls, granted: int, choices: int, model: str, *, clamps: bool) -> "Grant":
        """Return the grant; the slack is small where the tokenizer is the model's own."""
        if not clamps:
            return cls(tokens=None)
        tokens = granted * choices
        _, exact = encoding_for(model)
        return cls(tokens=tokens, slack=16 + tokens // 50 if exact else 64 + tokens * 2 // 5)


More = Callable[[], Awaitable[Grant | None]]  # None: no more can be had
