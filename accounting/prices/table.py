"""Find a model's price: in the overrides first, then in the table that ships.

The table speaks of vendors' own endpoints only. Whoever configures another base URL under a vendor's kind passes no kind,
so that a private server is never billed at a vendor's price. A model that nobody prices has no price here, never zero.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Final

import msgspec

from accounting.prices.overrides import Overrides
from accounting.prices.price import RATE_NAMES, Price, Rates, Service, Tier

MODEL_CHARS_MAX: Final = 256
CACHED_MAX: Final = 1024
# The table's provider for each kind and preset; others have no public prices.
PROVIDER_OF_KIND: Final[Mapping[str, str]] = {
    "openai": "openai", "anthropic": "anthropic", "gemini": "google", "vertex": "google", "bedrock": "aws",
    "azure": "azure", "xai": "x-ai", "mistral": "mistral", "groq": "groq", "deepseek": "deepseek",
    "openrouter": "openrouter", "together": "together", "fireworks": "fireworks", "cerebras": "cerebras",
    "perplexity": "perplexity", "moonshotai": "moonshotai", "zai": "zai", "huggingface": "huggingface",
}  # fmt: skip
_COMPACT_DATE: Final = re.compile(r"-(20\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")

_Json = dict[str, Any]
_Rows = tuple[tuple[str, Price], ...]  # (first day, price), by rising day


class PriceBook:
    """The prices of one configuration. `overrides` are the file's `prices:`; `today` tells the day in UTC."""

    def __init__(
        self,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        self._overrides = Overrides(overrides or {})
        self._today = today
        self._found: dict[tuple[str | None, str, str], _Rows] = {}

    @property
    def version(self) -> str:
        """The date of the table that ships."""
        return table_version()

    def lookup(self, kind_or_preset: str | None, upstream_model: str, *, provider: str = "") -> Price | None:
        """Return the price of a model today, None when nobody names one.

        `provider` is the configured name, for overrides; a kind of None asks only those.
        """
        key = (kind_or_preset, upstream_model, provider)
        rows = self._found.get(key)
        if rows is None:
            rows = self._find(*key)
            if len(self._found) >= CACHED_MAX:  # model names may be a client's
                self._found.clear()
            self._found[key] = rows
        if not rows:
            return None
        return rows[0][1] if len(rows) == 1 else self._of_today(rows)

    def dearest(self, kind_or_preset: str | None) -> Price:
        """Return a price at or above that of every model of the vendor (of OpenAI, where the kind has none), rate by rate."""
        provider = PROVIDER_OF_KIND.get(kind_or_preset or "", "openai")
        return _dearest(provider if provider in _head()["providers"] else "openai")

    def _find(self, kind: str | None, model: str, provider: str) -> _Rows:
        override = self._overrides.lookup(provider, model[:MODEL_CHARS_MAX])
        if override is not None:
            return (("", override),)
        return _table_rows(kind, model) if kind else ()

    def _of_today(self, rows: _Rows) -> Price | None:
        today = self._today().isoformat()
        active = [price for day, price in rows if day <= today]
        return active[-1] if active else None


def table_version() -> str:
    """Return the day of the table that ships."""
    return str(_head()["version"])


def table_source() -> str:
    """Return where the table's numbers come from."""
    return str(_head()["source"])


def _table_rows(kind: str, model: str) -> _Rows:
    provider = PROVIDER_OF_KIND.get(kind)
    if provider is None or not model or len(model) > MODEL_CHARS_MAX:
        return ()
    name = model.lower()
    if provider == "huggingface":  # its router takes model:provider
        name, _, routed = name.rpartition(":")
        provider = f"huggingface_{routed}"
    for reference in _references(name):
        entry = _matched(provider, reference)
        if entry is not None:
            return _rows(entry)
    return ()


def _references(name: str) -> list[str]:
    """The name, then the other forms it may have in the table: without its path, with dashes in its date."""
    bare = name.rsplit("/", 1)[-1] if name.startswith(("publishers/", "projects/", "models/", "arn:")) else name
    dashed = _COMPACT_DATE.sub(r"-\1-\2-\3", bare)
    return list(dict.fromkeys((bare, dashed)))


def _matched(provider: str, name: str) -> _Json | None:
    raw = _head()["providers"]
    if provider not in raw:
        return None
    own = _provider(provider)
    for models in (own["models"], *(_provider(other)["models"] for other in own["fallback"] if other in raw)):
        for entry in models:
            if matches(entry["match"], name):
                return dict(entry)
    return None


def matches(rule: _Json, name: str) -> bool:
    """Tell whether a name in lower case satisfies a rule of the table."""
    ((kind, value),) = rule.items()
    if kind == "or":
        return any(matches(part, name) for part in value)
    if kind == "and":
        return all(matches(part, name) for part in value)
    if kind == "regex":
        return re.search(value, name) is not None
    return bool(_SIMPLE[kind](name, value))


_SIMPLE: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "equals": str.__eq__,
    "starts_with": str.startswith,
    "ends_with": str.endswith,
    "contains": str.__contains__,
}


def _rows(entry: _Json) -> _Rows:
    return tuple((row.get("from", ""), _price(row, entry.get("context"))) for row in entry["rows"])


def _price(row: _Json, context: int | None) -> Price:
    services = {name: _service(rates) for name, rates in row.get("service", {}).items()}
    return Price(
        plain=_service(row),
        services=MappingProxyType(services),
        per_request_pico=row.get("per_request", 0),
        context=context,
        version=table_version(),
    )


def _service(rates: _Json) -> Service:
    tiers = tuple(Tier(above=tier["above"], rates=_rates(tier)) for tier in rates.get("tiers", ()))
    return Service(rates=_rates(rates), tiers=tiers)


def _rates(source: _Json) -> Rates:
    return Rates(**{name: source[name] for name in RATE_NAMES if name in source})


@cache
def _dearest(provider: str) -> Price:
    priced = [_price(row, None) for entry in _provider(provider)["models"] for row in entry["rows"]]
    rates = [
        rates
        for price in priced
        for service in (price.plain, *price.services.values())
        for rates in service.up_to(_ANY)
    ]
    highest = {name: max(getattr(each, name) or 0 for each in rates) for name in RATE_NAMES}
    # What few models name (sound, pictures) must not fall below the rate that it would otherwise have.
    base_in, base_out = highest["input"], highest["output"]
    for name, rate in highest.items():
        highest[name] = max(rate, base_out if name in _OUTPUT_RATES else base_in)
    per_request = max(price.per_request_pico for price in priced)
    return Price(plain=Service(rates=Rates(**highest)), per_request_pico=per_request, version=table_version())


_ANY: Final = 1 << 62  # more input than any tier's threshold
_OUTPUT_RATES: Final = frozenset({"output", "reasoning", "audio_output", "image_output"})


@cache
def _head() -> _Json:
    """Read the file; what it says of each provider stays undecoded until that provider is asked for."""
    raw = resources.files(__package__).joinpath("table.json").read_bytes()
    head = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    told = {name: msgspec.json.decode(head[name], type=str) for name in ("version", "source")}
    return {**told, "providers": msgspec.json.decode(head["providers"], type=dict[str, msgspec.Raw])}


@cache
def _provider(name: str) -> _Json:
    decoded: _Json = msgspec.json.decode(_head()["providers"][name])
    return decoded
