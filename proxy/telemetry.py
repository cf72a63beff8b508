"""What is told of calls afterwards: metrics, and one log line per call at its end. Never a key, a prompt or an answer.

Label values come from the configuration, never from the wire: a name that the configuration does not hold is `other`.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Counter, Gauge

from accounting.charge import Receipt
from adapters.errors import AdapterError, UpstreamTimeoutError
from proxy.amounts import NANO, usd_text
from proxy.counting import Spread, Spreads, Sum, Sums
from proxy.errors import ClientError
from proxy.logs import tell
from proxy.upstreams import Target

UNFOLDED_MAX = 512
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_OVERHEAD = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25)
_TOKENS = tuple(4**n for n in range(14))
_log = logging.getLogger("bursar.calls")


class Telemetry:
    """One registry. `models` are the upstream models that the configuration names."""

    def __init__(self, models: Iterable[str]) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=False)
        self.models = frozenset(models)
        self._routes: dict[tuple[str, str], _Route] = {}
        self.in_flight: Callable[[], int] = int  # how many calls are, once there is a listener
        self._unfolded = 0  # calls that were noted and not counted yet
        route = ("provider", "model")
        self.requests = Sums(registry, "bursar_requests", "Calls by outcome.", (*route, "outcome"))
        self.duration = Spreads(
            registry, "bursar_request_duration_seconds", "Whole call.", route, bounds=_SECONDS
        )  # fmt: skip
        self.first_token = Spreads(
            registry, "bursar_time_to_first_token_seconds", "Until the client got its first bytes.", route, bounds=_SECONDS
        )  # fmt: skip
        self.overhead = Spreads(
            registry, "bursar_overhead_seconds", "Time that Bursar itself takes.", ("phase",), bounds=_OVERHEAD
        )  # fmt: skip
        self.admission, self.reserve = self.overhead.of(("admission",)), self.overhead.of(("reserve",))
        self.tokens = Sums(registry, "bursar_tokens", "Tokens.", (*route, "type"))
        self.cost = Sums(registry, "bursar_cost_usd", "Cost of calls in USD.", route)
        Gauge("bursar_in_flight", "Calls in flight.", registry=registry).set_function(lambda: self.in_flight())
        self.refusals = Counter("bursar_budget_refusals", "Calls refused, by reason.", ("reason",), registry=registry)
        self.estimated = Counter("bursar_usage_estimated", "Calls whose usage was counted by us.", registry=registry)
        self.overspend = Counter("bursar_overspend_usd", "Cost beyond holds in USD.", registry=registry)
        self.upstream_errors = Counter(
            "bursar_upstream_errors", "Failed attempts.", ("provider", "code"), registry=registry
        )
        self.upstream_retries = Counter(
            "bursar_upstream_retries", "Attempts after the first of a call.", registry=registry
        )
        self._store_latency = Spreads(
            registry, "bursar_store_latency_seconds", "Round trips to the store.", bounds=_OVERHEAD
        )  # fmt: skip
        self.store_latency = self._store_latency.of(())
        self._gen_ai(registry)

    def _gen_ai(self, registry: CollectorRegistry) -> None:
        """OpenTelemetry's names. Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/"""
        labels = ("gen_ai_provider_name", "gen_ai_request_model")
        self.gen_tokens = Spreads(
            registry, "gen_ai_client_token_usage", "Tokens per call.", (*labels, "gen_ai_token_type"), bounds=_TOKENS
        )  # fmt: skip
        Spreads(
            registry, "gen_ai_client_operation_duration_seconds", "Whole call.", labels, bounds=_SECONDS, of=self.duration
        )  # fmt: skip

    def fold(self) -> None:
        """Count what was noted. Needed now and then, also where nobody asks."""
        self._unfolded = 0
        for spreads in (self.duration, self.first_token, self.overhead, self._store_latency, self.gen_tokens):
            spreads.fold()

    def receipt(self, receipt: Receipt) -> None:
        """Tell of a settled call."""
        self._unfolded += 1
        if self._unfolded >= UNFOLDED_MAX:
            self.fold()
        usage, model = receipt.usage, receipt.upstream_model
        names = (receipt.provider or "none", model if model in self.models else "other")
        route = self._routes.get(names) or self._route(names)
        (route.outcomes.get(receipt.outcome) or self._outcome(route, names, receipt.outcome)).total += 1
        route.duration.note(receipt.duration_s)
        if receipt.first_token_s is not None:
            route.first_token.note(receipt.first_token_s)
        route.input_spread.note(usage.input)
        route.output_spread.note(usage.output)
        route.input.total += usage.input
        route.output.total += usage.output
        route.cached.total += usage.cached
        route.reasoning.total += usage.reasoning
        if receipt.cost_nanousd:
            route.cost.total += receipt.cost_nanousd / NANO
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

    def _route(self, names: tuple[str, str]) -> "_Route":
        route = self._routes[names] = _Route(
            duration=self.duration.of(names), first_token=self.first_token.of(names),
            input_spread=self.gen_tokens.of((*names, "input")), output_spread=self.gen_tokens.of((*names, "output")),
            input=self.tokens.of((*names, "input")), output=self.tokens.of((*names, "output")),
            cached=self.tokens.of((*names, "cached")), reasoning=self.tokens.of((*names, "reasoning")),
            cost=self.cost.of(names),
        )  # fmt: skip
        return route

    def _outcome(self, route: "_Route", names: tuple[str, str], outcome: str) -> Sum:
        known = route.outcomes[outcome] = self.requests.of((*names, outcome))
        return known

    def _line(self, receipt: Receipt) -> None:
        usage, caller = receipt.usage, receipt.caller
        fields = {
            "request_id": receipt.request_id, "key": caller.key, "user": caller.user, "model": receipt.model,
            "provider": receipt.provider, "upstream_model": receipt.upstream_model, "outcome": receipt.outcome,
            "input": usage.input, "output": usage.output, "estimated": usage.estimated,
            "usd": None if receipt.cost_nanousd is None else usd_text(receipt.cost_nanousd),
            "ms": int(receipt.duration_s * 1000), "attempts": receipt.attempts,
        }  # fmt: skip
        tell(_log, "call", fields)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Route:
    """What is counted of the calls to one model of one provider."""

    duration: Spread
    first_token: Spread
    input_spread: Spread
    output_spread: Spread
    input: Sum
    output: Sum
    cached: Sum
    reasoning: Sum
    cost: Sum
    outcomes: dict[str, Sum] = field(default_factory=dict)


def _code(error: AdapterError) -> str:
    """A bounded label: our own codes as they are, a provider's by its status."""
    return error.code if error.code and error.code.startswith("upstream_") else f"http_{error.status}"
