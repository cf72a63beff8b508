"""Who a request speaks for, once its key was accepted."""

import fnmatch
import re
from dataclasses import dataclass, replace
from functools import cached_property

from accounting.budgets import Caller


@dataclass(frozen=True, kw_only=True)
class Principal:
    """An accepted caller. `models` are patterns of the names it may send; None: all."""

    caller: Caller
    models: tuple[str, ...] | None = None
    passthrough: tuple[str, ...] = ()
    user_from: str | None = None  # "header:x-bursar-user" or "body:user": believed for this key only
    expires_ms: int | None = None

    @cached_property
    def _allowed(self) -> re.Pattern[str] | None:
        if self.models is None:
            return None
        return re.compile("|".join(fnmatch.translate(pattern) for pattern in self.models) or r"(?!)")

    def may_use(self, model: str) -> bool:
        """Tell whether this caller may send that model name."""
        return self._allowed is None or self._allowed.match(model) is not None

    def speaking_for(self, user: str) -> "Principal":
        """Return the same key, acting for one of its end users."""
        return replace(self, caller=self.caller._replace(user=user))
