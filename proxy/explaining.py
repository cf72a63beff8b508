"""What Bursar would say to a call, and why: the same reading, routing, counting and terms as a real one, and nothing held or sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from accounting.ask import Rate
from accounting.budgets import Caller
from accounting.prices.price import Price
from accounting.reading import Reader
from accounting.store.store import Store
from accounting.stored import Stored
from accounting.tokens.counter import count_input
from accounting.verdict import DrawVerdict, Verdict, decide
from adapters.base import Operation
from proxy.admission import Terms
from proxy.amounts import budget_row, shown, usd_text
from proxy.asked import Asked, read_request
from proxy.config.environment import CallDefaults
from proxy.config.model import Config
from proxy.principal import Principal
from proxy.rules import Rules
from proxy.upstreams import Target

CODES = {"held": "budget_held", "spent": "insufficient_quota", "rate": "rate_limit_exceeded"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """All that decides about one call. `counted` is the exact count, `terms.input_tokens` what the hold is made of."""

    asked: Asked
    principal: Principal
    targets: Sequence[Target]
    terms: Terms
    counted: int
    verdict: Verdict
    rates: tuple[Rate, ...]

    @property
    def code(self) -> str | None:
        """The error code that the client would see; None if it is let in."""
        verdict = self.verdict
        if verdict.draw is not None and verdict.draws[verdict.draw].draw.budget.unit == "concurrency":
            return "rate_limit_exceeded"
        return CODES.get(verdict.kind)

    @property
    def says(self) -> str:
        """The verdict in a few words."""
        if self.code is not None:
            return self.code
        return f"clamp to {self.verdict.granted}" if self.verdict.kind == "clamp" else "admit"


async def explain(
    rules: Rules,
    principal: Principal,
    request: tuple[Operation, bytes],
    *,
    defaults: CallDefaults,
    store: Store,
    now_ms: int,
) -> Explained:
    """Go the way of a call up to the ledger, and say what that would say. Raises ClientError and StoreError."""
    operation, raw = request
    asked = read_request(operation, raw, defaults)
    way = rules.way(asked, principal)
    bound, far = rules.admitter.bound(asked, way)
    counted = min(bound.input_tokens, max(count_input(operation, asked.body, target.model) for target in way.targets))
    terms = bound if far else rules.admitter.terms(asked, way, counted)
    ask = terms.ask
    balances = await Reader(store).balances([draw.budget for draw in ask.draws], now_ms)
    tats = [float(await store.call("GET", store.key("q", rate.subject, rate.what)) or 0) for rate in ask.rates]
    verdict = decide(ask, [balance.row for balance in balances], tats, now_ms)
    return Explained(
        asked=asked,
        principal=principal,
        targets=way.targets,
        terms=terms,
        counted=counted,
        verdict=verdict,
        rates=ask.rates,
    )


def principal_of(
    config: Config, stored: Stored | None, *, key: str | None, user: str | None, team: str | None
) -> Principal:
    """Return who would call: a key by its id, or a bare user. Raises ValueError, naming the fix."""
    if key is None:
        if user is None and team is None:
            if config.auth.mode != "none":
                raise ValueError("name who calls: --user alice or --key ID")
            user = "default"
        return Principal(caller=Caller(tenant=config.tenant, user=user, team=team))
    rows = {each.id: each for each in config.keys} | {each.id: each for each in (stored.keys if stored else ())}
    row = rows.get(key)
    if row is None:
        raise ValueError(f"there is no key {key[:128]}: `bursar key list` names all")
    if getattr(row, "revoked_ms", None) is not None:
        raise ValueError(f"key {key} was revoked: calls with it get 401 invalid_api_key")
    if user is not None and row.user_from is None and user != row.user:
        raise ValueError(f"key {key} speaks for {row.user or 'no user'}, not for {user}: leave out --user")
    caller = Caller(tenant=config.tenant, key=row.id, user=user or row.user, team=row.team, org=row.org, tags=row.tags)
    return Principal(caller=caller, models=row.models, user_from=row.user_from)


def as_json(found: Explained) -> dict[str, Any]:
    """Return everything as JSON shows it."""
    ask, verdict = found.terms.ask, found.verdict
    return {
        "verdict": found.says, "code": found.code, "granted_output_tokens": verdict.granted,
        "wanted_output_tokens": ask.wanted, "least_output_tokens": ask.least, "choices": found.asked.choices,
        "share_of_free": ask.share_permille / 1000 if ask.share_permille else None,
        "input_tokens": {"held": found.terms.input_tokens, "counted": found.counted},
        "targets": [
            {"provider": target.names[0], "model": target.names[1], "max_output": ceiling, "usd_per_million": _rates(price)}
            for target, price, ceiling in zip(found.targets, found.terms.prices, found.terms.ceilings, strict=True)
        ],
        "budgets": [_draw(each, verdict.granted) for each in verdict.draws],
        "limits": [{"subject": r.subject, "what": r.what, "limit": r.limit, "window_ms": r.window_ms} for r in found.rates],
        "wait_ms": verdict.wait_ms or None,
    }  # fmt: skip


def _draw(each: DrawVerdict, granted: int) -> dict[str, Any]:
    unit, draw = each.row.budget.unit, each.draw
    return {
        **budget_row(each.row), "says": each.says, "fixed": shown(unit, draw.fixed), "per_output_token": shown(unit, draw.per_output),
        "need": shown(unit, each.need), "free": shown(unit, each.free), "fits_output_tokens": each.fit,
        "would_hold": shown(unit, draw.fixed + draw.per_output * granted),
    }  # fmt: skip


def _rates(price: Price | None) -> dict[str, str] | None:
    """The plain rates in USD per million tokens, exact: a pico-USD per token is 1000 nano-USD per million."""
    if price is None:
        return None
    rates = price.plain.rates
    return {"input": usd_text(rates.input * 1000), "output": usd_text(rates.output * 1000), "from": price.version}
