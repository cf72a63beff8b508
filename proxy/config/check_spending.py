"""What must be true of budgets, limits, prices and relayed paths: a unit, no twin, and subjects that can occur."""

from collections.abc import Iterator

import msgspec

from adapters.vendors import bills_after_cancel
from proxy.config.model import Config, Passthrough
from proxy.config.policy import AMOUNT_UNITS, Budget, Price
from proxy.config.problem import Finding, Path, nameable, nearest
from proxy.config.providers import kind_of

PRICE_NANOUSD_MAX = 10**15
_ATTRIBUTES = {"usd": "nanousd"}


def check_spending(config: Config) -> Iterator[Finding]:
    """Give what is wrong with budgets, limits, prices and passthrough."""
    seen: dict[tuple[str, str, str], int] = {}
    for index, budget in enumerate(config.budgets):
        yield from _budget(config, budget, ("budgets", index))
        for unit in units_of(budget):
            first = seen.setdefault((budget.subject, unit, budget.period), index)
            if first != index:
                message = f"budgets[{first}] has the same subject, unit and period; remove one"
                yield Finding(path=("budgets", index, unit), message=message)
    yield from _limits(config)
    for name, price in config.prices.items():
        yield from _provider_part(config, name, ("prices", name))
        yield from _too_dear(price, ("prices", name))
    yield from _passthrough(config)


def units_of(budget: Budget) -> list[str]:
    """Return the units that the budget is in, by their names in the file."""
    return [unit for unit in AMOUNT_UNITS if getattr(budget, _ATTRIBUTES.get(unit, unit)) is not None]


def _budget(config: Config, budget: Budget, path: Path) -> Iterator[Finding]:
    if not units_of(budget):
        yield Finding(path=path, message=f"needs an amount: {', '.join(AMOUNT_UNITS)}")
    if budget.period == "cycle" and budget.starts is None:
        yield Finding(path=path, message="needs starts, the first day of its cycle, such as starts: 2026-11-05")
    if budget.period != "cycle" and budget.starts is not None:
        yield Finding(path=(*path, "starts"), message="means something with period: cycle only; remove it")
    if 0 in budget.soft or len(set(budget.soft)) != len(budget.soft):
        yield Finding(path=(*path, "soft"), message="wants different fractions above 0, such as [0.8, 0.95]")
    if budget.hold == "slice" and budget.mode == "hard":
        yield from _slices(config, budget, path)
    yield from _subject(config, budget.subject, (*path, "subject"))


def _slices(config: Config, budget: Budget, path: Path) -> Iterator[Finding]:
    kind, _, value = budget.subject.partition(":")
    for name, provider in config.providers.items():
        concerned = kind != "provider" or value in {"*", name}
        if concerned and bills_after_cancel(kind_of(provider), provider.preset):
            message = (
                f"slice cannot bound a hard budget: {nameable(name)} bills a cancelled stream to its end; use clamp"
            )
            yield Finding(path=(*path, "hold"), message=message)
            return


def _subject(config: Config, subject: str, path: Path) -> Iterator[Finding]:
    kind, _, value = subject.partition(":")
    if kind == "tenant" and value not in {"*", config.tenant}:
        yield Finding(path=path, message=f"never occurs here: this tenant is {nameable(config.tenant)}")
    if kind == "provider" and value != "*" and value not in config.providers:
        yield Finding(path=path, message=_unknown_provider(config, value))


def _limits(config: Config) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, limit in enumerate(config.limits):
        path: Path = ("limits", index)
        if limit.rpm is None and limit.tpm is None and limit.concurrency is None:
            yield Finding(path=path, message="needs rpm, tpm or concurrency")
        if limit.subject in seen:
            yield Finding(path=(*path, "subject"), message="has a limit above; put all into one")
        seen.add(limit.subject)
        yield from _subject(config, limit.subject, (*path, "subject"))


def _provider_part(config: Config, name: str, path: Path) -> Iterator[Finding]:
    provider, slash, model = name.partition("/")
    if not (provider and slash and model):
        yield Finding(path=path, message="wants provider/model as its key, such as local/*")
    elif provider != "*" and provider not in config.providers:
        yield Finding(path=path, message=_unknown_provider(config, provider))


def _too_dear(price: Price, path: Path) -> Iterator[Finding]:
    for field in msgspec.structs.fields(Price):
        value = getattr(price, field.name)
        if field.name.endswith("_nanousd") and value is not None and value > PRICE_NANOUSD_MAX:
            message = "is more than 1000000 USD; prices are per million tokens"
            yield Finding(path=(*path, field.encode_name), message=message)


def _passthrough(config: Config) -> Iterator[Finding]:
    for index, entry in enumerate(config.passthrough):
        path: Path = ("passthrough", index)
        provider = entry.provider if isinstance(entry, Passthrough) else None
        if provider is not None and provider not in config.providers:
            yield Finding(path=(*path, "provider"), message=_unknown_provider(config, provider))
        if provider is None and len(config.providers) > 1:
            message = "needs its provider, since there are several: {path: /v1/moderations, provider: openai}"
            yield Finding(path=path, message=message)


def _unknown_provider(config: Config, name: str) -> str:
    near = nearest(name, config.providers)
    hint = f"nearest: {near}" if near else f"configured: {', '.join(config.providers) or 'none'}"
    return f"provider {nameable(name)} is not configured; {hint}"
