"""What operators are told of the providers: which are left out for now, and how many API keys rest. Never decides anything."""

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge

from proxy.health import Health
from proxy.upstreams import Upstreams


class Fitness:
    """`bursar_upstream_up`, and the details of /readyz. `upstreams` are those of the configuration in force."""

    def __init__(self, registry: CollectorRegistry, health: Health, upstreams: Callable[[], Upstreams]) -> None:
        self._health, self._upstreams = health, upstreams
        self._up = Gauge(
            "bursar_upstream_up", "0 while a target of the provider is left out.", ("provider",), registry=registry
        )
        self._keys = Gauge(
            "bursar_upstream_keys_ready", "API keys of the provider that do not rest.", ("provider",), registry=registry
        )

    def collect(self) -> None:
        """Refresh the gauges."""
        left_out = self._left_out()
        self._up.clear()
        self._keys.clear()
        now_s = asyncio.get_running_loop().time()
        for name, upstream in self._upstreams().items():
            self._up.labels(name).set(0 if left_out.get(name) else 1)
            self._keys.labels(name).set(upstream.keys.ready(now_s))

    def details(self) -> dict[str, dict[str, object]]:
        """Return by provider what is not as it should be; empty for one that is well."""
        left_out, now_s = self._left_out(), asyncio.get_running_loop().time()
        found: dict[str, dict[str, object]] = {}
        for name, upstream in self._upstreams().items():
            state: dict[str, object] = {}
            if name in left_out:
                state["targets_left_out"] = left_out[name]
            resting = len(upstream.keys) - upstream.keys.ready(now_s)
            if resting:
                state["keys_resting"] = resting
            found[name] = state
        return found

    def _left_out(self) -> dict[str, int]:
        """How many targets of each provider are not let through."""
        counts: dict[str, int] = {}
        for (provider, _, _), state in self._health.states(asyncio.get_running_loop().time()).items():
            if state != "closed":
                counts[provider] = counts.get(provider, 0) + 1
        return counts
