"""Compile the price table that ships in `accounting/prices/table.json` from the build-time package `genai-prices`.

Run at build time only, when that package has a new release; read the diff before committing it. Every price becomes an
integer of pico-USD per token (per call for `per_request`), so that $0.0375 per million stays exact. A price that depends
on the time of day becomes the dearest of the day; one that starts later stays as a dated row.

    python scripts/build_prices.py [YYYY-MM-DD]
"""

import json
import sys
from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import ROUND_CEILING, Decimal
from importlib.metadata import version
from pathlib import Path
from typing import Any

from genai_prices import data
from genai_prices.types import (
    ClauseAnd,
    ClauseContains,
    ClauseEndsWith,
    ClauseEquals,
    ClauseOr,
    ClauseRegex,
    ClauseStartsWith,
    ConditionalPrice,
    ModelInfo,
    ModelPrice,
    PriceVariant,
    StartDateConstraint,
    TieredPrices,
)

TARGET = Path(__file__).resolve().parent.parent / "accounting" / "prices" / "table.json"
PROVIDERS = {
    "openai", "anthropic", "google", "aws", "azure", "x-ai", "mistral", "groq", "deepseek", "openrouter", "together",
    "fireworks", "cerebras", "perplexity", "moonshotai", "zai",
}  # fmt: skip
FIELDS = {
    "input_mtok": "input",
    "cache_read_mtok": "cached",
    "cache_write_mtok": "cache_write",
    "cache_write_5m_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_mtok": "output",
    "output_reasoning_mtok": "reasoning",
    "input_audio_mtok": "audio_input",
    "output_audio_mtok": "audio_output",
    "cache_audio_read_mtok": "cached_audio",
    "input_image_mtok": "image_input",
    "output_image_mtok": "image_output",
    "input_video_mtok": "video_input",
}
PER_REQUEST = "requests_kcount"
SERVICE_KEYS = {"service_tier", "speed"}  # of a variant's conditions: chosen by the request, told by the answer
# What the source lacks. https://platform.openai.com/docs/pricing (audio tokens)
MISSING: dict[tuple[str, str], dict[str, Decimal]] = {
    ("openai", "gpt-4o-audio-preview"): {"input_audio_mtok": Decimal(40), "output_audio_mtok": Decimal(80)},
    ("openai", "gpt-4o-mini-audio-preview"): {"input_audio_mtok": Decimal(10), "output_audio_mtok": Decimal(20)},
}


def main(arguments: list[str]) -> int:
    """Write the table as of the given day, or of today (UTC)."""
    today = date.fromisoformat(arguments[0]) if arguments else datetime.now(UTC).date()
    providers = {
        provider.id: {"fallback": provider.fallback_model_providers or [], "models": _models(provider, today)}
        for provider in data.providers
        if provider.id in PROVIDERS or provider.id.startswith("huggingface_")
    }
    head = {
        "version": today.isoformat(),
        "source": f"genai-prices {version('genai-prices')} (MIT, https://github.com/pydantic/genai-prices)",
        "unit": "pico-USD per token; per_request per call",
    }
    TARGET.write_text(_written(head, providers), encoding="utf-8")
    models = sum(len(provider["models"]) for provider in providers.values())
    print(f"{models} models of {len(providers)} providers, {TARGET.stat().st_size:,} bytes, as of {today}")
    return 0


def _written(head: dict[str, str], providers: dict[str, Any]) -> str:
    """One model to a line, so that a diff reads."""
    blocks = []
    for name, provider in sorted(providers.items()):
        lines = ",\n".join(json.dumps(model, separators=(",", ":")) for model in provider["models"])
        blocks.append(
            f'{json.dumps(name)}: {{"fallback": {json.dumps(provider["fallback"])}, "models": [\n{lines}\n]}}'
        )
    told = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items())
    return f'{{\n{told},\n"providers": {{\n' + ",\n".join(blocks) + "\n}}\n"


def _models(provider: Any, today: date) -> list[dict[str, Any]]:
    compiled = []
    for model in provider.models:
        rows = _rows(provider.id, model, today)
        entry: dict[str, Any] = {"id": model.id, "match": _match(model.match)}
        if rows and model.context_window:
            entry["context"] = model.context_window
        # One without a price is kept: it must still match, or a later rule of the provider would take its name.
        compiled.append(entry | {"rows": rows})
    return compiled


def _rows(provider_id: str, model: ModelInfo, today: date) -> list[dict[str, Any]]:
    """Return what holds now, then what will hold, each with the day from which it does."""
    conditional = (
        [ConditionalPrice(None, prices=model.prices)] if isinstance(model.prices, ModelPrice) else model.prices
    )
    days = {today} | {day for day in _start_days(conditional, model.price_variants or []) if day > today}
    rows: list[dict[str, Any]] = []
    for day in sorted(days):
        row = _row(provider_id, model, conditional, day)
        if row and (not rows or row != {key: value for key, value in rows[-1].items() if key != "from"}):
            rows.append(row if day == today else {"from": day.isoformat()} | row)
    return rows


def _start_days(conditional: Iterable[ConditionalPrice], variants: Iterable[PriceVariant]) -> set[date]:
    constraints = [item.constraint for item in conditional] + [item.constraint for item in variants]
    return {item.start_date for item in constraints if isinstance(item, StartDateConstraint)}


def _row(provider_id: str, model: ModelInfo, conditional: list[ConditionalPrice], day: date) -> dict[str, Any]:
    prices = _dearest_of_day(conditional, day) | MISSING.get((provider_id, model.id), {})
    row = _rates(_with_hour_cache(model.id, prices))
    if not prices and model.id.endswith(":free"):
        row = {"input": 0, "output": 0}
    if "input" not in row and "output" not in row and "per_request" not in row:
        return {}  # sold by the hour, the page or not at all: no price of tokens
    services = {}
    for variant in reversed(model.price_variants or []):
        active = not isinstance(variant.constraint, StartDateConstraint) or variant.constraint.start_date <= day
        (key, value), *more = variant.when.items()
        if active and key in SERVICE_KEYS and not more and variant.prices.__dict__:
            services[value] = _rates(_with_hour_cache(model.id, prices | _given(variant.prices)))
    return row | ({"service": dict(sorted(services.items()))} if services else {})


def _dearest_of_day(conditional: list[ConditionalPrice], day: date) -> dict[str, Any]:
    """Merge the price of the day with those of its hours: for each unit the dearest."""
    standing = conditional[0]
    hours = []
    for item in conditional:
        if item.constraint is None or (
            isinstance(item.constraint, StartDateConstraint) and item.constraint.start_date <= day
        ):
            standing, hours = item, []
        elif not isinstance(item.constraint, StartDateConstraint):
            hours.append(item)
    merged = _given(standing.prices)
    for item in hours:
        for key, price in _given(item.prices).items():
            if key not in merged or _base(price) > _base(merged[key]):
                merged[key] = price
    return merged


def _given(prices: ModelPrice) -> dict[str, Any]:
    return {key: value for key, value in prices.__dict__.items() if value is not None}


def _base(price: Decimal | TieredPrices) -> Decimal:
    return price.base if isinstance(price, TieredPrices) else price


def _with_hour_cache(model_id: str, prices: dict[str, Any]) -> dict[str, Any]:
    """Claude's hour-long cache costs twice the input wherever it is sold; some sellers' rows leave it out."""
    if "claude" not in model_id or "cache_write_mtok" not in prices or "cache_write_1h_mtok" in prices:
        return prices
    base = prices["input_mtok"]
    if isinstance(base, TieredPrices):
        tiers = [type(tier)(start=tier.start, price=tier.price * 2) for tier in base.tiers]
        return prices | {"cache_write_1h_mtok": TieredPrices(base=base.base * 2, tiers=tiers)}
    return prices | {"cache_write_1h_mtok": base * 2}


def _rates(prices: dict[str, Any]) -> dict[str, Any]:
    """Return {field: pico-USD, ..., "tiers": [{"above": input tokens, field: pico-USD, ...}]}."""
    rates: dict[str, Any] = {}
    for key, field in FIELDS.items():
        if key in prices:
            rates[field] = _pico_per_token(_base(prices[key]))
    if PER_REQUEST in prices:
        rates["per_request"] = _whole(_base(prices[PER_REQUEST]) * 10**9)
    starts = {tier.start for price in prices.values() if isinstance(price, TieredPrices) for tier in price.tiers}
    if starts:
        rates["tiers"] = [_tier(prices, start) for start in sorted(starts)]
    return rates


def _tier(prices: dict[str, Any], start: int) -> dict[str, int]:
    tier = {"above": start}
    for key, field in FIELDS.items():
        price = prices.get(key)
        if isinstance(price, TieredPrices):
            tier[field] = _pico_per_token([price.base, *(t.price for t in price.tiers if t.start <= start)][-1])
        elif price is not None:
            tier[field] = _pico_per_token(price)
    return tier


def _pico_per_token(usd_per_million: Decimal) -> int:
    return _whole(usd_per_million * 10**6)


def _whole(amount: Decimal) -> int:
    return int(amount.to_integral_value(rounding=ROUND_CEILING))


def _match(clause: Any) -> dict[str, Any]:
    match clause:
        case ClauseOr():
            return {"or": [_match(item) for item in clause.or_]}
        case ClauseAnd():
            return {"and": [_match(item) for item in clause.and_]}
        case ClauseRegex():
            return {"regex": clause.regex}
        case ClauseEquals():
            return {"equals": clause.equals.lower()}
        case ClauseStartsWith():
            return {"starts_with": clause.starts_with.lower()}
        case ClauseEndsWith():
            return {"ends_with": clause.ends_with.lower()}
        case ClauseContains():
            return {"contains": clause.contains.lower()}
        case _:
            raise ValueError(f"a rule of an unknown kind: {type(clause).__name__}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
