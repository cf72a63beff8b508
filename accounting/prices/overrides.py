"""Prices from the configuration: USD per million tokens, by provider name and upstream model.

They come before the table that ships. An exact name wins over a pattern, a longer pattern over a shorter one.
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Any, Final

from accounting.prices.price import Price, Rates, Service

# The configuration's word for each rate: USD per million tokens.
FIELDS: Final[Mapping[str, str]] = {
    "input": "input",
    "cached_input": "cached",
    "cache_write": "cache_write",
    "cache_write_1h": "cache_write_1h",
    "audio_input": "audio_input",
    "cached_audio": "cached_audio",
    "image_input": "image_input",
    "output": "output",
    "reasoning": "reasoning",
    "audio_output": "audio_output",
    "image_output": "image_output",
}
PER_REQUEST: Final = "per_request"  # USD per call
VERSION: Final = "config"
_USD_MAX: Final = Decimal(1_000_000)  # per million tokens: a dollar per token is a mistake


class Overrides:
    """All overrides of one configuration. Raises ValueError, naming the key, when one is not a price."""

    def __init__(self, prices: Mapping[str, Any]) -> None:
        self._exact = {key: price_of(key, rates) for key, rates in prices.items() if not _is_pattern(key)}
        patterns = sorted((key for key in prices if _is_pattern(key)), key=lambda key: (-len(key), key))
        self._patterns = [(key, price_of(key, prices[key])) for key in patterns]

    def lookup(self, provider: str, upstream_model: str) -> Price | None:
        """Return the price set for that model of that configured provider, None when none is."""
        name = f"{provider}/{upstream_model}"
        exact = self._exact.get(name)
        if exact is not None:
            return exact
        return next((price for pattern, price in self._patterns if fnmatchcase(name, pattern)), None)


def price_of(key: str, rates: Any) -> Price:
    """Make a price of {rate: USD per million tokens}; at least one of input, output, per_request. Raises ValueError."""
    if not isinstance(rates, Mapping) or not rates:
        raise ValueError(f"prices.{key}: give rates in USD per million tokens, such as {{input: 0.10, output: 0.30}}")
    unknown = [name for name in rates if name not in FIELDS and name != PER_REQUEST]
    if unknown:
        raise ValueError(f"prices.{key}.{unknown[0]}: no such rate; known are {', '.join((*FIELDS, PER_REQUEST))}")
    if not {"input", "output", PER_REQUEST} & rates.keys():
        raise ValueError(f"prices.{key}: give at least input, output or per_request")
    picos = {field: _pico(f"prices.{key}.{name}", rates[name], 6) for name, field in FIELDS.items() if name in rates}
    per_request = _pico(f"prices.{key}.{PER_REQUEST}", rates[PER_REQUEST], 12) if PER_REQUEST in rates else 0
    return Price(plain=Service(rates=Rates(**picos)), per_request_pico=per_request, version=VERSION)


def _pico(where: str, value: Any, exponent: int) -> int:
    """Scale by 10**exponent and round up; a float counts as what is written in the file."""
    try:
        usd = Decimal("nan" if isinstance(value, bool) else str(value))
    except InvalidOperation:
        raise ValueError(f"{where}: not a number") from None
    if not usd.is_finite() or not 0 <= usd <= _USD_MAX:
        raise ValueError(f"{where}: not a number between 0 and {_USD_MAX}")
    scaled = usd.scaleb(exponent)
    whole = int(scaled)
    return whole + (whole < scaled)


def _is_pattern(key: str) -> bool:
    return any(mark in key for mark in "*?[")
