"""Which models a configuration names, what they cost, and newer prices of them as the `prices:` part of a file.

All amounts are nano-USD per million tokens: 1000 of the price table's pico-USD per token.
"""

import json
from collections.abc import Iterable, Sequence

from accounting.prices.listing import OtherTable, Rates
from accounting.prices.price import Price
from accounting.prices.price import Rates as ModelRates
from accounting.prices.table import PriceBook
from proxy.amounts import usd_text
from proxy.building import build_prices, price_list
from proxy.config.model import Config, spread_of

_WORDS = {"input": "input", "output": "output", "cached": "cached_input", "cache_write": "cache_write"}


def targets(config: Config) -> list[tuple[str, str, str]]:
    """Return (name, provider, upstream model) of every target in `models`."""
    found = []
    for name, entry in config.models.items():
        for target in spread_of(entry).targets:
            provider, _, model = target.to.partition("/")
            found.append((name, provider, model))
    return found


def priced(book: PriceBook, config: Config, provider: str, model: str) -> Price | None:
    """Return what a configured provider's model costs, None where nobody names it."""
    return book.lookup(price_list(config.providers[provider]), model, provider=provider)


def plain_rates(price: Price) -> Rates:
    """Return the rates of a small call in the plain class of service."""
    return _dearest(price, [price.plain.rates])


def beyond_plain(price: Price) -> str | None:
    """Return what the plain rates do not tell."""
    words = [*(f"above {tier.above} tokens more" for tier in price.plain.tiers), *sorted(price.services)]
    return ", ".join(words) or None


def overrides(
    other: OtherTable, named: Iterable[tuple[str, str]], config: Config, *, origin: str, services: bool
) -> tuple[str, list[str]]:
    """Return YAML with the prices that differ from those in force, and the models that the other table does not know."""
    book, lines, missing = build_prices(config), [], []
    for provider, model in dict.fromkeys(named):
        kind = price_list(config.providers[provider])
        rates = other.rates(kind, model) if kind else None
        if rates is None:
            missing.append(f"{provider}/{model}")
        elif rates != _in_force(book, config, provider, model, services=services):
            fields = ", ".join(
                f"{word}: {usd_text(amount)}" for word, amount in ({"input": 0, "output": 0} | rates).items()
            )
            lines.append(f"  {json.dumps(f'{provider}/{model}')}: {{{fields}}}\n")
    day = f" of {other.version}" if other.version else ""
    head = f"# from {origin}{day}; USD per million tokens; where a price depends on size, the dearest\n"
    return head + ("prices:\n" + "".join(lines) if lines else "prices: {}\n"), missing


def _in_force(book: PriceBook, config: Config, provider: str, model: str, *, services: bool) -> Rates | None:
    """What is in force, by the same choice of the dearest as the file's rates."""
    price = priced(book, config, provider, model)
    if price is None:
        return None
    chosen = (price.plain, *price.services.values()) if services else (price.plain,)
    return _dearest(price, [rates for each in chosen for rates in (each.rates, *(tier.rates for tier in each.tiers))])


def _dearest(price: Price, parts: Sequence[ModelRates]) -> Rates:
    found: Rates = {}
    for name, word in _WORDS.items():
        named = [rate for part in parts if (rate := getattr(part, name)) is not None]
        if named:
            found[word] = max(named) * 1000
    return found | ({"request": price.per_request} if price.per_request else {})
