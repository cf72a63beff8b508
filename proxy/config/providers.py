"""A provider as the configuration states it: what it speaks, where it is, and what opens it.

One struct serves all kinds; `FIELDS_OF_KIND` says which of its fields mean something for which, and `check` refuses the
others, so that a setting is never silently ignored.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from adapters.presets import PRESETS
from proxy.config.leaves import URL, Hidden, Identifier, Name, Seconds

KINDS = ("openai", "anthropic", "gemini", "vertex", "bedrock", "azure", "xai", "fake")
Kind = Literal["openai", "anthropic", "gemini", "vertex", "bedrock", "azure", "xai", "fake"]

PRESET_NAMES = tuple(sorted(PRESETS))

_ALWAYS = frozenset({"kind", "headers", "proxy", "ca_file", "timeouts", "quirks"})
_KEYED = _ALWAYS | {"base_url", "api_keys", "repair"}
FIELDS_OF_KIND: dict[str, frozenset[str]] = {
    "openai": _KEYED | {"preset", "organization", "project"},
    "anthropic": _KEYED,
    "gemini": _KEYED,
    "vertex": _KEYED | {"project", "location", "access_token", "credentials_file"},
    "bedrock": _KEYED | {"region", "access_key_id", "secret_access_key", "session_token"},
    "azure": _KEYED | {"api_version", "deployments", "access_token"},
    "xai": _KEYED,
    "fake": _KEYED,
}


class ProviderTimeouts(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Time limits that differ for one provider or model; what is not given is as one level above."""

    connect_s: Annotated[Seconds | None, Meta(description="Seconds to open a TCP connection.")] = field(
        name="connect", default=None
    )
    tls_s: Annotated[Seconds | None, Meta(description="Seconds for the TLS handshake.")] = field(
        name="tls", default=None
    )
    first_token_s: Annotated[Seconds | None, Meta(description="Seconds until the first byte of the answer.")] = field(
        name="first_token", default=None
    )
    idle_s: Annotated[Seconds | None, Meta(description="Seconds between two pieces of an answer.")] = field(
        name="idle", default=None
    )
    total_s: Annotated[Seconds | None, Meta(description="Seconds for the whole of one attempt.")] = field(
        name="total", default=None
    )
    write_stall_s: Annotated[Seconds | None, Meta(description="Seconds that a client may refuse to read.")] = field(
        name="write_stall", default=None
    )


class Provider(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One provider: give `kind` or `preset`, and what that kind needs to let us in."""

    kind: Annotated[Kind | None, Meta(description="What it speaks. With a preset: openai.")] = None
    preset: Annotated[
        str | None,
        Meta(
            description="A provider that speaks OpenAI, with its base URL and quirks known.",
            extra={"choices": PRESET_NAMES},
            extra_json_schema={"enum": [*PRESET_NAMES, None]},
        ),
    ] = None
    base_url: Annotated[
        URL | None, Meta(description="As that vendor's own SDK takes it; the vendor's own if unset.")
    ] = None
    api_keys: Annotated[tuple[Hidden, ...], Meta(description="API keys, used in turn. Bedrock: bearer tokens.")] = ()
    organization: Annotated[Name | None, Meta(description="openai: sent as OpenAI-Organization.")] = None
    project: Annotated[Name | None, Meta(description="vertex: the project; openai: sent as OpenAI-Project.")] = None
    location: Annotated[Identifier | None, Meta(description="vertex: the location, such as us-central1.")] = None
    access_token: Annotated[Hidden | None, Meta(description="vertex, azure: a ready OAuth bearer token.")] = None
    credentials_file: Annotated[
        Name | None,
        Meta(description="vertex: a service account's JSON file; unset, the machine's own identity is asked."),
    ] = None
    region: Annotated[Identifier | None, Meta(description="bedrock: the AWS region, such as us-east-1.")] = None
    access_key_id: Annotated[
        Hidden | None, Meta(description="bedrock: the AWS key's id; unset, the machine's own identity is asked.")
    ] = None
    secret_access_key: Annotated[Hidden | None, Meta(description="bedrock: the AWS key's secret.")] = None
    session_token: Annotated[Hidden | None, Meta(description="bedrock: the AWS session token.")] = None
    api_version: Annotated[Identifier | None, Meta(description="azure: the api-version of every call.")] = None
    deployments: Annotated[dict[str, Name], Meta(description="azure: the deployment that serves each model.")] = field(
        default_factory=dict
    )
    repair: Annotated[
        Literal["auto", "off"] | None,
        Meta(description="Mend what would break an SDK. Default: auto unless the base URL is OpenAI's own."),
    ] = None
    headers: Annotated[dict[str, Hidden], Meta(description="Further headers of every call to it.")] = field(
        default_factory=dict
    )
    proxy: Annotated[Hidden | None, Meta(description="An HTTP proxy to reach it through.")] = None
    ca_file: Annotated[Name | None, Meta(description="A PEM file of the authorities to trust for it.")] = None
    timeouts: Annotated[ProviderTimeouts, Meta(description="Time limits that differ for it.")] = field(
        default_factory=ProviderTimeouts
    )
    quirks: Annotated[dict[str, Any], Meta(description="What this server does in its own way, over what is known.")] = (
        field(default_factory=dict)
    )


def kind_of(provider: Provider) -> str:
    """Return the provider's kind, `openai` for a preset."""
    return provider.kind or "openai"


def preset_base_url(provider: Provider) -> str | None:
    """Return the base URL of the provider's preset, if it has one."""
    preset = PRESETS.get(provider.preset or "")
    return preset.base_url if preset else None


def wants_key(provider: Provider) -> bool:
    """Tell whether the provider's own address asks for an API key; a server of one's own mostly does not."""
    if provider.base_url is not None or kind_of(provider) not in {"openai", "anthropic", "gemini", "xai"}:
        return False
    preset = PRESETS.get(provider.preset or "")
    return preset is None or preset.key_env is not None
