"""Lists the table that ships, and reads another one: for the commands that show, check and update prices.

Another table is ours (`table.json`), or the data file of `genai-prices`, whose prices are USD per million tokens. An override has
one rate of each kind: of prices that depend on time or size the dearest is taken, and those of other classes of service if asked for.
"""

from collections.abc import Iterable, Iterator, Mapping
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from importlib import resources
from typing import Any, Final

import orjson

from accounting.prices.table import PROVIDER_OF_KIND, matches

# Ours -> the configuration's word for the rate.
RATES: Final[Mapping[str, str]] = {
    "input": "input", "output": "output", "cached": "cached_input", "cache_write": "cache_write", "per_request": "request",
}  # fmt: skip
# Source: https://github.com/pydantic/genai-prices/blob/main/prices/data.schema.json
_GENAI: Final[Mapping[str, tuple[str, ...]]] = {
    "input": ("input_mtok", "input_audio_mtok"),
    "output": ("output_mtok", "output_audio_mtok", "output_reasoning_mtok"),
    "cached_input": ("cache_read_mtok",),
    "cache_write": ("cache_write_mtok", "cache_write_5m_mtok", "cache_write_1h_mtok"),
}
_NANO: Final = 10**9
_MICRO: Final = 10**6

Rates = dict[str, int]  # the configuration's word -> nano-USD per million tokens (request: per call)


class TableError(ValueError):
    """A file that is no price table."""


def shipped_models(kind: str) -> list[tuple[str, Rates]]:
    """Return the models of a kind or preset in the table that ships, with their rates; none where it has no public prices."""
    raw = orjson.loads(resources.files(__package__).joinpath("table.json").read_bytes())
    provider = raw["providers"].get(PROVIDER_OF_KIND.get(kind, ""))
    if provider is None:
        return []
    return [
        (entry["id"], _own_rates({"rows": entry["rows"][:1]}, tiers=False))
        for entry in provider["models"]
        if entry["rows"]
    ]


class OtherTable:
    """A price table from a file. `services`: take the rates of every class of service, not of the plain one only."""

    def __init__(self, data: bytes, *, services: bool = False) -> None:
        try:
            raw = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise TableError("is not JSON") from error
        try:
            self.version, self._models = (
                _ours(raw, services=services)
                if isinstance(raw, dict) and "unit" in raw
                else _genai(raw, services=services)
            )
        except (KeyError, TypeError, AttributeError, InvalidOperation, ValueError) as error:
            raise TableError("is neither a genai-prices data file nor a table.json of Bursar") from error

    def rates(self, kind: str, model: str) -> Rates | None:
        """Return the rates of a model, None where the table has none."""
        name = model.lower()
        for match, rates in self._models.get(PROVIDER_OF_KIND.get(kind, ""), ()):
            if matches(match, name):
                return rates or None
        return None


_Models = dict[str, list[tuple[dict[str, Any], Rates]]]


def _ours(raw: Mapping[str, Any], *, services: bool) -> tuple[str, _Models]:
    models = {
        name: [(entry["match"], _own_rates(entry, services=services)) for entry in provider["models"]]
        for name, provider in raw["providers"].items()
    }
    return str(raw["version"]), models


def _own_rates(entry: Mapping[str, Any], *, tiers: bool = True, services: bool = False) -> Rates:
    """The dearest of each rate; pico-USD per token are 1000 nano-USD per million."""
    found: Rates = {}
    for row in entry["rows"]:
        parts = [row, *(row.get("service", {}).values() if services else ())]
        for part in (*parts, *(tier for whole in parts for tier in whole.get("tiers", ()) if tiers)):
            for ours, word in RATES.items():
                if ours in part:
                    nanousd = -(-part[ours] // 1000) if ours == "per_request" else part[ours] * 1000
                    found[word] = max(found.get(word, 0), nanousd)
    return found


def _genai(raw: Any, *, services: bool) -> tuple[str, _Models]:
    providers = raw["providers"] if isinstance(raw, dict) else raw
    models = {
        provider["id"]: [
            (_lowered(model["match"]), _genai_rates(model, services=services)) for model in provider["models"]
        ]
        for provider in providers
    }
    return "", models


def _genai_rates(model: Mapping[str, Any], *, services: bool) -> Rates:
    found: Rates = {}
    for price in _flat(
        [{"prices": model.get("prices") or {}}, *((model.get("price_variants") or ()) if services else ())]
    ):
        for word, names in _GENAI.items():
            for name in names:
                for usd in _amounts(price.get(name)):
                    found[word] = max(found.get(word, 0), _nanousd(usd))
        for usd in _amounts(price.get("requests_kcount")):
            found["request"] = max(
                found.get("request", 0), int((usd * _MICRO).to_integral_value(rounding=ROUND_CEILING))
            )
    return found


def _flat(prices: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(prices, list):
        for each in prices:
            yield from _flat(each["prices"])
    else:
        yield prices


def _amounts(price: Any) -> Iterable[Decimal]:
    if price is None:
        return []
    if isinstance(price, Mapping):
        return [Decimal(str(price["base"])), *(Decimal(str(tier["price"])) for tier in price.get("tiers", ()))]
    return [Decimal(str(price))]


def _nanousd(usd: Decimal) -> int:
    return int((usd * _MICRO).to_integral_value(rounding=ROUND_CEILING)) * (_NANO // _MICRO)  # whole pico-USD per token


def _lowered(rule: Mapping[str, Any]) -> dict[str, Any]:
    ((kind, value),) = rule.items()
    if isinstance(value, list):
        return {kind: [_lowered(part) for part in value]}
    return {kind: value if kind == "regex" else str(value).lower()}
