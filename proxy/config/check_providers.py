"""What must be true of each provider: a kind, what that kind needs and nothing that it would ignore, and not ourselves."""

import re
from collections.abc import Collection, Iterator
from typing import Any

import msgspec

from adapters import quirks
from adapters.credentials.base import Secret
from adapters.presets import PRESETS
from proxy.config.address import leads_to, parse_address
from proxy.config.leaves import provider_name
from proxy.config.model import Config
from proxy.config.problem import Finding, Path, nameable, nearest
from proxy.config.providers import FIELDS_OF_KIND, Provider, kind_of, preset_base_url, wants_key
from proxy.config.secret_faults import header_fault

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}\Z", re.ASCII)
_OWN_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "content-type", "accept-encoding"}
)
_KEY_VARIABLES = {"anthropic": "ANTHROPIC_API_KEY", "gemini": "GEMINI_API_KEY", "xai": "XAI_API_KEY"}


def check_providers(config: Config, own_names: Collection[str]) -> Iterator[Finding]:
    """Give what is wrong with any provider."""
    if not config.providers:
        message = 'no provider is configured; add one, such as openai: {kind: openai, api_keys: ["${OPENAI_API_KEY}"]}'
        yield Finding(path=("providers",), message=message)
    for name, provider in config.providers.items():
        path: Path = ("providers", name)
        try:
            provider_name(name)
        except ValueError as error:
            yield Finding(path=path, message=f"as a provider's name, {error}")
        yield from _kind(provider, path)
        yield from _needs(provider, path)
        yield from _credentials(provider, path)
        yield from _headers(provider, path)
        yield from _quirks(provider, path)
        yield from _loop(config, provider, path, own_names)


def _kind(provider: Provider, path: Path) -> Iterator[Finding]:
    if provider.kind is None and provider.preset is None:
        yield Finding(path=path, message="needs kind (openai, anthropic, …) or preset (groq, mistral, …)")
        return
    kind = kind_of(provider)
    if provider.preset is not None and kind != "openai":
        yield Finding(path=(*path, "kind"), message="a preset is of kind openai; remove kind or preset")
    for field in msgspec.structs.fields(Provider):
        value = getattr(provider, field.name)
        given = value is not None and value not in ((), {}) and not isinstance(value, msgspec.Struct)
        if given and field.encode_name not in FIELDS_OF_KIND[kind] | {"preset"}:
            users = [each for each, fields in FIELDS_OF_KIND.items() if field.encode_name in fields]
            message = f"means nothing for kind {kind}, only for {', '.join(users)}; remove it"
            yield Finding(path=(*path, field.encode_name), message=message)


def _needs(provider: Provider, path: Path) -> Iterator[Finding]:
    kind = kind_of(provider)
    if wants_key(provider) and not provider.api_keys and (provider.kind or provider.preset):
        yield Finding(path=path, message=f'needs api_keys, such as api_keys: ["${{{_key_variable(provider)}}}"]')
    if kind == "azure" and provider.base_url is None:
        yield Finding(path=path, message="needs base_url, such as https://my.openai.azure.com")
    if kind == "azure" and not (provider.api_keys or provider.access_token):
        yield Finding(path=path, message="needs api_keys or access_token")
    if kind == "vertex" and provider.location is None:
        yield Finding(path=path, message="needs location, such as us-central1")
    if kind == "vertex" and provider.project is None and provider.credentials_file is None:
        yield Finding(path=path, message="needs project, or a credentials_file that names one")
    if kind == "bedrock" and provider.region is None:
        yield Finding(path=path, message="needs region, such as us-east-1")
    if (provider.access_key_id is None) != (provider.secret_access_key is None):
        yield Finding(path=path, message="needs access_key_id and secret_access_key together, or neither")
    if provider.session_token is not None and provider.access_key_id is None:
        yield Finding(path=(*path, "session_token"), message="belongs to an access_key_id, which is not given")


def _key_variable(provider: Provider) -> str:
    preset = PRESETS.get(provider.preset or "")
    return (preset.key_env if preset else None) or _KEY_VARIABLES.get(kind_of(provider), "OPENAI_API_KEY")


def _credentials(provider: Provider, path: Path) -> Iterator[Finding]:
    for index, key in enumerate(provider.api_keys):
        yield from _fault(key, (*path, "api_keys", index))
    for name in ("access_token", "access_key_id", "secret_access_key", "session_token", "proxy"):
        secret: Any = getattr(provider, name)
        if secret is not None:
            yield from _fault(secret, (*path, name))
    if provider.proxy is not None and not re.match(r"https?://[^/]", provider.proxy.reveal()):
        yield Finding(path=(*path, "proxy"), message="wants a URL such as http://proxy.example:3128")


def _fault(secret: Secret, path: Path) -> Iterator[Finding]:
    fault = header_fault(secret)
    if fault:
        yield Finding(path=path, message=f"{fault}; give the real value, or leave it out")


def _headers(provider: Provider, path: Path) -> Iterator[Finding]:
    for name, value in provider.headers.items():
        at = (*path, "headers", name)
        if not _HEADER_NAME.match(name):
            yield Finding(path=at, message="is not the name of a header")
        elif name.lower() in _OWN_HEADERS:
            yield Finding(path=at, message="is a header that Bursar sets itself; remove it")
        yield from _fault(value, at)


def _quirks(provider: Provider, path: Path) -> Iterator[Finding]:
    for name, value in provider.quirks.items():
        near = None if name in quirks.TABLE else nearest(name, quirks.TABLE)
        try:
            quirks.check({name: value})
        except ValueError as error:
            message = f"unknown quirk; nearest valid key: {near}" if near else _unnamed(str(error), name)
            yield Finding(path=(*path, "quirks", name), message=message)


def _unnamed(message: str, name: str) -> str:
    return message.replace(f"'{name}'", nameable(name))


def _loop(config: Config, provider: Provider, path: Path, own_names: Collection[str]) -> Iterator[Finding]:
    base_url = provider.base_url or preset_base_url(provider)
    if base_url is None:
        return
    for which, listen in (("data", config.listen), ("ops", config.ops.listen)):
        if leads_to(base_url, parse_address(listen), own_names):
            message = f"leads back to Bursar's own {which} listener; give the provider's own URL, or change listen"
            yield Finding(path=(*path, "base_url"), message=message)
            return
