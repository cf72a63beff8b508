"""Handlers that add a call's tokens to a user's total on Redis. Several processes at once lose nothing.

A cancelled stream and a call that failed half-way are counted too: their tokens come with the event. What the tokenizer has
to count is counted here, in the handler's own thread, never on the call's way.
"""

import logging
from collections import OrderedDict
from typing import Any

from accounting import environment
from accounting.callbacks.counting import Counts, count_answer, count_messages, counts_of
from accounting.callbacks.handler import JSON, CustomAsyncCallbackHandler
from accounting.repository import TokenUsageRepository, cycle_of

_PROMPTS_MAX = 10_000  # calls whose prompts are remembered for a count; older ones are let go
_log = logging.getLogger("bursar.callbacks")


class RedisTokenCallbackHandler(CustomAsyncCallbackHandler):
    """Adds `tokens_used` to the user's total for the cycle. Raises ValueError for an empty user and a date that is none.

    Without `cycle_start_date` each call counts in the month (UTC) that it ends in. `repository` is, if not given, the one
    that REDIS_URL, or REDIS_HOST and so on, name; all handlers without one share it.
    """

    def __init__(
        self,
        user_id: str,
        cycle_start_date: str | None = None,
        *,
        repository: TokenUsageRepository | None = None,
        token_estimation_ratio: float | None = None,
    ) -> None:
        if not user_id or not user_id.strip():
            raise ValueError("user_id must not be empty")
        if cycle_start_date is not None:
            cycle_of(cycle_start_date)
        self.user_id, self.cycle_start_date = user_id, cycle_start_date
        self.repository = repository or environment.default_repository()
        ratio = environment.number(
            environment.variables(), "TOKEN_ESTIMATION_RATIO", environment.TOKEN_ESTIMATION_RATIO
        )
        self._ratio = token_estimation_ratio or ratio
        self._prompts: OrderedDict[str, list[JSON]] = OrderedDict()

    async def on_llm_start(self, messages: list[JSON], **kwargs: Any) -> None:
        call = str(kwargs.get("request_id") or "")
        if call:
            self._prompts[call] = messages
            if len(self._prompts) > _PROMPTS_MAX:
                self._prompts.popitem(last=False)

    async def on_llm_end(self, response: JSON, **kwargs: Any) -> Counts:
        """Record the answer; return what was recorded."""
        messages = self._prompts.pop(str(kwargs.get("request_id") or ""), [])
        model = str(response.get("model") or kwargs.get("model") or "")
        counts = counts_of(
            response,
            lambda: count_messages(messages, model, self._ratio) if messages else 0,
            lambda: count_answer(response.get("content"), model, self._ratio),
        )
        if counts.corrected:
            _log.warning(
                "the usage reported for a call of %s could not be true; corrected before it was recorded", model
            )
        if counts.total:
            await self._record(counts)
        return counts

    async def on_llm_error(self, error: Exception, **kwargs: Any) -> Counts:
        """Record what the failed call was billed for, if it says so; return that."""
        self._prompts.pop(str(kwargs.get("request_id") or ""), None)
        if not kwargs.get("tokens_used"):
            return Counts()
        return await self.on_llm_end({name: kwargs.get(name) for name in _REPORTED}, model=kwargs.get("model"))

    async def health_check(self) -> JSON:
        return await self.repository.health_check()

    async def _record(self, counts: Counts) -> None:
        await self.repository.increment_total_usage(self.user_id, counts.total, self.cycle_start_date)


class DetailedRedisTokenCallbackHandler(RedisTokenCallbackHandler):
    """Keeps prompt and completion apart: as reported, else the total split by the counted prompt, else counted."""

    async def _record(self, counts: Counts) -> None:
        await self.repository.increment_detailed_usage(
            self.user_id, counts.prompt, counts.completion, self.cycle_start_date
        )


_REPORTED = ("tokens_used", "prompt_tokens", "completion_tokens")
