"""What `serve` and `check` show of the providers: a row each, with whether we can get in, and never the secret."""

from typing import Literal, NamedTuple

from proxy.config.model import Config
from proxy.config.providers import Provider, kind_of, preset_base_url, wants_key

KeyState = Literal["ok", "missing", "none", "machine"]  # machine: asked for at run time, from where we run


class ProviderRow(NamedTuple):
    """One provider; `kind` is its preset's name if it has one, `base_url` is empty for the vendor's own."""

    name: str
    kind: str
    key: KeyState
    base_url: str


def describe(config: Config) -> list[ProviderRow]:
    """Return a row for each provider, in the order of the configuration."""
    return [
        ProviderRow(
            name=name,
            kind=provider.preset or kind_of(provider),
            key=_key_state(provider),
            base_url=provider.base_url or preset_base_url(provider) or "",
        )
        for name, provider in config.providers.items()
    ]


def _key_state(provider: Provider) -> KeyState:
    kind = kind_of(provider)
    if any(provider.api_keys) or provider.access_token or provider.credentials_file or provider.access_key_id:
        return "ok"
    if kind in {"vertex", "bedrock"}:
        return "machine"
    return "missing" if wants_key(provider) or kind == "azure" else "none"
