"""Who may spend what: keys, budgets, limits, admission and prices.

An amount of money is an exact integer of nano-USD, read from its spelling; a price is nano-USD per million tokens, so
0.10 USD is 100,000,000. None is "not given", which is not zero: a budget of 0 allows nothing.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from proxy.config.leaves import (
    Count,
    Date,
    Hidden,
    Identifier,
    Name,
    Nanousd,
    Period,
    Positive,
    Route,
    Sha256,
    Share,
    Subject,
    Timezone,
    UserFrom,
)

AMOUNT_UNITS = ("usd", "tokens", "input_tokens", "output_tokens", "requests")


class Key(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A key that a client sends as its API key, and whom it speaks for."""

    id: Annotated[Identifier, Meta(description="Its name in logs, metrics and budgets; never secret.")]
    secret: Annotated[Hidden | None, Meta(description="What the client sends. Give this or secret_sha256.")] = None
    secret_sha256: Annotated[Sha256 | None, Meta(description="SHA-256 of the secret, 64 hexadecimal digits.")] = None
    user: Annotated[Name | None, Meta(description="The user it speaks for.")] = None
    team: Annotated[Name | None, Meta(description="The team it speaks for.")] = None
    org: Annotated[Name | None, Meta(description="The organization it speaks for.")] = None
    user_from: Annotated[
        UserFrom | None, Meta(description="Where its calls name their user; believed for this key only.")
    ] = None
    models: Annotated[
        tuple[Name, ...] | None, Meta(description="Names that it may send, with * as a wildcard; not given: all.")
    ] = None
    tags: Annotated[tuple[Name, ...], Meta(description="Labels that budgets can be set on (tag:…).")] = ()
    passthrough: Annotated[tuple[Route, ...], Meta(description="Further /v1 paths that this key may use.")] = ()


class Budget(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a subject may spend in a period; one unit or several, each of which must hold."""

    subject: Annotated[Subject, Meta(description="Whom it binds; * is each one without a budget of its own.")]
    period: Annotated[
        Period, Meta(description="When it starts anew: minute hour day week month cycle rolling:30d total.")
    ]
    nanousd: Annotated[Nanousd | None, Meta(description="US dollars.")] = field(name="usd", default=None)
    tokens: Annotated[Count | None, Meta(description="Input and output tokens together.")] = None
    input_tokens: Annotated[Count | None, Meta(description="Input tokens.")] = None
    output_tokens: Annotated[Count | None, Meta(description="Output tokens, reasoning included.")] = None
    requests: Annotated[Count | None, Meta(description="Calls.")] = None
    tz: Annotated[Timezone, Meta(description="Time zone in which the period begins.")] = "UTC"
    mode: Annotated[
        Literal["hard", "soft", "shadow"],
        Meta(description="hard refuses, soft lets pass and tells, shadow only counts."),
    ] = "hard"
    hold: Annotated[
        Literal["clamp", "full", "slice"],
        Meta(
            description="clamp lowers the output limit to what is free, full refuses instead, slice holds piece by piece."
        ),
    ] = "clamp"
    outage: Annotated[
        Literal["refuse", "escrow", "allow"], Meta(description="What happens while the store cannot be reached.")
    ] = "refuse"
    soft: Annotated[tuple[Share, ...], Meta(description="Fractions of the limit at which an alert is sent.")] = ()
    starts: Annotated[Date | None, Meta(description="First day of a cycle (period: cycle), YYYY-MM-DD.")] = None
    version: Annotated[Positive, Meta(description="Between two files the higher one wins.")] = 1


class Limit(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How fast a subject may go."""

    subject: Annotated[Subject, Meta(description="Whom it binds; * is each one without a limit of its own.")]
    rpm: Annotated[Positive | None, Meta(description="Requests per minute.")] = None
    tpm: Annotated[Positive | None, Meta(description="Tokens per minute.")] = None
    concurrency: Annotated[Positive | None, Meta(description="Calls in flight at once.")] = None


class Admission(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much a call may be granted."""

    min_completion: Annotated[Positive, Meta(description="Output tokens that a grant covers at least, or none.")] = 256
    unbounded_share: Annotated[
        Share, Meta(description="Share of what is free that a call without a limit of its own gets at most.")
    ] = 0.25
    default_max_output: Annotated[
        Positive, Meta(description="Output tokens asked for where neither call nor price table has a limit.")
    ] = 4096
    unknown_price: Annotated[
        Literal["refuse", "dearest", "free"], Meta(description="What a model without a price does on a cost budget.")
    ] = "refuse"


class Price(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Prices of one model in USD per million tokens; what is not given costs what `input` or `output` does."""

    input_nanousd: Annotated[Nanousd, Meta(description="USD per million input tokens.")] = field(name="input")
    output_nanousd: Annotated[Nanousd, Meta(description="USD per million output tokens.")] = field(name="output")
    cached_input_nanousd: Annotated[
        Nanousd | None, Meta(description="USD per million input tokens read from a cache.")
    ] = field(name="cached_input", default=None)
    cache_write_nanousd: Annotated[
        Nanousd | None, Meta(description="USD per million input tokens written to a cache.")
    ] = field(name="cache_write", default=None)
    request_nanousd: Annotated[Nanousd, Meta(description="USD for each call, besides its tokens.")] = field(
        name="request", default=0
    )
    max_output: Annotated[Positive | None, Meta(description="Output tokens that the model can give at most.")] = None
