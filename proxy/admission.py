"""From a parsed request to what the ledger is asked: the worst that the call can use and cost, on every budget of the caller.

One hold covers the dearest of all targets that may be tried. Where the budget is far from its limit a cheap bound of the input
suffices; near it, the tokens are counted.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase

from accounting.ask import Ask, Draw, Worst, draws_for
from accounting.budgets import Budget, BudgetBook, Caller, qualified, route_subjects
from accounting.hold import Hold
from accounting.prices.ceilings import max_output
from accounting.prices.price import Price
from accounting.prices.table import PriceBook
from accounting.record import record
from accounting.tokens.counter import upper_bound
from proxy.asked import Asked, unbounded_cost
from proxy.config.policy import Admission, Limit
from proxy.errors import ClientError
from proxy.limits import LimitBook, concurrency, lowered, rates
from proxy.slices import SLICE_TOKENS, may_slice, sent_upstream
from proxy.upstreams import Target

STANDINGS_MAX = 4096
FAR = 50  # a call whose cheap bound is less than this part of every limit need not be counted exactly


@record
class Terms:
    """What a call may be admitted on. `prices` and `ceilings` belong to the targets, in their order.

    `clamps`: some budget or limit of tokens is kept by what output limit is sent, so one must be sent.
    """

    ask: Ask
    prices: tuple[Price | None, ...]
    ceilings: tuple[int, ...]
    clamps: bool
    input_tokens: int
    worst: Worst  # of the dearest target
    whole: int | None = None  # output tokens per choice, where `ask` is for a first slice only

    @property
    def wanted(self) -> int:
        """The output tokens per choice that the client asked for."""
        return self.ask.wanted if self.whole is None else self.whole

    def granted(self, hold: Hold) -> int:
        """Return the output tokens per choice that may be asked of a provider."""
        return sent_upstream(hold, self.ask, self.whole)


@dataclass(frozen=True, slots=True)
class _Standing:
    """What is the same for every call of a caller to the same targets."""

    budgets: tuple[Budget, ...]
    limits: tuple[tuple[str, Limit], ...]
    at_once: tuple[Draw, ...]
    ceilings: tuple[int, ...]
    ceiling: int  # the highest of them
    costs: bool  # some budget in USD binds
    prices: tuple[Price | None, ...] | None  # None: one is not known, and that refuses the call


class Admitter:
    """The budgets, limits and prices of one configuration."""

    def __init__(
        self, book: BudgetBook, limits: LimitBook, prices: PriceBook, policy: Admission, ceilings: Mapping[str, int]
    ) -> None:
        self.book, self._limits, self._prices, self._policy, self._ceilings = book, limits, prices, policy, ceilings
        self._standings: dict[tuple[Caller, tuple[tuple[str, str], ...]], _Standing] = {}

    def budgets(self, caller: Caller, targets: Iterable[Target]) -> list[Budget]:
        """Return the budgets that a call draws on: the caller's, then those of the models that may be tried."""
        routes = [target.names for target in targets]
        return self.book.for_subjects((*caller.subjects(), *route_subjects(routes)), no_default=qualified(routes))

    def price(self, target: Target) -> Price | None:
        """Return the price of a target by the configuration and the table; None if nobody names one."""
        upstream = target.upstream
        return self._prices.lookup(upstream.price_list, target.model, provider=upstream.name)

    def terms(self, asked: Asked, caller: Caller, targets: Sequence[Target], input_tokens: int) -> Terms:
        """Return the terms for so much input. Raises ClientError 400: unbounded_cost, unknown_price."""
        standing = self._standing(caller, targets)
        if standing.costs and asked.unbounded is not None:
            raise unbounded_cost(asked.unbounded)
        prices = standing.prices
        if prices is None:  # says which
            prices = tuple([self._priced(target, costs=standing.costs) for target in targets])
        worst = _worst(asked, prices, input_tokens)
        wanted, least = self._output(asked, standing.ceiling)
        bounded = asked.limit is not None or asked.operation == "embeddings"
        draws, limits = draws_for(standing.budgets, worst) + standing.at_once, rates(standing.limits, worst)
        whole = None
        if may_slice(asked, targets, draws, limits):  # it holds little that others could use: no share is kept from it
            whole, wanted, bounded = wanted, max(least, min(wanted, SLICE_TOKENS)), True
        ask = Ask(
            draws=draws,
            rates=limits,
            wanted=wanted,
            least=least,
            share_permille=0 if bounded else round(self._policy.unbounded_share * 1000),
        )
        clamps = bool(ask.rates) and lowered(ask)
        for draw in draws:
            clamps = clamps or (draw.per_output > 0 and draw.budget.binds)
        return Terms(
            ask=ask,
            prices=prices,
            ceilings=standing.ceilings,
            clamps=clamps,
            input_tokens=input_tokens,
            worst=worst,
            whole=whole,
        )

    def fixed(self, caller: Caller, provider: str, path: str, nanousd: int | None) -> Ask:
        """Return what a call at a fixed price asks for, whatever it is. Raises ClientError 400 unbounded_cost without a price."""
        budgets = self.book.for_subjects((*caller.subjects(), f"provider:{provider}"))
        if nanousd is None and any(budget.unit == "usd" and budget.binds for budget in budgets):
            raise unbounded_cost(path)
        worst = Worst(input_tokens=0, input_nanousd=nanousd or 0, output_nanousd=0)
        limits = [each for each in self._limits.of(caller, [(provider, "")]) if not each[0].startswith("model:")]
        return Ask(draws=draws_for(budgets, worst) + concurrency(limits), rates=rates(limits, worst))

    def bound(self, asked: Asked, caller: Caller, targets: Sequence[Target]) -> tuple[Terms, bool]:
        """Return the terms for a bound of the input that costs no counting, and whether that is good enough for this caller."""
        input_tokens = upper_bound(asked.operation, asked.body, targets[0].model)
        for target in targets[1:]:
            input_tokens = max(input_tokens, upper_bound(asked.operation, asked.body, target.model))
        terms = self.terms(asked, caller, targets, input_tokens)
        for rate in terms.ask.rates:
            if rate.what == "tokens":
                return terms, False  # nothing of it is given back when the call turns out smaller
        for budget, fixed, _ in terms.ask.draws:
            if fixed * FAR > budget.limit and budget.binds and _counts_input(budget):
                return terms, False
        return terms, True

    def _standing(self, caller: Caller, targets: Sequence[Target]) -> _Standing:
        routes = tuple([target.names for target in targets])
        known = self._standings.get((caller, routes))
        if known is None:
            if len(self._standings) >= STANDINGS_MAX:  # callers may be as many as there are people
                self._standings.clear()
            known = self._standings[caller, routes] = self._new_standing(caller, targets, routes)
        return known

    def _new_standing(
        self, caller: Caller, targets: Sequence[Target], routes: tuple[tuple[str, str], ...]
    ) -> _Standing:
        budgets, limits = tuple(self.budgets(caller, targets)), tuple(self._limits.of(caller, routes))
        ceilings = tuple(self._ceiling(target) for target in targets)
        costs, prices = any(budget.unit == "usd" and budget.binds for budget in budgets), None
        with suppress(ClientError):
            prices = tuple(self._priced(target, costs=costs) for target in targets)
        return _Standing(
            budgets=budgets, limits=limits, at_once=concurrency(limits), ceilings=ceilings, ceiling=max(ceilings),
            costs=costs, prices=prices,
        )  # fmt: skip

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

    def _output(self, asked: Asked, ceiling: int) -> tuple[int, int]:
        """Return the wanted and the least output tokens per choice."""
        if asked.operation == "embeddings":
            return 0, 0
        wanted = asked.limit or max(ceiling, asked.thinking + self._policy.min_completion)
        return wanted, min(wanted, asked.thinking + self._policy.min_completion)


def _worst(asked: Asked, prices: Sequence[Price | None], input_tokens: int) -> Worst:
    input_nanousd = output_nanousd = 0
    for price in prices:
        if price is not None:
            worst_input = price.worst_input_nanousd(input_tokens, asked.service_tier) + price.per_request
            input_nanousd = max(input_nanousd, worst_input)
            output_nanousd = max(output_nanousd, price.worst_output_nanousd_per_token(input_tokens, asked.service_tier))
    return Worst(
        input_tokens=input_tokens, input_nanousd=input_nanousd, output_nanousd=output_nanousd, choices=asked.choices
    )


def _counts_input(budget: Budget) -> bool:
    return budget.unit in ("usd", "tokens", "input_tokens")
