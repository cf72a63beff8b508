"""The price of one model, and what a call or a hold costs by it, in whole nano-USD rounded up.

Rates are integers of pico-USD per token, so no price is rounded before the sum is; the one rounding is up and comes last.
A rate that a vendor does not name is the next more general one (cached -> input). Nothing is ever negative, whatever
numbers a provider sends: parts that exceed their whole raise the whole.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Final

from accounting.usage import Usage

PICO_PER_NANO: Final = 1000
# What providers call the service that costs the plain price. `scale` is paid for beforehand.
PLAIN_SERVICE: Final = frozenset({"", "default", "auto", "standard", "standard_only", "scale", "on_demand"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Pico-USD per token; None is not named by the vendor."""

    input: int = 0
    cached: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    audio_input: int | None = None
    cached_audio: int | None = None
    image_input: int | None = None
    video_input: int | None = None
    output: int = 0
    reasoning: int | None = None
    audio_output: int | None = None
    image_output: int | None = None  # of models that answer in pictures: all output that is neither reasoning nor sound
    dearest_input: int = field(init=False)  # worked out once: a reservation asks for them at every call
    dearest_output_nanousd: int = field(init=False)

    def __post_init__(self) -> None:
        named = (self.cached, self.cache_write, self.cache_write_1h, self.audio_input, self.cached_audio)
        dearest_input = max(self.input, *(rate or 0 for rate in (*named, self.image_input, self.video_input)))
        object.__setattr__(self, "dearest_input", dearest_input)
        dearest_output = max(self.output, self.reasoning or 0, self.audio_output or 0, self.image_output or 0)
        object.__setattr__(self, "dearest_output_nanousd", _nanousd(dearest_output))


RATE_NAMES: Final = tuple(each.name for each in fields(Rates) if each.init)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Rates of the whole call once its input is more than `above` tokens."""

    above: int
    rates: Rates


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The rates of one class of service, and its tiers by rising threshold."""

    rates: Rates
    tiers: tuple[Tier, ...] = ()

    def for_input(self, input_tokens: int) -> Rates:
        """Return the rates of a call with so much input."""
        for tier in reversed(self.tiers):
            if input_tokens > tier.above:
                return tier.rates
        return self.rates

    def up_to(self, input_tokens: int) -> Iterable[Rates]:
        """Yield the rates of every call with at most so much input."""
        yield self.rates
        yield from (tier.rates for tier in self.tiers if input_tokens > tier.above)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model costs. `services` are those that cost other than plain (flex, priority, fast)."""

    plain: Service
    services: Mapping[str, Service] = field(default_factory=lambda: MappingProxyType({}))
    per_request_pico: int = 0
    context: int | None = None  # tokens of input the model takes at most, where known
    version: str = ""  # of the table or configuration it comes from; kept in every record

    per_request: int = field(init=False)  # nano-USD of a call before its first token
    _flat: Rates | None = field(
        init=False, repr=False, compare=False
    )  # of a plain call, where its size does not matter

    def __post_init__(self) -> None:
        object.__setattr__(self, "per_request", _nanousd(self.per_request_pico))
        object.__setattr__(self, "_flat", None if self.plain.tiers else self.plain.rates)

    def cost_nanousd(self, usage: Usage) -> int:
        """Return what the call cost, with an error of at least 0 and less than 1. No call has a negative cost.

        A service class that is not known here costs as the dearest known of the model.
        """
        tier = usage.service_tier
        if tier is None or tier in PLAIN_SERVICE:
            pico = _pico(usage, self.plain)
        else:
            pico = max(_pico(usage, service) for service in self._served(tier))
        return _nanousd(self.per_request_pico + pico)

    def worst_input_nanousd(self, input_tokens: int, service_tier: str | None = None) -> int:
        """Return the most that so many input tokens can cost: none of them cached, or all written to the dearest cache.

        `service_tier` is what the request asks for. `per_request` is not in it.
        """
        tokens = max(0, input_tokens)
        return _nanousd(tokens * max(rates.dearest_input for rates in self._possible(tokens, service_tier)))

    def worst_output_nanousd_per_token(self, input_tokens: int, service_tier: str | None = None) -> int:
        """Return the most that one output token can cost after so much input, reasoning and sound included.

        It is rounded up, so a hold made of it may exceed the cost by less than a nano-USD per token.
        """
        return max(rates.dearest_output_nanousd for rates in self._possible(max(0, input_tokens), service_tier))

    def worst_nanousd(self, input_tokens: int, service_tier: str | None = None) -> tuple[int, int]:
        """Return the most that the call and so much input can cost, and the most that one output token can after it."""
        if service_tier is None and self._flat is not None:  # as most are
            worst_input = _nanousd(max(0, input_tokens) * self._flat.dearest_input)
            return self.per_request + worst_input, self._flat.dearest_output_nanousd
        worst_input = self.worst_input_nanousd(input_tokens, service_tier)
        return self.per_request + worst_input, self.worst_output_nanousd_per_token(input_tokens, service_tier)

    def _served(self, service_tier: str | None) -> Iterable[Service]:
        if not service_tier or service_tier in PLAIN_SERVICE:
            return (self.plain,)
        service = self.services.get(service_tier)
        return (service,) if service else (self.plain, *self.services.values())

    def _possible(self, input_tokens: int, service_tier: str | None) -> Iterable[Rates]:
        # A request for another class may be served plainly, hence plain is always possible.
        for service in (self.plain, *self._served(service_tier)):
            yield from service.up_to(input_tokens)


def _nanousd(pico: int) -> int:
    return -(-pico // PICO_PER_NANO)


def _pico(usage: Usage, service: Service) -> int:
    special = usage.cached or usage.cache_write or usage.cache_write_1h or usage.audio_input or usage.image_input
    if not (special or usage.reasoning or usage.audio_output) and usage.input >= 0 <= usage.output:  # as most are
        rates = service.for_input(usage.input)
        return usage.input * rates.input + usage.output * _first(rates.image_output, rates.output)
    cached, written, written_1h = max(0, usage.cached), max(0, usage.cache_write), max(0, usage.cache_write_1h)
    audio, image = max(0, usage.audio_input), max(0, usage.image_input)
    total = max(usage.input, cached + written + written_1h, audio + image)
    rates = service.for_input(total)
    cached_rate = _first(rates.cached, rates.input)
    write_rate = _first(rates.cache_write, rates.input)
    pico = cached * cached_rate + written * write_rate + written_1h * _first(rates.cache_write_1h, write_rate)
    # Nobody says how much of the sound was cached: it is taken to be the uncached part as far as that goes.
    fresh = total - cached - written - written_1h
    fresh_audio = min(audio, fresh)
    fresh_image = min(image, fresh - fresh_audio)
    pico += fresh_audio * _first(rates.audio_input, rates.input)
    pico += fresh_image * _first(rates.image_input, rates.input)
    pico += (fresh - fresh_audio - fresh_image) * rates.input
    if rates.cached_audio is not None:
        pico += min(audio - fresh_audio, cached) * max(0, rates.cached_audio - cached_rate)
    return pico + _output_pico(usage, rates)


def _output_pico(usage: Usage, rates: Rates) -> int:
    reasoning, audio = max(0, usage.reasoning), max(0, usage.audio_output)
    rest = max(usage.output, reasoning + audio) - reasoning - audio
    return (
        reasoning * _first(rates.reasoning, rates.output)
        + audio * _first(rates.audio_output, rates.output)
        + rest * _first(rates.image_output, rates.output)
    )


def _first(rate: int | None, general: int) -> int:
    return general if rate is None else rate
