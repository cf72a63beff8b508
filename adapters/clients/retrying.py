"""How often and after how long a client sends a call again. Nothing here sends; whether it may is in `adapters.retrying`."""

import random
from dataclasses import dataclass

from adapters.errors import AdapterError, UpstreamError
from adapters.retrying import is_hopeless, retry_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """`attempts` per model, the first included. Waits double from `base_s` up to `max_s`, with full jitter.

    A provider's own `retry-after` is honoured up to `patience_s`; one that asks for more is not asked again.
    """

    attempts: int = 3
    base_s: float = 0.25
    max_s: float = 8.0
    patience_s: float = 30.0

    def wait_s(self, error: AdapterError | None, attempt: int) -> float:
        """Return how long to wait before that attempt (1 is the second)."""
        told_s = retry_after_s(error)
        if told_s is not None:
            return min(told_s, self.patience_s)
        return random.uniform(0, min(self.max_s, self.base_s * 2**attempt))  # noqa: S311 - jitter, not a secret

    def hopeless(self, error: UpstreamError) -> bool:
        """Tell whether the same model would refuse again, or wants us to wait too long."""
        return is_hopeless(error, self.patience_s)
