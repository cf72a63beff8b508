"""What is told of calls afterwards: metrics, and one log line per call at its end. Never a key, a prompt or an answer.

Label values come from the configuration, never from the wire: a name that the configuration does not hold is `other`.
"""

import logging
from collections.abc import Iterable
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from accounting.charge import Receipt
from adapters.errors import AdapterError, UpstreamTimeoutError
from proxy.amounts import NANO, usd_text
from proxy.errors import ClientError
from proxy.upstreams import Target

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_OVERHEAD = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25)
_log = logging.getLogger("bursar.calls")
_M = TypeVar("_M", bound=MetricWrapperBase)


class Telemetry:
    """One registry. `models` are the upstream models that the configuration names."""

    def __init__(self, models: Iterable[str]) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=False)
        self.models = frozenset(models)
        self._children: dict[tuple[object, ...], Any] = {}  # as many as there are series
        route = ("provider", "model")
        self.requests = Counter("bursar_requests", "Calls by outcome.", (*route, "outcome"), registry=registry)
        self.duration = Histogram(
            "bursar_request_duration_seconds", "Whole call.", route, buckets=_SECONDS, registry=registry
        )
        self.first_token = Histogram(
            "bursar_time_to_first_token_seconds",
            "Until the client got its first bytes.",
            route,
            buckets=_SECONDS,
            registry=registry,
        )
        self.overhead = Histogram(
            "bursar_overhead_seconds",
            "Time that Bursar itself takes.",
            ("phase",),
            buckets=_OVERHEAD,
            registry=registry,
        )
        self.tokens = Counter("bursar_tokens", "Tokens.", (*route, "type"), registry=registry)
        self.cost = Counter("bursar_cost_usd", "Cost of calls in USD.", route, registry=registry)
        self.flight = Gauge("bursar_in_flight", "Calls in flight.", registry=registry)
        self.refusals = Counter("bursar_budget_refusals", "Calls refused, by reason.", ("reason",), registry=registry)
        self.estimated = Counter("bursar_usage_estimated", "Calls whose usage was counted by us.", registry=registry)
        self.overspend = Counter("bursar_overspend_usd", "Cost beyond holds in USD.", registry=registry)
        self.upstream_errors = Counter(
            "bursar_upstream_errors", "Failed attempts.", ("provider", "code"), registry=registry
        )
        self.upstream_retries = Counter(
            "bursar_upstream_retries", "Attempts after the first of a call.", registry=registry
        )
        self.store_latency = Histogram(
            "bursar_store_latency_seconds", "Round trips to the store.", buckets=_OVERHEAD, registry=registry
        )
        self._gen_ai(registry)

    def _gen_ai(self, registry: CollectorRegistry) -> None:
        """OpenTelemetry's names. Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/"""
        labels = ("gen_ai_provider_name", "gen_ai_request_model")
        self.gen_tokens = Histogram(
            "gen_ai_client_token_usage", "Tokens per call.", (*labels, "gen_ai_token_type"),
            buckets=[4**n for n in range(14)], registry=registry,
        )  # fmt: skip
        self.gen_duration = Histogram(
            "gen_ai_client_operation_duration_seconds", "Whole call.", labels, buckets=_SECONDS, registry=registry
        )

    def overhead_of(self, phase: str, took_s: float) -> None:
        """Tell how long Bursar itself took for one phase of a call: admission, reserve."""
        self.overhead.labels(phase).observe(took_s)

    def in_flight(self, change: int) -> None:
        """Count calls in and out."""
        self.flight.inc(change)

    def receipt(self, receipt: Receipt) -> None:
        """Tell of a settled call."""
        usage = receipt.usage
        provider, model = receipt.provider or "none", self._model(receipt.upstream_model)
        child = self._child
        child(self.requests, provider, model, receipt.outcome).inc()
        child(self.duration, provider, model).observe(receipt.duration_s)
        child(self.gen_duration, provider, model).observe(receipt.duration_s)
        if receipt.first_token_s is not None:
            child(self.first_token, provider, model).observe(receipt.first_token_s)
        for kind, count in (
            ("input", usage.input), ("output", usage.output), ("cached", usage.cached), ("reasoning", usage.reasoning)
        ):  # fmt: skip
            if count:
                child(self.tokens, provider, model, kind).inc(count)
        for kind, count in (("input", usage.input), ("output", usage.output)):
            child(self.gen_tokens, provider, model, kind).observe(count)
        if receipt.cost_nanousd:
            child(self.cost, provider, model).inc(receipt.cost_nanousd / NANO)
        if usage.estimated:
            self.estimated.inc()
        if receipt.attempts > 1:
            self.upstream_retries.inc(receipt.attempts - 1)
        self._line(receipt)

    def refused(self, error: ClientError, request_id: str) -> None:
        """Tell of a call that was answered with an error."""
        if error.code in (
            "insufficient_quota",
            "budget_held",
            "rate_limit_exceeded",
            "unbounded_cost",
            "unknown_price",
            "budget_store_unavailable",
        ):
            self.refusals.labels(error.code).inc()
        _log.info("refused", extra={"request_id": request_id, "status": error.status, "code": error.code or error.type})

    def attempt_failed(self, target: Target, error: AdapterError) -> None:
        """Tell of one failed attempt."""
        code = f"timeout_{error.phase}" if isinstance(error, UpstreamTimeoutError) else _code(error)
        self.upstream_errors.labels(target.upstream.name, code).inc()

    def overspent(self, over: dict[str, int]) -> None:
        """Tell of a call that used more than its hold."""
        self.overspend.inc(over.get("usd", 0) / NANO)
        _log.warning("a call used more than it held", extra={"over": over})

    def _child(self, metric: _M, *labels: str) -> _M:
        """Return a metric's child, looked up in one step: prometheus-client takes a lock and checks every label anew."""
        key = (id(metric), *labels)
        child: _M | None = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    def _model(self, model: str) -> str:
        return model if model in self.models else "other"

    def _line(self, receipt: Receipt) -> None:
        usage, caller = receipt.usage, receipt.caller
        _log.info(
            "call",
            extra={
                "request_id": receipt.request_id, "key": caller.key, "user": caller.user, "model": receipt.model,
                "provider": receipt.provider, "upstream_model": receipt.upstream_model, "outcome": receipt.outcome,
                "input": usage.input, "output": usage.output, "estimated": usage.estimated,
                "usd": None if receipt.cost_nanousd is None else usd_text(receipt.cost_nanousd),
                "ms": int(receipt.duration_s * 1000), "attempts": receipt.attempts,
            },
        )  # fmt: skip


def _code(error: AdapterError) -> str:
    """A bounded label: our own codes as they are, a provider's by its status."""
    return error.code if error.code and error.code.startswith("upstream_") else f"http_{error.status}"
