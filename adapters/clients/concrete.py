"""One client per provider: what is said here is where it is and how it is told who calls. All else is `client.LLMClient`.

`api_key` is one key or several, which are used in turn. `base_url` means what it means in that vendor's own SDK. The environment
is not asked: that is what `create_client` does.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from adapters.base import Endpoint
from adapters.clients.client import LLMClient
from adapters.clients.errors import AuthenticationError
from adapters.clients.options import Access, ClientOptions
from adapters.credentials.base import Secret
from adapters.credentials.factory import make_credentials
from adapters.presets import PRESETS
from adapters.quirks import is_openai
from adapters.transport.base import Transport
from adapters.transport.raw import RawTransport
from adapters.vendors import price_list_of, vendor_url

ApiKey = str | Sequence[str] | None


class OpenAIClient(LLMClient):
    """OpenAI itself, or a server that stands in its place at `base_url`."""

    def __init__(
        self, api_key: ApiKey = None, *, base_url: str | None = None, transport: Transport | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:  # fmt: skip
        super().__init__(access("openai", "openai", api_key, base_url=base_url, transport=transport), options)


class AnthropicClient(LLMClient):
    """Anthropic's own API."""

    def __init__(
        self, api_key: ApiKey = None, *, base_url: str | None = None, transport: Transport | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:  # fmt: skip
        super().__init__(access("anthropic", "anthropic", api_key, base_url=base_url, transport=transport), options)


class GoogleAIClient(LLMClient):
    """Google AI (the Gemini API)."""

    def __init__(
        self, api_key: ApiKey = None, *, base_url: str | None = None, transport: Transport | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:  # fmt: skip
        super().__init__(access("google", "gemini", api_key, base_url=base_url, transport=transport), options)


class XAIClient(LLMClient):
    """xAI's Grok."""

    def __init__(
        self, api_key: ApiKey = None, *, base_url: str | None = None, transport: Transport | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:  # fmt: skip
        super().__init__(access("xai", "xai", api_key, base_url=base_url, transport=transport), options)


class VertexAIClient(LLMClient):
    """Vertex AI. Without `api_key` and `access_token`: a credentials file, or the platform's own identity from `environ`."""

    def __init__(  # noqa: PLR0913 - the settings of that vendor, each with its default
        self, project: str | None = None, location: str | None = None, *, api_key: ApiKey = None, access_token: str | None = None,
        credentials_file: str | None = None, base_url: str | None = None, transport: Transport | None = None,
        environ: Mapping[str, str] | None = None, **options: Unpack[ClientOptions],
    ) -> None:  # fmt: skip
        own = {
            "project": project,
            "location": location,
            "access_token": access_token,
            "credentials_file": credentials_file,
        }
        super().__init__(
            access("vertex", "vertex", api_key, base_url=base_url, transport=transport, environ=environ, own=own),
            options,
        )


class AzureOpenAIClient(LLMClient):
    """Azure OpenAI at a customer's `endpoint`. `deployments` maps models to deployments, where their names differ."""

    def __init__(
        self, api_key: ApiKey = None, *, endpoint: str, api_version: str | None = "2024-10-21",
        deployments: Mapping[str, str] | None = None, access_token: str | None = None, transport: Transport | None = None,
        environ: Mapping[str, str] | None = None, **options: Unpack[ClientOptions],
    ) -> None:  # fmt: skip
        own = {"api_version": api_version, "deployments": dict(deployments or {}), "access_token": access_token}
        super().__init__(
            access("azure", "azure", api_key, base_url=endpoint, transport=transport, environ=environ, own=own), options
        )


class BedrockClient(LLMClient):
    """Amazon Bedrock. Without `api_key` and AWS keys: the platform's own identity from `environ`."""

    def __init__(  # noqa: PLR0913 - the settings of that vendor, each with its default
        self, region: str | None = None, *, api_key: ApiKey = None, access_key_id: str | None = None,
        secret_access_key: str | None = None, session_token: str | None = None, base_url: str | None = None,
        transport: Transport | None = None, environ: Mapping[str, str] | None = None, **options: Unpack[ClientOptions],
    ) -> None:  # fmt: skip
        own = {
            "region": region, "access_key_id": access_key_id, "secret_access_key": secret_access_key,
            "session_token": session_token,
        }  # fmt: skip
        super().__init__(
            access("bedrock", "bedrock", api_key, base_url=base_url, transport=transport, environ=environ, own=own),
            options,
        )


class CompatibleClient(LLMClient):
    """Any server that speaks OpenAI's format: at `base_url`, or a known one by its `preset` (groq, mistral, ollama, …).

    Raises ValueError for an unknown preset, and when neither is given.
    """

    def __init__(
        self, base_url: str | None = None, api_key: ApiKey = None, *, preset: str | None = None, name: str | None = None,
        quirks: Mapping[str, Any] | None = None, transport: Transport | None = None, **options: Unpack[ClientOptions],
    ) -> None:  # fmt: skip
        if preset is not None and preset not in PRESETS:
            raise ValueError(f"unknown preset '{preset}'; known are {', '.join(sorted(PRESETS))}")
        if preset is None and base_url is None:
            raise ValueError("a compatible server wants its base_url, or a preset")
        called = name or preset or "compatible"
        super().__init__(
            access(called, "openai", api_key, base_url=base_url, preset=preset, transport=transport, quirks=quirks),
            options,
        )


def access(  # noqa: PLR0913 - what a provider's settings are made of, by name
    name: str,
    kind: str,
    api_key: ApiKey,
    *,
    base_url: str | None = None,
    preset: str | None = None,
    transport: Transport | None = None,
    environ: Mapping[str, str] | None = None,
    own: Mapping[str, Any] | None = None,
    quirks: Mapping[str, Any] | None = None,
) -> Access:
    """Return how a client reaches its provider. `own` are the provider's own settings, None where not given.

    Raises AuthenticationError where a vendor wants a key and there is none, and ValueError for settings that cannot be.
    """
    options = {key: value for key, value in (own or {}).items() if value is not None}
    keys = [Secret(key) for key in ([api_key] if isinstance(api_key, str) else api_key or ()) if key and key.strip()]
    if not keys and kind in _WANT_KEYS and base_url is None and not (preset and PRESETS[preset].key_env is None):
        raise AuthenticationError(f"{name} wants an API key", provider=name)
    at = base_url or (
        PRESETS[preset].base_url
        if preset
        else vendor_url(kind, location=options.get("location"), region=options.get("region"))
    )
    placed = {key: value for key, value in options.items() if key in _PLACES}
    endpoint = Endpoint(
        name=name, kind=kind, base_url=at.rstrip("/"), preset=preset,
        repair=kind == "openai" and not is_openai(at), quirks=dict(quirks or {}), options=placed,
    )  # fmt: skip
    used = transport or RawTransport()
    credentials = make_credentials(
        kind, options, keys, transport=used, clock=time.time, environ=environ  # noqa: TID251 - tokens expire by the calendar
    )  # fmt: skip
    return Access(
        endpoint=endpoint, credentials=credentials, transport=used, own_transport=transport is None,
        price_list=price_list_of(kind, preset, base_url),
    )  # fmt: skip


_WANT_KEYS = frozenset({"openai", "anthropic", "gemini", "xai"})
_PLACES = frozenset({"api_version", "deployments", "project", "location", "region"})
