"""From a configuration, and what is stored, to the objects that calls meet: providers, and the rules."""

from collections.abc import Callable, Iterable

from msgspec.structs import asdict

from accounting.budgets import Budget, BudgetBook, Caller
from accounting.periods import Period
from accounting.prices.table import PriceBook
from accounting.stored import Stored, StoredKey
from adapters.base import Endpoint
from adapters.credentials.base import Credentials
from adapters.presets import PRESETS
from adapters.quirks import is_openai
from adapters.registry import make_adapter
from adapters.transport.base import Timeouts, Transport
from adapters.transport.options import TransportOptions
from adapters.vendors import price_list_of, vendor_url
from proxy.admission import Admitter
from proxy.amounts import usd_text
from proxy.auth import Gate
from proxy.config import policy
from proxy.config.model import FIRST_TOKEN_S, Config
from proxy.config.providers import Provider, kind_of
from proxy.keyring import Keyring, KeyRow, plain_digest
from proxy.latency import Latencies
from proxy.limits import LimitBook
from proxy.paths import Paths
from proxy.principal import Principal
from proxy.routing import Router, limits_of
from proxy.rules import Rules
from proxy.upstreams import Upstream, Upstreams

_OPTIONS = ("api_version", "project", "location", "region")

MakeTransport = Callable[[TransportOptions], Transport]
MakeCredentials = Callable[[Endpoint, Provider], "list[Credentials]"]


def endpoint_of(name: str, provider: Provider) -> Endpoint:
    """Return what a translator needs to know of a configured provider."""
    kind = kind_of(provider)
    preset = PRESETS.get(provider.preset or "")
    options = {option: value for option in _OPTIONS if (value := getattr(provider, option)) is not None}
    if kind == "azure":
        options["deployments"] = dict(provider.deployments)
    vendor = preset.base_url if preset else vendor_url(kind, location=provider.location, region=provider.region)
    base_url = provider.base_url or vendor
    own = provider.base_url is None and preset is None
    repair = provider.repair == "auto" if provider.repair is not None else not (own or is_openai(base_url))
    return Endpoint(
        name=name, kind=kind, base_url=base_url.rstrip("/"), preset=provider.preset, repair=repair,
        quirks=dict(provider.quirks), options=options,
    )  # fmt: skip


def price_list(provider: Provider) -> str | None:
    """Return whose prices apply to a configured provider."""
    return price_list_of(kind_of(provider), provider.preset, provider.base_url)


def build_upstreams(config: Config, make_transport: MakeTransport, make_credentials: MakeCredentials) -> Upstreams:
    """Return the configured providers; those with equal network settings share one transport and its pool."""
    shared: dict[TransportOptions, Transport] = {}
    upstreams: dict[str, Upstream] = {}
    for name, provider in config.providers.items():
        endpoint = endpoint_of(name, provider)
        options = TransportOptions(ca_file=provider.ca_file, proxy=provider.proxy.reveal() if provider.proxy else None)
        if options not in shared:
            shared[options] = make_transport(options)
        upstreams[name] = Upstream(
            endpoint=endpoint, adapter=make_adapter(endpoint), transport=shared[options], timeouts=_timeouts(config, provider),
            credentials=make_credentials(endpoint, provider), price_list=price_list(provider), headers=_headers(provider),
            patient=provider.timeouts.first_token_s is None and config.timeouts.first_token_s == FIRST_TOKEN_S,
            write_stall_s=provider.timeouts.write_stall_s,
        )  # fmt: skip
    return upstreams


def build_rules(
    config: Config,
    stored: Stored | None,
    upstreams: Upstreams,
    prices: PriceBook,
    latencies: Latencies | None = None,
) -> Rules:
    """Return the rules that follow from the file and from what is stored; stored keys and budgets win."""
    keys = [_file_row(key, config.tenant) for key in config.keys]
    if stored is not None:
        replaced = {key.of for key in stored.keys}
        keys = [row for row in keys if row.principal.caller.key not in replaced]
        keys += [_stored_row(key, config.tenant) for key in stored.keys if key.revoked_ms is None]
    keyring = Keyring(keys, stored.pepper if stored else b"")
    book = BudgetBook(file_budgets(config.budgets), stored.budgets if stored else ())
    return Rules(
        gate=Gate(keyring, tenant=config.tenant, open_to_all=config.auth.mode == "none"),
        router=Router(config.models, upstreams, latencies=latencies),
        admitter=Admitter(book, LimitBook(config.limits), prices, config.admission, output_ceilings(config)),
        paths=Paths(config, upstreams),
        version=stored.version if stored else "0",
    )


def build_prices(config: Config) -> PriceBook:
    """Return the price book with the file's own prices before the table."""
    names = {"request": "per_request"}
    rates = {
        key: {
            names.get(field.removesuffix("_nanousd"), field.removesuffix("_nanousd")): usd_text(value)
            for field, value in asdict(price).items()
            if field.endswith("_nanousd") and value is not None
        }
        for key, price in config.prices.items()
    }
    return PriceBook(rates)


def output_ceilings(config: Config) -> dict[str, int]:
    """Return the output ceilings that the file's prices name, by provider/model pattern, the longest pattern first."""
    named = {key: price.max_output for key, price in config.prices.items() if price.max_output is not None}
    return dict(sorted(named.items(), key=lambda item: ("*" in item[0], -len(item[0]))))


def file_budgets(budgets: Iterable[policy.Budget]) -> list[Budget]:
    """Return one ledger budget for each unit of each configured one."""
    found = []
    for budget in budgets:
        period = Period(kind=budget.period, tz=budget.tz, starts=budget.starts)
        limits = {
            "usd": budget.nanousd, "tokens": budget.tokens, "input_tokens": budget.input_tokens,
            "output_tokens": budget.output_tokens, "requests": budget.requests,
        }  # fmt: skip
        found += [
            Budget(
                subject=budget.subject, unit=unit, limit=limit, period=period, mode=budget.mode, hold=budget.hold,  # type: ignore[arg-type]  # a key of the dict above
                outage=budget.outage, soft=budget.soft, version=budget.version,
            )
            for unit, limit in limits.items() if limit is not None
        ]  # fmt: skip
    return found


def _headers(provider: Provider) -> tuple[tuple[str, str], ...]:
    headers = {name.lower(): value.reveal() for name, value in provider.headers.items()}
    if provider.organization is not None:
        headers["openai-organization"] = provider.organization
    if provider.project is not None and kind_of(provider) == "openai":
        headers["openai-project"] = provider.project
    return tuple(headers.items())


def _timeouts(config: Config, provider: Provider) -> Timeouts:
    general = config.timeouts
    ours = Timeouts(
        connect=general.connect_s, tls=general.tls_s, first_token=general.first_token_s, idle=general.idle_s,
        total=general.total_s,
    )  # fmt: skip
    return limits_of(provider.timeouts, ours)


def _file_row(key: policy.Key, tenant: str) -> KeyRow:
    digest = key.secret_sha256 or plain_digest(key.secret.reveal().encode() if key.secret else b"")
    caller = Caller(tenant=tenant, key=key.id, user=key.user, team=key.team, org=key.org, tags=key.tags)
    principal = Principal(caller=caller, models=key.models, passthrough=key.passthrough, user_from=key.user_from)
    return KeyRow(digest=digest, peppered=False, principal=principal)


def _stored_row(key: StoredKey, tenant: str) -> KeyRow:
    caller = Caller(tenant=tenant, key=key.of, user=key.user, team=key.team, org=key.org, tags=key.tags)
    principal = Principal(caller=caller, models=key.models, user_from=key.user_from, expires_ms=key.expires_ms)
    return KeyRow(digest=key.digest, peppered=True, principal=principal)
