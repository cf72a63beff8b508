"""Tells of slow calls: one log line for each above a threshold, with its model and time, never its text."""

import logging
from typing import Any

from accounting import environment
from accounting.callbacks.handler import JSON, CustomAsyncCallbackHandler

_log = logging.getLogger("bursar.performance")


class PerformanceCallbackHandler(CustomAsyncCallbackHandler):
    """`threshold_ms` is, if not given, PERFORMANCE_LOG_THRESHOLD, else 1000. Keeps count, sum and longest in `stats`."""

    def __init__(self, threshold_ms: float | None = None) -> None:
        self.threshold_ms = threshold_ms or environment.number(
            environment.variables(), "PERFORMANCE_LOG_THRESHOLD", environment.PERFORMANCE_LOG_THRESHOLD_MS
        )
        self.stats = {"calls": 0, "slow": 0, "errors": 0, "total_ms": 0.0, "longest_ms": 0.0}

    async def on_llm_start(self, messages: list[JSON], **kwargs: Any) -> None:
        """Do nothing: the time comes with the answer."""

    async def on_llm_end(self, response: JSON, **kwargs: Any) -> float:
        """Return the call's time in milliseconds."""
        taken_ms = float(response.get("response_time") or 0.0) * 1000
        stats = self.stats
        stats["calls"] += 1
        stats["total_ms"] += taken_ms
        stats["longest_ms"] = max(stats["longest_ms"], taken_ms)
        if taken_ms > self.threshold_ms:
            stats["slow"] += 1
            _log.warning(
                "slow call: %d ms, above %d ms (%s/%s, request %s)", taken_ms, self.threshold_ms,
                response.get("provider"), response.get("model"), kwargs.get("request_id"),
            )  # fmt: skip
        return taken_ms

    async def on_llm_error(self, error: Exception, **kwargs: Any) -> None:
        self.stats["errors"] += 1
