"""What decides about a call: keys, budgets, limits, prices, routes.

Made whole from a configuration and what is stored, then never changed: a call that began under old rules ends under them.
"""

from dataclasses import dataclass

from proxy.admission import Admitter
from proxy.auth import Gate
from proxy.paths import Paths
from proxy.routing import Router


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """One version of the rules."""

    gate: Gate
    router: Router
    admitter: Admitter
    paths: Paths
    version: str  # of the stored keys and budgets
