"""The whole configuration as frozen structs: what `load` returns and everything else is built from.

Names in the file are the encoded ones; an attribute with a unit says it last (`timeouts.connect` is
`config.timeouts.connect_s`). The structs hold what was written; what must be true between them is `check`'s.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from adapters.credentials.base import Secret
from proxy.config.leaves import (
    Count,
    EntryPoint,
    Hidden,
    Identifier,
    Listen,
    Name,
    Nanousd,
    Positive,
    Route,
    Seconds,
    SecondsOrZero,
    Share,
    SizeBytes,
    Store,
    StoreURL,
)
from proxy.config.policy import Admission, Budget, Key, Limit, Price
from proxy.config.providers import Provider, ProviderTimeouts


class Ops(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The listener for operators: metrics, probes, admin, UI."""

    listen: Annotated[Listen, Meta(description="Host and port.")] = "127.0.0.1:9090"
    admin_token: Annotated[
        Hidden, Meta(description="Bearer token of /admin and /ui, at least 16 characters; empty: both are off.")
    ] = field(default_factory=lambda: Secret(""))


class StoreConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where budgets are kept."""

    url: Annotated[
        Store,
        Meta(description="embedded, redis://, rediss://, unix://, redis+cluster:// or redis+sentinel://."),
    ] = field(default_factory=lambda: StoreURL("embedded"))
    data_dir: Annotated[Name, Meta(description="Folder of the journal and of the embedded server.")] = ".bursar"
    prefix: Annotated[Identifier, Meta(description="First part of every key in the store.")] = "bursar"
    deadline_ms: Annotated[Positive, Meta(description="Milliseconds for the whole of an admission.")] = 250


class Auth(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How callers are known."""

    mode: Annotated[
        Literal["keys", "none"], Meta(description="keys, or none: everyone is user:default, on loopback only.")
    ] = "keys"


class Target(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One place where a model can be had."""

    to: Annotated[Name, Meta(description="provider/model; only the first / splits.")]
    weight: Annotated[Positive, Meta(description="Its share among the targets.")] = 1


class Spread(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Several places where a model can be had, and how one is chosen; the others are tried after it."""

    targets: Annotated[tuple[Target, ...], Meta(description="The places.")]
    balance: Annotated[
        Literal["ordered", "weighted", "least_latency"],
        Meta(description="ordered tries them as listed, weighted by chance, least_latency the fastest to begin first."),
    ] = "ordered"
    sticky: Annotated[
        Literal["key", "user"] | None, Meta(description="Calls of one key or user go to the same target.")
    ] = None
    timeouts: Annotated[ProviderTimeouts, Meta(description="Time limits that differ for this model.")] = field(
        default_factory=ProviderTimeouts
    )


FIRST_TOKEN_S = 120.0
ModelEntry = Name | tuple[Name, ...] | Spread


class Timeouts(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long anything may take, in seconds."""

    connect_s: Annotated[Seconds, Meta(description="Seconds to open a TCP connection.")] = field(
        name="connect", default=3.0
    )
    tls_s: Annotated[Seconds, Meta(description="Seconds for the TLS handshake.")] = field(name="tls", default=5.0)
    first_token_s: Annotated[
        Seconds,
        Meta(description="Seconds until the first byte; left at 120, models that think and whole answers get 600."),
    ] = field(name="first_token", default=FIRST_TOKEN_S)
    idle_s: Annotated[Seconds, Meta(description="Seconds between two pieces of an answer.")] = field(
        name="idle", default=60.0
    )
    total_s: Annotated[Seconds, Meta(description="Seconds for the whole of one attempt.")] = field(
        name="total", default=1200.0
    )
    write_stall_s: Annotated[Seconds, Meta(description="Seconds that a client may refuse to read.")] = field(
        name="write_stall", default=60.0
    )


class Retries(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often a call that failed before its first byte is tried again."""

    attempts: Annotated[Positive, Meta(description="Attempts in all, the first included.")] = 2
    budget: Annotated[Share, Meta(description="Retries as a share of all calls, at most.")] = 0.1


class Server(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Bounds of the data listener."""

    max_body_bytes: Annotated[SizeBytes, Meta(description="Largest request body, such as 32MiB.")] = field(
        name="max_body", default=32 * 2**20
    )
    max_connections: Annotated[Positive, Meta(description="Connections at once.")] = 1000
    max_in_flight: Annotated[Positive, Meta(description="Calls at once.")] = 256
    queue: Annotated[Count, Meta(description="Calls that may wait for a place.")] = 64
    queue_seconds: Annotated[Seconds, Meta(description="Seconds that a call may wait for a place.")] = 2.0
    header_seconds: Annotated[Seconds, Meta(description="Seconds for a request's head to arrive.")] = 10.0
    body_seconds: Annotated[Seconds, Meta(description="Seconds for a request's body to arrive.")] = 30.0
    drain_seconds: Annotated[Seconds, Meta(description="Seconds that calls in flight get at shutdown.")] = 600.0
    keepalive_comment_s: Annotated[
        SecondsOrZero, Meta(description="Seconds of silence after which a stream gets an SSE comment; 0: never.")
    ] = field(name="keepalive_comment", default=15.0)


class Cache(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Answers kept for equal requests of the same caller."""

    mode: Annotated[Literal["off", "exact"], Meta(description="off, or exact: equal requests only.")] = "off"
    seconds: Annotated[Seconds, Meta(description="Seconds that an answer is kept.")] = 300.0


class Passthrough(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A /v1 path that is relayed as it is, to one provider and at a fixed price."""

    path: Annotated[Route, Meta(description="The path, such as /v1/moderations.")]
    provider: Annotated[Name | None, Meta(description="The provider that serves it; not given: the only one.")] = None
    nanousd: Annotated[
        Nanousd | None, Meta(description="USD that each call costs; without it, not on a hard cost budget.")
    ] = field(name="usd", default=None)


class Alerts(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Whom to tell when a budget reaches one of its soft fractions."""

    webhook: Annotated[Hidden | None, Meta(description="URL that gets a POST.")] = None
    secret: Annotated[Hidden | None, Meta(description="Key of the HMAC-SHA256 that signs each POST.")] = None


class Log(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is written to standard error."""

    level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="The least that is written.")] = (
        "info"
    )
    format: Annotated[Literal["text", "json"], Meta(description="text for people, json for machines.")] = "text"


class Config(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Configuration of Bursar. `${VAR}` and `${VAR:-default}` expand in every value; `$$` is a dollar sign."""

    listen: Annotated[Listen, Meta(description="Host and port of the data listener.")] = "127.0.0.1:8080"
    ops: Annotated[Ops, Meta(description="The listener for operators.")] = field(default_factory=Ops)
    tenant: Annotated[Identifier, Meta(description="All budgets of one tenant share a hash slot.")] = "default"
    store: Annotated[StoreConfig, Meta(description="Where budgets are kept.")] = field(default_factory=StoreConfig)
    auth: Annotated[Auth, Meta(description="How callers are known.")] = field(default_factory=Auth)
    providers: Annotated[dict[str, Provider], Meta(description="Providers by a name of your choice.")] = field(
        default_factory=dict
    )
    models: Annotated[
        dict[str, ModelEntry],
        Meta(description="Where a name that a client sends leads: provider/model, a list tried in order, or a spread."),
    ] = field(default_factory=dict)
    keys: Annotated[tuple[Key, ...], Meta(description="Keys that clients send.")] = ()
    budgets: Annotated[tuple[Budget, ...], Meta(description="What may be spent.")] = ()
    limits: Annotated[tuple[Limit, ...], Meta(description="How fast.")] = ()
    admission: Annotated[Admission, Meta(description="How much a call may be granted.")] = field(
        default_factory=Admission
    )
    prices: Annotated[
        dict[str, Price], Meta(description="Prices by provider/model, with * as a wildcard; before the shipped table.")
    ] = field(default_factory=dict)
    timeouts: Annotated[Timeouts, Meta(description="How long anything may take.")] = field(default_factory=Timeouts)
    retries: Annotated[Retries, Meta(description="How often a failed call is tried again.")] = field(
        default_factory=Retries
    )
    server: Annotated[Server, Meta(description="Bounds of the data listener.")] = field(default_factory=Server)
    cache: Annotated[Cache, Meta(description="Answers kept for equal requests.")] = field(default_factory=Cache)
    passthrough: Annotated[
        tuple[Route | Passthrough, ...], Meta(description="Other /v1 paths that may be relayed, as they are.")
    ] = ()
    callbacks: Annotated[tuple[EntryPoint, ...], Meta(description="Entry points called for every call.")] = ()
    alerts: Annotated[Alerts, Meta(description="Whom to tell.")] = field(default_factory=Alerts)
    log: Annotated[Log, Meta(description="What is written to standard error.")] = field(default_factory=Log)


def spread_of(entry: str | tuple[str, ...] | Spread) -> Spread:
    """Return an entry of `models` in its one full form, whichever way it was written."""
    if isinstance(entry, Spread):
        return entry
    names = (entry,) if isinstance(entry, str) else entry
    return Spread(targets=tuple(Target(to=name) for name in names))
