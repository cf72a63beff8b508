"""From the model name that a client sends to the targets that may be tried, in order.

A name without a wildcard wins over any pattern; among patterns the longest that fits. The text that a `*` stood for takes the
place of the `*` in the target.
"""

import random
import re
from collections.abc import Mapping

from proxy.config.model import ModelEntry, Spread, spread_of
from proxy.upstreams import Target, Upstreams


class Router:
    """The `models` of one configuration, with the providers they lead to."""

    def __init__(
        self, models: Mapping[str, ModelEntry], upstreams: Upstreams, chance: random.Random | None = None
    ) -> None:
        self._upstreams = upstreams
        self._exact = {name: spread_of(entry) for name, entry in models.items() if "*" not in name}
        patterns = sorted((name for name in models if "*" in name), key=lambda name: (-len(name), name))
        self._patterns = [(_compiled(name), spread_of(models[name])) for name in patterns]
        self._chance = chance or random.Random()  # noqa: S311 - spreads load, guards nothing

    def names(self) -> list[str]:
        """Return the model names that can be listed: those without a wildcard."""
        return sorted(self._exact)

    def targets(self, model: str) -> list[Target]:
        """Return where to try, first the best; empty if no entry fits."""
        spread, star = self._find(model)
        if spread is None:
            return []
        found = []
        for target in self._ordered(spread):
            provider, _, upstream_model = target.partition("/")
            found.append(Target(self._upstreams[provider], upstream_model.replace("*", star, 1) or model))
        return found

    def providers(self, model: str) -> list[str]:
        """Return the names of the providers that may serve a model name."""
        spread, _ = self._find(model)
        return [target.to.partition("/")[0] for target in spread.targets] if spread else []

    def _find(self, model: str) -> tuple[Spread | None, str]:
        exact = self._exact.get(model)
        if exact is not None:
            return exact, ""
        for pattern, spread in self._patterns:
            if match := pattern.fullmatch(model):
                return spread, match[1]
        return None, ""

    def _ordered(self, spread: Spread) -> list[str]:
        if spread.balance == "ordered":
            return [target.to for target in spread.targets]
        left, ordered = list(spread.targets), []
        while left:
            chosen = self._chance.choices(left, [target.weight for target in left])[0]
            left.remove(chosen)
            ordered.append(chosen.to)
        return ordered


def _compiled(pattern: str) -> re.Pattern[str]:
    before, _, after = pattern.partition("*")
    return re.compile(re.escape(before) + "(.*)" + ".*".join(map(re.escape, after.split("*"))), re.DOTALL)
