"""From the model name that a client sends to the targets that may be tried, in order.

A name without a wildcard wins over any pattern; among patterns the longest that fits. The text that a `*` stood for takes the
place of the `*` in the target. Calls that stick go to the same target, by a hash that moves only the calls of a target that
is gone: prompt caches live at the provider.
"""

import asyncio
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

from accounting.budgets import Caller
from adapters.transport.base import Timeouts
from proxy.config.model import ModelEntry, Spread, spread_of
from proxy.config.providers import ProviderTimeouts
from proxy.latency import Latencies
from proxy.upstreams import Target, Upstreams

NAMES_KNOWN_MAX = 1024
_NOBODY = Caller()


class Router:
    """The `models` of one configuration, with the providers they lead to."""

    def __init__(
        self,
        models: Mapping[str, ModelEntry],
        upstreams: Upstreams,
        chance: random.Random | None = None,
        latencies: Latencies | None = None,
    ) -> None:
        self._upstreams = upstreams
        self._exact = {name: spread_of(entry) for name, entry in models.items() if "*" not in name}
        patterns = sorted((name for name in models if "*" in name), key=lambda name: (-len(name), name))
        self._patterns = [(_compiled(name), spread_of(models[name])) for name in patterns]
        self._chance = chance or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._latencies = latencies or Latencies()
        self._settled: dict[
            str, list[Target]
        ] = {}  # of names that lead to the same places in the same order, whoever calls

    def names(self) -> list[str]:
        """Return the model names that can be listed: those without a wildcard."""
        return sorted(self._exact)

    def targets(self, model: str, caller: Caller = _NOBODY, *, stream: bool = False) -> list[Target]:
        """Return where to try, first the best; empty if no entry fits. It is not to be changed."""
        if (settled := self._settled.get(model)) is not None:
            return settled
        spread, star = self._find(model)
        if spread is None:
            return []
        stick_to = _stick_to(spread, caller)
        found = [self._target(target.to, star, model, spread, stick_to) for target in spread.targets]
        if len(found) > 1 and spread.balance != "ordered":
            return [found[number] for number in self._order(spread, found, stick_to, stream=stream)]
        if spread.sticky is None:
            if len(self._settled) >= NAMES_KNOWN_MAX:  # names come from the wire
                self._settled.clear()
            self._settled[model] = found
        return found

    def is_settled(self, model: str) -> bool:
        """Tell whether every call of that name goes the same way; known once one of them has asked."""
        return model in self._settled

    def providers(self, model: str) -> list[str]:
        """Return the names of the providers that may serve a model name."""
        spread, _ = self._find(model)
        return [target.to.partition("/")[0] for target in spread.targets] if spread else []

    def _target(self, to: str, star: str, model: str, spread: Spread, stick_to: str | None) -> Target:
        provider, _, upstream_model = to.partition("/")
        upstream, own = self._upstreams[provider], spread.timeouts
        target = Target(upstream, upstream_model.replace("*", star, 1) or model, stick_to=stick_to)
        if own == _NO_LIMITS:
            return target
        patient = False if own.first_token_s is not None else None
        limits = limits_of(own, upstream.timeouts)
        return replace(target, timeouts=limits, patient=patient, own_stall_s=own.write_stall_s)

    def _find(self, model: str) -> tuple[Spread | None, str]:
        exact = self._exact.get(model)
        if exact is not None:
            return exact, ""
        for pattern, spread in self._patterns:
            if match := pattern.fullmatch(model):
                return spread, match[1]
        return None, ""

    def _order(self, spread: Spread, found: Sequence[Target], stick_to: str | None, *, stream: bool) -> list[int]:
        numbers = list(range(len(found)))
        weights = [target.weight for target in spread.targets]
        if stick_to is not None:
            return sorted(numbers, key=lambda n: _distance(f"{spread.targets[n].to}|{stick_to}", weights[n]))
        if spread.balance == "least_latency":
            now_s = asyncio.get_running_loop().time()
            return self._latencies.order([(target.place, stream) for target in found], now_s)
        ordered = []
        while numbers:
            chosen = self._chance.choices(numbers, [weights[n] for n in numbers])[0]
            numbers.remove(chosen)
            ordered.append(chosen)
        return ordered


def limits_of(own: ProviderTimeouts, general: Timeouts) -> Timeouts:
    """Return the limits of one attempt: its own where it has them, else the general ones."""
    return Timeouts(
        connect=own.connect_s or general.connect,
        tls=own.tls_s or general.tls,
        first_token=own.first_token_s or general.first_token,
        idle=own.idle_s or general.idle,
        total=own.total_s or general.total,
    )


_NO_LIMITS = ProviderTimeouts()


def _stick_to(spread: Spread, caller: Caller) -> str | None:
    """Whose calls stay together: the user's, or the key's where no user is named."""
    if spread.sticky == "user" and caller.user:
        return f"user:{caller.user}"
    return f"key:{caller.key}" if spread.sticky is not None and caller.key else None


def _distance(text: str, weight: int) -> float:
    """Return how far a target is from a caller: by weighted rendezvous, the same everywhere, always.

    Source: https://www.snia.org/sites/default/files/SDC15_presentations/dist_sys/Jason_Resch_New_Consistent_Hashings_Rev.pdf
    """
    share = (int.from_bytes(sha256(text.encode()).digest()[:8]) + 1) / (2**64 + 2)
    return -math.log(share) / weight


def _compiled(pattern: str) -> re.Pattern[str]:
    before, _, after = pattern.partition("*")
    return re.compile(re.escape(before) + "(.*)" + ".*".join(map(re.escape, after.split("*"))), re.DOTALL)
