"""What decides about a call: keys, budgets, limits, prices, routes.

Made whole from a configuration and what is stored, then never changed: a call that began under old rules ends under them.
"""

from dataclasses import dataclass, field

from accounting.budgets import Caller
from adapters.base import Operation
from proxy.admission import Admitter
from proxy.asked import Asked
from proxy.auth import Gate
from proxy.errors import model_not_found
from proxy.paths import Paths
from proxy.principal import Principal
from proxy.routing import Router
from proxy.standing import Way

WAYS_MAX = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """One version of the rules."""

    gate: Gate
    router: Router
    admitter: Admitter
    paths: Paths
    version: str  # of the stored keys and budgets
    _ways: dict[tuple[str, Operation, Caller], Way] = field(default_factory=dict, init=False, repr=False, compare=False)

    def way(self, asked: Asked, principal: Principal) -> Way:
        """Return where the call may be tried, and on what standing. Raises ClientError 404: no such model for this caller and operation."""
        model, operation, caller = asked.model, asked.operation, principal.caller
        if principal.models is not None and not principal.may_use(model):
            raise model_not_found(model)
        known = self._ways.get((model, operation, caller))
        if known is not None:
            return known
        targets = self.router.targets(model, caller, stream=asked.stream)
        fit = [target for target in targets if operation in target.upstream.adapter.operations]
        if not fit:
            raise model_not_found(model)
        way = Way(fit, self.admitter.standing(caller, fit))
        if self.router.is_settled(model):
            if len(self._ways) >= WAYS_MAX:  # names and end users come from the wire
                self._ways.clear()
            self._ways[model, operation, caller] = way
        return way
