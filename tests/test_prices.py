"""Prices: exact arithmetic, the table against the source it is compiled from, lookups by every vendor's way of naming."""

import datetime as dt
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounting.prices import table
from accounting.prices.ceilings import max_output
from accounting.prices.overrides import price_of
from accounting.prices.price import RATE_NAMES, Price, Rates, Service, Tier
from accounting.prices.table import CACHED_MAX, PROVIDER_OF_KIND, PriceBook, matches, table_source, table_version
from accounting.usage import Usage

ROOT = Path(__file__).resolve().parent.parent
TABLE = json.loads((ROOT / "accounting/prices/table.json").read_text())
BUILT = dt.date.fromisoformat(TABLE["version"])


def book(overrides=None, day=BUILT) -> PriceBook:
    return PriceBook(overrides, today=lambda: day)


SONNET = Price(
    plain=Service(
        rates=Rates(
            input=3_000_000, cached=300_000, cache_write=3_750_000, cache_write_1h=6_000_000, output=15_000_000
        ),
        tiers=(
            Tier(
                above=200_000,
                rates=Rates(
                    input=6_000_000, cached=600_000, cache_write=7_500_000, cache_write_1h=12_000_000, output=22_500_000
                ),
            ),
        ),
    )
)
SOUND = Price(
    plain=Service(
        rates=Rates(
            input=300_000, cached=30_000, audio_input=1_000_000, cached_audio=100_000, image_input=400_000,
            output=2_500_000, reasoning=3_500_000, audio_output=9_000_000,
        )
    ),
    per_request_pico=12_000_000_001,
)  # fmt: skip


def tiered_service(price: Price, **services: Service) -> Price:
    return Price(plain=price.plain, services=services, per_request_pico=price.per_request_pico)


FLEXIBLE = tiered_service(
    Price(plain=Service(rates=Rates(input=1_250_000, cached=125_000, output=10_000_000))),
    flex=Service(rates=Rates(input=625_000, cached=62_500, output=5_000_000)),
    priority=Service(rates=Rates(input=2_500_000, cached=250_000, output=20_000_000)),
)


@pytest.mark.parametrize(
    ("price", "usage", "nanousd"),
    [
        (SONNET, Usage(), 0),
        (SONNET, Usage(input=1000, output=500), 3_000_000 + 7_500_000),
        (SONNET, Usage(input=1000, cached=1000), 300_000),
        (SONNET, Usage(input=1000, cache_write=400, cache_write_1h=100), 1_500_000 + 1_500_000 + 600_000),
        (SONNET, Usage(input=200_000), 600_000_000),
        (SONNET, Usage(input=200_001, output=1), 1_200_006_000 + 22_500),  # the whole call at the tier's rate
        (SONNET, Usage(input=201_000, cached=200_500), 120_300_000 + 3_000_000),  # the threshold counts cached tokens
        (SOUND, Usage(), 12_000_001),  # per request, rounded up
        (SOUND, Usage(input=100, audio_input=40), 12_000_001 + 18_000 + 40_000),
        (SOUND, Usage(input=100, cached=100, audio_input=40), 12_000_001 + 3_000 + 40 * 70),
        (SOUND, Usage(input=100, image_input=50), 12_000_001 + 15_000 + 20_000),
        (SOUND, Usage(output=100, reasoning=60, audio_output=30), 12_000_001 + 210_000 + 270_000 + 25_000),
        (SONNET, Usage(output=100, reasoning=60), 1_500_000),  # reasoning without a rate of its own
        (FLEXIBLE, Usage(input=1000, output=10), 1_250_000 + 100_000),
        (FLEXIBLE, Usage(input=1000, output=10, service_tier="default"), 1_350_000),
        (FLEXIBLE, Usage(input=1000, output=10, service_tier="flex"), 675_000),
        (FLEXIBLE, Usage(input=1000, output=10, service_tier="priority"), 2_700_000),
        (FLEXIBLE, Usage(input=1000, output=10, service_tier="unheard of"), 2_700_000),
        (Price(plain=Service(rates=Rates(input=37_500))), Usage(input=1), 38),  # $0.0375 per million: 37.5 nano
        (Price(plain=Service(rates=Rates(input=37_500))), Usage(input=2), 75),
        (Price(plain=Service(rates=Rates(input=1, output=1))), Usage(input=1, output=1), 1),  # rounded once, not twice
        (Price(plain=Service(rates=Rates(output=2, image_output=30))), Usage(output=1000, reasoning=100), 28),
    ],
)
def test_a_call_costs_the_sum_of_its_parts(price, usage, nanousd):
    assert price.cost_nanousd(usage) == nanousd


COUNT = st.integers(0, 3_000_000)
ANY_INT = st.integers(-(2**70), 2**70)
RATE = st.none() | st.integers(0, 10**9)
RATES = st.builds(
    Rates,
    **{name: st.integers(0, 10**9) if name in {"input", "output"} else RATE for name in RATE_NAMES},
)
SERVICE = st.builds(
    lambda rates, tiers: Service(
        rates=rates, tiers=tuple(Tier(above=100_000 * n, rates=r) for n, r in enumerate(tiers, 1))
    ),
    RATES,
    st.lists(RATES, max_size=2),
)
PRICES = st.builds(
    lambda plain, services, fee: Price(plain=plain, services=services, per_request_pico=fee),
    SERVICE,
    st.dictionaries(st.sampled_from(["flex", "priority"]), SERVICE, max_size=2),
    st.integers(0, 10**12),
)
TIERS = st.sampled_from([None, "default", "flex", "priority", "mystery"])


@st.composite
def consistent_usage(draw) -> Usage:
    """Parts within their whole, and sound and pictures all uncached, as every vendor defines them."""
    cached, write, write_1h, audio, image, rest = (draw(COUNT) for _ in range(6))
    reasoning, audio_output, said = draw(COUNT), draw(COUNT), draw(COUNT)
    return Usage(
        input=cached + write + write_1h + audio + image + rest,
        cached=cached,
        cache_write=write,
        cache_write_1h=write_1h,
        audio_input=audio,
        image_input=image,
        output=reasoning + audio_output + said,
        reasoning=reasoning,
        audio_output=audio_output,
    )


def fraction_cost(price: Price, usage: Usage) -> Fraction:
    """The definition, in fractions of a nano-USD, for plain service."""
    rates = price.plain.rates
    for tier in price.plain.tiers:
        if usage.input > tier.above:
            rates = tier.rates

    def rate(*names: str) -> Fraction:
        return Fraction(next(value for name in names if (value := getattr(rates, name)) is not None), 1000)

    fresh = (
        usage.input - usage.cached - usage.cache_write - usage.cache_write_1h - usage.audio_input - usage.image_input
    )
    return (
        Fraction(price.per_request_pico, 1000)
        + fresh * rate("input")
        + usage.cached * rate("cached", "input")
        + usage.cache_write * rate("cache_write", "input")
        + usage.cache_write_1h * rate("cache_write_1h", "cache_write", "input")
        + usage.audio_input * rate("audio_input", "input")
        + usage.image_input * rate("image_input", "input")
        + usage.reasoning * rate("reasoning", "output")
        + usage.audio_output * rate("audio_output", "output")
        + (usage.output - usage.reasoning - usage.audio_output) * rate("image_output", "output")
    )


@given(price=PRICES, usage=consistent_usage())
def test_a_cost_is_exact_and_rounded_up_once(price, usage):
    assert 0 <= price.cost_nanousd(usage) - fraction_cost(price, usage) < 1


INT_FIELDS = [name for name in Usage.__slots__ if name not in {"service_tier", "estimated"}]


@given(price=PRICES, counts=st.fixed_dictionaries(dict.fromkeys(INT_FIELDS, ANY_INT)), tier=TIERS)
def test_no_usage_however_contradictory_has_a_negative_cost(price, counts, tier):
    assert price.cost_nanousd(Usage(**counts, service_tier=tier)) >= 0


@given(price=PRICES, usage=consistent_usage(), more=st.integers(1, 10_000))
def test_more_output_never_costs_less(price, usage, more):
    longer = Usage(
        **{name: getattr(usage, name) for name in INT_FIELDS if name != "output"}, output=usage.output + more
    )
    assert price.cost_nanousd(longer) >= price.cost_nanousd(usage)


@given(usage=consistent_usage(), more=st.integers(1, 300_000))
def test_more_input_never_costs_less_where_tiers_rise(usage, more):
    longer = Usage(**{name: getattr(usage, name) for name in INT_FIELDS if name != "input"}, input=usage.input + more)
    assert SONNET.cost_nanousd(longer) >= SONNET.cost_nanousd(usage)


@given(price=PRICES, usage=consistent_usage(), tier=TIERS)
def test_no_call_costs_more_than_its_worst(price, usage, tier):
    served = Usage(**{name: getattr(usage, name) for name in INT_FIELDS}, service_tier=tier)
    worst_input, worst_output = price.worst_nanousd(served.input, tier)
    assert price.cost_nanousd(served) <= worst_input + served.output * worst_output
    assert worst_input == price.per_request + price.worst_input_nanousd(served.input, tier)
    assert worst_output == price.worst_output_nanousd_per_token(served.input, tier)


def test_the_worst_of_a_call_knows_caches_tiers_and_the_service_that_was_asked_for():
    assert SONNET.worst_input_nanousd(1000) == 6_000_000  # all written to the hour's cache
    assert SONNET.worst_input_nanousd(200_001) == 200_001 * 12_000
    assert SONNET.worst_output_nanousd_per_token(200_000) == 15_000
    assert SONNET.worst_output_nanousd_per_token(200_001) == 22_500
    assert SOUND.worst_output_nanousd_per_token(0) == 9_000
    assert SOUND.per_request == 12_000_001
    assert FLEXIBLE.worst_output_nanousd_per_token(0) == FLEXIBLE.worst_output_nanousd_per_token(0, "flex") == 10_000
    assert FLEXIBLE.worst_output_nanousd_per_token(0, "priority") == 20_000
    assert FLEXIBLE.worst_output_nanousd_per_token(0, "unheard of") == 20_000
    assert SONNET.worst_input_nanousd(-5) == 0


# ---------------------------------------------------------------------------------------------------- the table


FLAGSHIPS = [
    ("openai", "gpt-4o"), ("openai", "gpt-4o-2024-05-13"), ("openai", "gpt-4o-mini"), ("openai", "gpt-4.1"),
    ("openai", "gpt-4.1-mini"), ("openai", "gpt-4.1-nano"), ("openai", "gpt-5"), ("openai", "gpt-5-mini"),
    ("openai", "gpt-5-nano"), ("openai", "gpt-5.4"), ("openai", "gpt-6-sol"), ("openai", "o3"), ("openai", "o4-mini"),
    ("openai", "gpt-3.5-turbo"), ("openai", "gpt-4-turbo"), ("openai", "gpt-audio"), ("openai", "text-embedding-3-small"),
    ("anthropic", "claude-sonnet-4-5-20250929"), ("anthropic", "claude-opus-4-1"), ("anthropic", "claude-haiku-4-5"),
    ("anthropic", "claude-opus-5"), ("anthropic", "claude-sonnet-4-6"), ("anthropic", "claude-3-5-haiku-20241022"),
    ("google", "gemini-2.5-pro"), ("google", "gemini-2.5-flash"), ("google", "gemini-2.0-flash"),
    ("google", "gemini-3-pro-preview"), ("google", "gemini-3.8-flash"), ("google", "gemini-flash-1.5-8b"),
    ("x-ai", "grok-4"), ("x-ai", "grok-4.3"), ("deepseek", "deepseek-reasoner"), ("mistral", "mistral-large-latest"),
    ("groq", "llama-3.3-70b-versatile"), ("perplexity", "sonar-pro"), ("azure", "gpt-4o"), ("together", "openai/gpt-oss-120b"),
    ("aws", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"), ("aws", "amazon.nova-pro-v1:0"),
    ("openrouter", "anthropic/claude-sonnet-4.5"), ("google", "claude-sonnet-4-5@20250929"),
]  # fmt: skip
KIND_OF_PROVIDER = {provider: kind for kind, provider in reversed(PROVIDER_OF_KIND.items())}
USAGES = [
    Usage(input=1000, output=500),
    Usage(input=300_000, cached=100_000, cache_write=1000, output=5000),
    Usage(input=200_000, output=1),
    Usage(input=200_001, output=1),
    Usage(input=272_001, cached=3, output=999),
    Usage(input=7, output=3),
]


@pytest.mark.parametrize(("provider", "model"), FLAGSHIPS)
def test_the_table_prices_flagships_as_its_source_does(provider, model):
    genai_prices = pytest.importorskip("genai_prices", reason="genai-prices is a build-time package")
    price = book().lookup(KIND_OF_PROVIDER[provider], model)
    # Noon, when no off-peak rate holds; the table keeps the dearest of the day.
    at = dt.datetime.combine(BUILT, dt.time(12), dt.UTC)
    for usage in USAGES:
        given_usage = genai_prices.Usage(
            input_tokens=usage.input,
            output_tokens=usage.output,
            cache_read_tokens=usage.cached,
            cache_write_tokens=usage.cache_write,
        )
        source = genai_prices.calc_price(given_usage, model, provider_id=provider, genai_request_timestamp=at)
        exact = Fraction(source.total_price) * 10**9
        assert 0 <= price.cost_nanousd(usage) - exact < 1, usage


def test_every_model_that_its_source_prices_costs_the_same_here_or_the_dearest_of_the_day():
    genai_prices = pytest.importorskip("genai_prices", reason="genai-prices is a build-time package")
    at = dt.datetime.combine(BUILT, dt.time(12), dt.UTC)
    prices, same, dearer = book(), 0, []
    for provider, kind in KIND_OF_PROVIDER.items():
        for entry in TABLE["providers"].get(provider, {"models": []})["models"]:
            price = prices.lookup(kind, entry["id"])
            try:
                usage = genai_prices.Usage(input_tokens=1_000_003, output_tokens=1001)
                source = genai_prices.calc_price(usage, entry["id"], provider_id=provider, genai_request_timestamp=at)
            except (LookupError, ValueError):
                continue
            if price is None:
                assert source.total_price == 0, entry["id"]
                continue
            over = price.cost_nanousd(Usage(input=1_000_003, output=1001)) - Fraction(source.total_price) * 10**9
            assert over >= 0, entry["id"]
            same += over < 1
            if over >= 1:
                dearer.append(entry["id"])
    assert same > 1200
    assert len(dearer) < 40, dearer  # off-peak rates, and models that answer in pictures


@pytest.mark.parametrize("tier", ["flex", "priority", "fast"])
@pytest.mark.parametrize("model", ["gpt-5", "gpt-5-mini", "gpt-5.4", "o3"])
def test_the_table_prices_service_tiers_as_its_source_does(model, tier):
    genai_prices = pytest.importorskip("genai_prices", reason="genai-prices is a build-time package")
    usage = genai_prices.Usage(input_tokens=1000, output_tokens=500, cache_read_tokens=100)
    source = genai_prices.calc_price(usage, model, provider_id="openai", price_context={"service_tier": tier})
    price = book().lookup("openai", model)
    assert (
        price.cost_nanousd(Usage(input=1000, output=500, cached=100, service_tier=tier)) == source.total_price * 10**9
    )


@pytest.mark.parametrize(
    ("kind", "model", "input_usd", "output_usd"),
    [
        ("openai", "gpt-4o", 2.5, 10),
        ("openai", "GPT-4o", 2.5, 10),
        ("openai", "gpt-5.2-20251211", 1.75, 14),
        ("azure", "gpt-4o-mini", 0.15, 0.6),
        ("bedrock", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", 3.3, 16.5),
        ("bedrock", "global.anthropic.claude-sonnet-4-5-20250929-v1:0", 3, 15),
        ("bedrock", "anthropic.claude-3-5-sonnet-20241022-v2:0", 3, 15),
        (
            "bedrock",
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            3.3,
            16.5,
        ),
        ("vertex", "publishers/anthropic/models/claude-sonnet-4-5@20250929", 3, 15),
        ("vertex", "publishers/google/models/gemini-2.5-flash", 0.3, 2.5),
        ("vertex", "projects/p/locations/l/publishers/google/models/gemini-2.5-flash", 0.3, 2.5),
        ("gemini", "models/gemini-2.5-pro", 1.25, 10),
        ("xai", "grok-4", 3, 15),
        ("openrouter", "anthropic/claude-sonnet-4.5", 3, 15),
    ],
)
def test_a_model_is_found_by_every_vendors_way_of_naming_it(kind, model, input_usd, output_usd):
    rates = book().lookup(kind, model).plain.rates
    assert (rates.input, rates.output) == (round(input_usd * 10**6), round(output_usd * 10**6))


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("azure", "my-deployment"),
        ("openai", "no-such-model"),
        ("openai", "omni-moderation-latest"),
        ("openai", "whisper-1"),
        ("ollama", "llama3"),
        ("vllm", "gpt-4o"),
        ("fake", "gpt-4o"),
        (None, "gpt-4o"),
        ("huggingface", "deepseek-ai/DeepSeek-R1"),
        ("huggingface", "x:nobody"),
        ("openai", ""),
        ("openai", "gpt-4o" * 100_000),
    ],
)
def test_what_nobody_prices_has_no_price_and_never_a_zero(kind, model):
    assert book().lookup(kind, model) is None


def test_sound_missing_in_the_source_is_priced():
    price = book().lookup("openai", "gpt-4o-audio-preview")
    assert price.cost_nanousd(Usage(input=1000, audio_input=1000)) == 40_000_000


def test_a_price_that_changes_later_holds_from_its_day():
    before, after = dt.date(2026, 12, 31), dt.date(2027, 1, 1)
    assert book(day=before).lookup("gemini", "gemini-3.6-flash").plain.rates.input == 750_000
    assert book(day=after).lookup("gemini", "gemini-3.6-flash").plain.rates.input == 1_500_000
    days = iter([before, after])
    turning = PriceBook(today=lambda: next(days))
    rates = [turning.lookup("gemini", "gemini-3.6-flash").plain.rates.input for _ in range(2)]
    assert rates == [750_000, 1_500_000]


def test_a_price_of_the_hour_is_the_dearest_of_the_day():
    assert book().lookup("deepseek", "deepseek-v4-pro").plain.rates.input == 1_320_000


def test_claudes_hour_long_cache_costs_twice_the_input_everywhere():
    for kind, model in [
        ("anthropic", "claude-opus-5"),
        ("bedrock", "us.anthropic.claude-sonnet-4-20250514-v1:0"),
        ("vertex", "claude-opus-5"),
    ]:
        rates = book().lookup(kind, model).plain.rates
        assert rates.cache_write_1h == 2 * rates.input


def test_the_dearest_price_of_a_vendor_is_above_all_of_its_models():
    for kind in ("openai", "anthropic", "xai"):
        dearest = book().dearest(kind)
        for entry in TABLE["providers"][PROVIDER_OF_KIND[kind]]["models"]:
            price = book().lookup(kind, entry["id"])
            for usage in USAGES if price else []:
                assert price.cost_nanousd(usage) <= dearest.cost_nanousd(usage)
    assert book().dearest("ollama") == book().dearest("openai") == book().dearest(None) == book().dearest("huggingface")


def test_the_table_holds_integers_of_pico_usd_and_known_fields_only():
    known = set(RATE_NAMES) | {"per_request", "tiers", "service", "from"}

    def check(rates: dict, allowed: set[str]) -> None:
        assert rates.keys() <= allowed
        for name, value in rates.items():
            if name == "tiers":
                assert [tier["above"] for tier in value] == sorted(tier["above"] for tier in value)
                for tier in value:
                    check(tier, set(RATE_NAMES) | {"above"})
            elif name == "service":
                for service in value.values():
                    check(service, known)
            elif name != "from":
                assert type(value) is int
                assert value >= 0

    rows = [row for provider in TABLE["providers"].values() for model in provider["models"] for row in model["rows"]]
    assert len(rows) > 1500
    for row in rows:
        check(row, known)


def test_the_table_tells_its_day_and_its_source():
    assert book().version == table_version() == TABLE["version"]
    assert "genai-prices" in table_source()
    assert book().lookup("openai", "gpt-4o").version == TABLE["version"]


@pytest.mark.parametrize(
    ("rule", "name", "found"),
    [
        ({"equals": "a"}, "a", True),
        ({"equals": "a"}, "ab", False),
        ({"starts_with": "a"}, "ab", True),
        ({"ends_with": "b"}, "ab", True),
        ({"contains": "b"}, "abc", True),
        ({"regex": r"^a\d$"}, "a1", True),
        ({"regex": r"^a\d$"}, "ab", False),
        ({"or": [{"equals": "a"}, {"equals": "b"}]}, "b", True),
        ({"and": [{"starts_with": "a"}, {"ends_with": "z"}]}, "abc", False),
        ({"and": [{"starts_with": "a"}, {"ends_with": "z"}]}, "az", True),
    ],
)
def test_rules_match_as_in_the_source(rule, name, found):
    assert matches(rule, name) is found


def test_names_made_up_by_clients_do_not_fill_the_memory():
    prices = book()
    for number in range(CACHED_MAX * 2 + 10):
        prices.lookup("xai", f"made-up-{number}")
    assert len(prices._found) <= CACHED_MAX


def test_importing_prices_reads_no_table_and_a_lookup_decodes_one_provider():
    code = (
        "import sys; from accounting.prices import table, ceilings\n"
        "assert table._head.cache_info().currsize == 0\n"
        "book = table.PriceBook({'local/*': {'input': 1}}); assert table._head.cache_info().currsize == 0\n"
        "assert book.lookup('openai', 'gpt-4o'); assert table._provider.cache_info().currsize == 1\n"
        "assert not {'asyncio', 'aiohttp', 'adapters', 'proxy', 'genai_prices', 'pydantic', 'tiktoken'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


# ---------------------------------------------------------------------------------------------------- overrides


OVERRIDES = {
    "local/*": {"input": 0.10, "output": 0.30, "cached_input": 0.05},
    "local/big-*": {"input": 1, "output": 2},
    "local/big-one": {"input": 7, "output": 8},
    "openai/gpt-4o": {"input": "0.0375", "output": 0},
    "fake/*": {"input": 1000, "output": 2000, "per_request": 0.01},
}


@pytest.mark.parametrize(
    ("provider", "kind", "model", "input_pico"),
    [
        ("local", None, "anything", 100_000),
        ("local", None, "big-two", 1_000_000),
        ("local", None, "big-one", 7_000_000),
        ("local", "openai", "gpt-4o", 100_000),
        ("openai", "openai", "gpt-4o", 37_500),
        ("openai", "openai", "gpt-4o-mini", 150_000),
        ("other", "openai", "gpt-4o", 2_500_000),
        ("local", None, "with/slash", 100_000),
        ("fake", "fake", "gpt-4o", 1_000_000_000),
    ],
)
def test_an_override_comes_first_and_the_most_exact_wins(provider, kind, model, input_pico):
    assert book(OVERRIDES).lookup(kind, model, provider=provider).plain.rates.input == input_pico


def test_an_override_is_exact_in_what_the_file_says():
    price = price_of("x", {"input": 0.1, "cached_input": 0.05, "output": 0.3, "per_request": 0.001})
    assert price.cost_nanousd(Usage(input=3, cached=1, output=1)) == 1_000_000 + 200 + 50 + 300
    assert price.version == "config"
    assert price_of("x", {"input": 1e-7}).plain.rates.input == 1  # below a pico-USD per token: rounded up, not to zero


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ({}, "USD per million"),
        (None, "USD per million"),
        ([1], "USD per million"),
        ({"inptu": 1}, "prices.a/b.inptu: no such rate"),
        ({"cached_input": 1}, "at least input, output or per_request"),
        ({"input": -1}, "prices.a/b.input: not a number between"),
        ({"input": True}, "not a number"),
        ({"input": "cheap"}, "not a number"),
        ({"input": None}, "not a number"),
        ({"input": float("nan")}, "not a number"),
        ({"input": float("inf")}, "not a number"),
        ({"output": 10**7}, "not a number between"),
    ],
)
def test_an_override_that_is_no_price_is_refused_by_name(rates, said):
    with pytest.raises(ValueError, match="prices.a/b") as refused:
        PriceBook({"a/b": rates})
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("model", "ceiling"),
    [
        ("gpt-4o", 16_384),
        ("gpt-4o-mini-2024-07-18", 16_384),
        ("gpt-4o-2024-05-13", 4096),
        ("gpt-4.1-mini", 32_768),
        ("gpt-5.4", 128_000),
        ("o3-mini", 100_000),
        ("o1-mini", 65_536),
        ("claude-sonnet-4-5-20250929", 64_000),
        ("claude-opus-4-6", 128_000),
        ("claude-opus-4-1", 32_000),
        ("claude-opus-5", 128_000),
        ("claude-3-haiku-20240307", 4096),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", 64_000),
        ("publishers/google/models/gemini-2.5-pro", 65_536),
        ("gemini-2.0-flash", 8192),
        ("no-such-model", None),
    ],
)
def test_a_models_output_ceiling_is_known(model, ceiling):
    assert max_output(model) == ceiling


def test_no_ceiling_rule_hides_a_more_special_one():
    rules = [start for start, _ in json.loads((ROOT / "accounting/prices/ceilings.json").read_text())["starts_with"]]
    for position, start in enumerate(rules):
        assert not any(start.startswith(earlier) for earlier in rules[:position]), start
    assert table.PROVIDER_OF_KIND.keys() >= {"openai", "anthropic", "gemini", "vertex", "bedrock", "azure", "xai"}
