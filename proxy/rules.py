"""What decides about a call: keys, budgets, limits, prices, routes.

Made whole from a configuration and what is stored, then never changed: a call that began under old rules ends under them.
"""

from dataclasses import dataclass

from proxy.admission import Admitter
from proxy.asked import Asked
from proxy.auth import Gate
from proxy.errors import model_not_found
from proxy.paths import Paths
from proxy.principal import Principal
from proxy.routing import Router
from proxy.upstreams import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """One version of the rules."""

    gate: Gate
    router: Router
    admitter: Admitter
    paths: Paths
    version: str  # of the stored keys and budgets

    def targets(self, asked: Asked, principal: Principal) -> list[Target]:
        """Return where the call may be tried, in order. Raises ClientError 404: no such model for this caller and operation."""
        if not principal.may_use(asked.model):
            raise model_not_found(asked.model)
        targets = self.router.targets(asked.model, principal.caller, stream=asked.stream)
        for target in targets:
            if asked.operation not in target.upstream.adapter.operations:
                targets = [target for target in targets if asked.operation in target.upstream.adapter.operations]
                break
        if not targets:
            raise model_not_found(asked.model)
        return targets
