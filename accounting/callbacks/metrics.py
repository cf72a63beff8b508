"""Prometheus metrics of callbacks and of the tokens that they hear of.

Names begin with `bursar_`; with `aliases=True` the bare names are there too, for dashboards that were made for those:
`token_usage_total`, `callback_executions_total`, `callback_duration_seconds`, `callback_errors_total`, `active_callbacks`.
Labels are handlers' names, statuses and kinds of errors: they come from code and configuration, never from the wire.
"""

import threading
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from accounting.callbacks.handler import JSON, CustomAsyncCallbackHandler

_SECONDS = (0.0001, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 30)
_ERROR_TYPES_MAX = 64  # a handler may make classes as it goes; the rest is `other`


class CallbackMetrics:
    """Give `ran` to a runner as its `on_run`, and `watch` its count of active runs. Safe from any thread."""

    def __init__(self, registry: CollectorRegistry, *, aliases: bool = False) -> None:
        self._sets = [_Set(registry, prefix) for prefix in ("bursar_", "")[: 1 + aliases]]
        self._error_types: set[str] = set()
        self._guard = threading.Lock()

    def ran(self, name: str, status: str, seconds: float, failure: str | None) -> None:
        """Count one run of a callback."""
        kind = self._known(failure) if failure else None
        for each in self._sets:
            each.executions.labels(name, status).inc()
            if status != "dropped":
                each.duration.labels(name).observe(seconds)
            if kind:
                each.errors.labels(name, kind).inc()

    def expect(self, name: str) -> None:
        """Show a callback before its first run, with zeros: a rate needs something to begin at."""
        for each in self._sets:
            for status in ("ok", "error", "timeout", "dropped"):
                each.executions.labels(name, status)
            each.duration.labels(name)
            each.errors.labels(name, "other")

    def watch(self, active: Callable[[], float]) -> None:
        """Read the number of active runs whenever somebody looks."""
        for each in self._sets:
            each.active.set_function(active)

    def tokens(self, prompt: int, completion: int, total: int) -> None:
        """Count tokens, by type: prompt, completion, total."""
        for each in self._sets:
            for kind, count in (("prompt", prompt), ("completion", completion), ("total", total)):
                each.usage.labels(kind).inc(count)

    def _known(self, failure: str) -> str:
        with self._guard:
            if failure not in self._error_types and len(self._error_types) < _ERROR_TYPES_MAX:
                self._error_types.add(failure)
            return failure if failure in self._error_types else "other"


class MetricsCallbackHandler(CustomAsyncCallbackHandler):
    """Counts the tokens of each answer."""

    def __init__(self, metrics: CallbackMetrics) -> None:
        self._metrics = metrics

    async def on_llm_start(self, messages: list[JSON], **kwargs: Any) -> None:
        """Do nothing: what counts comes with the answer."""

    async def on_llm_end(self, response: JSON, **kwargs: Any) -> None:
        prompt, completion = _count(response, "prompt_tokens"), _count(response, "completion_tokens")
        self._metrics.tokens(prompt, completion, max(prompt + completion, _count(response, "tokens_used")))

    async def on_llm_error(self, error: Exception, **kwargs: Any) -> None:
        if kwargs.get("tokens_used"):
            await self.on_llm_end(kwargs)


class _Set:
    def __init__(self, registry: CollectorRegistry, prefix: str) -> None:
        name = ("callback_type",)
        self.executions = Counter(
            f"{prefix}callback_executions", "Runs of callbacks.", (*name, "status"), registry=registry
        )
        self.errors = Counter(
            f"{prefix}callback_errors", "Callbacks that failed.", (*name, "error_type"), registry=registry
        )
        self.duration = Histogram(
            f"{prefix}callback_duration_seconds", "Time of callbacks.", name, buckets=_SECONDS, registry=registry
        )
        self.active = Gauge(f"{prefix}active_callbacks", "Callbacks that run now.", registry=registry)
        self.usage = Counter(f"{prefix}token_usage", "Tokens that callbacks heard of.", ("type",), registry=registry)


def _count(response: JSON, name: str) -> int:
    value = response.get(name)
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else 0
