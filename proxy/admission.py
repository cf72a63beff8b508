"""From a parsed request to what the ledger is asked: the worst that the call can use and cost, on every budget of the caller.

One hold covers the dearest of all targets that may be tried. Where the budget is far from its limit a cheap bound of the input
suffices; near it, the tokens are counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase

import msgspec

from accounting.ask import Ask, Worst, draws_for
from accounting.budgets import Budget, BudgetBook, Caller, qualified, route_subjects
from accounting.hold import Hold
from accounting.prices.ceilings import max_output
from accounting.prices.price import Price
from accounting.prices.table import PriceBook
from accounting.tokens.counter import upper_bound
from proxy.asked import Asked, unbounded_cost
from proxy.config.policy import Admission
from proxy.errors import ClientError
from proxy.limits import LimitBook, concurrency, lowered, rates
from proxy.slices import SLICE_TOKENS, may_slice, sent_upstream
from proxy.standing import Standing, Way, binds_cost, standing_of
from proxy.upstreams import Target

STANDINGS_MAX = 4096


class Terms(msgspec.Struct, frozen=True):
    """What a call may be admitted on. `prices` and `ceilings` belong to the targets, in their order.

    `clamps`: some budget or limit of tokens is kept by what output limit is sent, so one must be sent. `wanted` are the output
    tokens per choice that the client asked for; `ask` may be for a first slice only.
    """

    ask: Ask
    prices: tuple[Price | None, ...]
    ceilings: tuple[int, ...]
    clamps: bool
    input_tokens: int
    worst: Worst  # of the dearest target
    wanted: int

    def granted(self, hold: Hold) -> int:
        """Return the output tokens per choice that may be asked of a provider."""
        return sent_upstream(hold, self.ask, self.wanted)


class Admitter:
    """The budgets, limits and prices of one configuration."""

    def __init__(
        self, book: BudgetBook, limits: LimitBook, prices: PriceBook, policy: Admission, ceilings: Mapping[str, int]
    ) -> None:
        self.book, self._limits, self._prices, self._policy, self._ceilings = book, limits, prices, policy, ceilings
        self._share_permille = round(policy.unbounded_share * 1000)
        self._standings: dict[tuple[Caller, tuple[tuple[str, str], ...]], Standing] = {}

    def budgets(self, caller: Caller, targets: Iterable[Target]) -> list[Budget]:
        """Return the budgets that a call draws on: the caller's, then those of the models that may be tried."""
        routes = [target.names for target in targets]
        return self.book.for_subjects((*caller.subjects(), *route_subjects(routes)), no_default=qualified(routes))

    def price(self, target: Target) -> Price | None:
        """Return the price of a target by the configuration and the table; None if nobody names one."""
        upstream = target.upstream
        return self._prices.lookup(upstream.price_list, target.model, provider=upstream.name)

    def standing(self, caller: Caller, targets: Sequence[Target]) -> Standing:
        """Return what is the same for every call of a caller to these targets."""
        routes = tuple([target.names for target in targets])
        known = self._standings.get((caller, routes))
        if known is None:
            if len(self._standings) >= STANDINGS_MAX:  # callers may be as many as there are people
                self._standings.clear()
            known = self._standings[caller, routes] = self._new_standing(caller, targets, routes)
        return known

    def terms(self, asked: Asked, way: Way, input_tokens: int) -> Terms:
        """Return the terms for so much input. Raises ClientError 400: unbounded_cost, unknown_price."""
        standing = way.standing
        if standing.costs and asked.unbounded is not None:
            raise unbounded_cost(asked.unbounded)
        prices = standing.prices
        if prices is None:  # says which
            prices = tuple([self._priced(target, costs=standing.costs) for target in way.targets])
        worst = _worst(asked, prices, input_tokens)
        draws, limits = draws_for(standing.budgets, worst), standing.rates
        if limits is None:
            limits = rates(standing.limits, worst)
        wanted, least, share_permille = self._output(asked, standing.ceiling)
        first = wanted
        if standing.slices and may_slice(asked, way.targets, draws, limits):
            first, share_permille = max(least, min(wanted, SLICE_TOKENS)), 0  # it holds little that others could use
        ask = Ask(draws, limits, first, least, share_permille)
        clamps = standing.clamps or (standing.costs and worst.output_nanousd > 0)
        clamps = clamps or (standing.rates is None and lowered(ask))
        return Terms(ask, prices, standing.ceilings, clamps, input_tokens, worst, wanted)

    def fixed(self, caller: Caller, provider: str, path: str, nanousd: int | None) -> Ask:
        """Return what a call at a fixed price asks for, whatever it is. Raises ClientError 400 unbounded_cost without a price."""
        budgets = self.book.for_subjects((*caller.subjects(), f"provider:{provider}"))
        if nanousd is None and binds_cost(budgets):
            raise unbounded_cost(path)
        worst = Worst(0, nanousd or 0, 0)
        limits = [each for each in self._limits.of(caller, [(provider, "")]) if not each[0].startswith("model:")]
        return Ask(draws_for((*budgets, *concurrency(limits)), worst), rates(limits, worst))

    def bound(self, asked: Asked, way: Way) -> tuple[Terms, bool]:
        """Return the terms for a bound of the input that costs no counting, and whether that is good enough for this caller."""
        targets, standing = way
        input_tokens = upper_bound(asked.operation, asked.body, targets[0].model)
        for target in targets[1:]:
            input_tokens = max(input_tokens, upper_bound(asked.operation, asked.body, target.model))
        terms = self.terms(asked, way, input_tokens)
        if standing.rates is None:
            return terms, False  # nothing of it is given back when the call turns out smaller
        return terms, input_tokens <= standing.far_tokens and terms.worst.input_nanousd <= standing.far_nanousd

    def _new_standing(self, caller: Caller, targets: Sequence[Target], routes: tuple[tuple[str, str], ...]) -> Standing:
        limits = self._limits.of(caller, routes)
        budgets = (*self.budgets(caller, targets), *concurrency(limits))
        ceilings = tuple([self._ceiling(target) for target in targets])
        costs, prices = binds_cost(budgets), None
        with suppress(ClientError):  # each call is told
            prices = tuple([self._priced(target, costs=costs) for target in targets])
        return standing_of(budgets, limits, ceilings, prices)

    def _priced(self, target: Target, *, costs: bool) -> Price | None:
        price = self.price(target)
        if price is not None or self._policy.unknown_price == "free":
            return price
        if self._policy.unknown_price == "dearest":
            return self._prices.dearest(target.upstream.price_list)
        if costs:
            provider, model = target.names
            raise ClientError(
                400,
                f"No price is known for {provider}/{model[:200]}, and this call draws on a hard cost budget. "
                f"Name one under prices: in the configuration.",
                code="unknown_price",
                param="model",
                headers={"x-should-retry": "false"},
            )
        return None

    def _ceiling(self, target: Target) -> int:
        """The most output tokens that the model gives: as configured, as known, else the default."""
        name = "/".join(target.names)
        own = next((n for pattern, n in self._ceilings.items() if fnmatchcase(name, pattern)), None)
        return own or max_output(target.model) or self._policy.default_max_output

    def _output(self, asked: Asked, ceiling: int) -> tuple[int, int, int]:
        """Return the wanted and the least output tokens per choice, and how much of what is free the call may take."""
        if asked.operation == "embeddings":
            return 0, 0, 0
        least = asked.thinking + self._policy.min_completion
        if asked.limit is not None:
            return asked.limit, min(asked.limit, least), 0
        return max(ceiling, least), least, self._share_permille


def _worst(asked: Asked, prices: Sequence[Price | None], input_tokens: int) -> Worst:
    tier = asked.service_tier
    if len(prices) == 1 and (only := prices[0]) is not None:  # as most calls have
        input_nanousd, output_nanousd = only.worst_nanousd(input_tokens, tier)
        return Worst(input_tokens, input_nanousd, output_nanousd, asked.choices)
    most_input = most_output = 0
    for price in prices:
        if price is not None:
            input_nanousd, output_nanousd = price.worst_nanousd(input_tokens, tier)
            most_input = max(most_input, input_nanousd)
            most_output = max(most_output, output_nanousd)
    return Worst(input_tokens, most_input, most_output, asked.choices)
