"""The configuration where there is no file: providers and store from the variables that their own SDKs read.

A variable that is set but empty is not set. Providers are named after their kind. What belongs to a call and has no
setting in the file (`LLM_DEFAULT_MODEL`, `LLM_DEFAULT_TEMPERATURE`, `LLM_MAX_TOKENS`) is in `CallDefaults`.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from urllib.parse import quote

import msgspec

from adapters.credentials.base import Secret
from adapters.vendors import LOCATION
from proxy.config import address, amounts, leaves
from proxy.config.leaves import StoreURL
from proxy.config.model import Auth, Config, Log, Ops, StoreConfig, Timeouts
from proxy.config.policy import Admission
from proxy.config.problem import Finding, Path
from proxy.config.providers import Provider, kind_of
from proxy.config.routes import default_models

SOURCE = "environment"  # stands in a problem where a file's name would

PROVIDER_VARIABLES = (
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "ANTHROPIC_API_KEY",
    "GOOGLE_AI_API_KEY",
    "GEMINI_API_KEY",
    "XAI_API_KEY",
    "AZURE_OPENAI_API_KEY",
    "AZURE_OPENAI_ENDPOINT",
    "AWS_ACCESS_KEY_ID",
    "AWS_BEARER_TOKEN_BEDROCK",
    "GOOGLE_APPLICATION_CREDENTIALS",
)

_VARIABLES_OF_PATHS: dict[Path, str] = {
    ("providers", "openai", "api_keys"): "OPENAI_API_KEY",
    ("providers", "openai", "base_url"): "OPENAI_BASE_URL",
    ("providers", "anthropic", "api_keys"): "ANTHROPIC_API_KEY",
    ("providers", "gemini", "api_keys"): "GEMINI_API_KEY",
    ("providers", "xai", "api_keys"): "XAI_API_KEY",
    ("providers", "azure", "api_keys"): "AZURE_OPENAI_API_KEY",
    ("providers", "azure", "base_url"): "AZURE_OPENAI_ENDPOINT",
    ("providers", "bedrock", "api_keys"): "AWS_BEARER_TOKEN_BEDROCK",
    ("providers", "bedrock", "access_key_id"): "AWS_ACCESS_KEY_ID",
    ("providers", "bedrock", "secret_access_key"): "AWS_SECRET_ACCESS_KEY",
    ("providers", "bedrock", "session_token"): "AWS_SESSION_TOKEN",
    ("providers", "bedrock"): "AWS_ACCESS_KEY_ID",
    ("providers", "vertex"): "GOOGLE_APPLICATION_CREDENTIALS",
    ("ops", "admin_token"): "BURSAR_ADMIN_TOKEN",
}

AZURE_API_VERSION = "2024-10-21"
_LEVELS: Mapping[str, Literal["debug", "info", "warning", "error"]] = {
    "debug": "debug",
    "info": "info",
    "warn": "warning",
    "warning": "warning",
    "error": "error",
    "critical": "error",
    "fatal": "error",
}
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDefaults:
    """What a call takes where the client says nothing; None leaves it to the provider."""

    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FromEnvironment:
    """What the variables say, and what is wrong with them; a finding's path is the variable's name."""

    config: Config
    defaults: CallDefaults
    findings: tuple[Finding, ...]


def names_of_provider_variables(variables: Mapping[str, str]) -> list[str]:
    """Return the provider variables that are set: with none of them, `make run` starts the demo."""
    return [name for name in PROVIDER_VARIABLES if variables.get(name)]


def from_environment(variables: Mapping[str, str]) -> FromEnvironment:
    """Return the configuration that the variables make; its values are read as strictly as a file's."""
    reader = _Reader(variables)
    providers = {name: provider for name, make in _MAKERS.items() if (provider := make(reader)) is not None}
    maximum = reader.read("LLM_MAX_TOKENS", amounts.positive)
    timeout_s = reader.read("LLM_TIMEOUT", amounts.seconds)
    config = Config(
        auth=Auth(mode="none"),
        ops=Ops(admin_token=Secret(variables.get("BURSAR_ADMIN_TOKEN", ""))),
        store=StoreConfig(url=_store_url(reader)),
        providers=providers,
        models=dict(default_models({name: kind_of(provider) for name, provider in providers.items()})),
        admission=Admission(default_max_output=maximum) if maximum else Admission(),
        timeouts=_timeouts(timeout_s),
        log=_log(reader),
    )
    defaults = CallDefaults(
        model=reader.read("LLM_DEFAULT_MODEL", leaves.name),
        temperature=reader.read("LLM_DEFAULT_TEMPERATURE", _temperature),
        max_tokens=maximum,
    )
    return FromEnvironment(config=config, defaults=defaults, findings=tuple(reader.findings))


def variable_of(path: Path) -> Path:
    """Return the variable that a setting comes from, as a path, or the path itself."""
    for length in range(len(path), 0, -1):
        if path[:length] in _VARIABLES_OF_PATHS:
            return (_VARIABLES_OF_PATHS[path[:length]],)
    return path


class _Reader:
    """The variables, and what was wrong with those read so far."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self.findings: list[Finding] = []

    def text(self, *names: str) -> str | None:
        """Return the first of these that is set and not empty."""
        return next((self._variables[name] for name in names if self._variables.get(name)), None)

    def keys(self, *names: str) -> tuple[Secret, ...]:
        text = self.text(*names)
        return (Secret(text),) if text else ()

    def secret(self, name: str) -> Secret | None:
        text = self.text(name)
        return Secret(text) if text else None

    def read(self, name: str, parse: Callable[[str], _T]) -> _T | None:
        text = self.text(name)
        if text is None:
            return None
        try:
            return parse(text)
        except ValueError as error:
            self.wrong(name, str(error))
            return None

    def wrong(self, name: str, message: str) -> None:
        self.findings.append(Finding(path=(name,), message=message))


def _openai(reader: _Reader) -> Provider | None:
    keys, base_url = reader.keys("OPENAI_API_KEY"), reader.read("OPENAI_BASE_URL", address.url)
    if not (keys or base_url):
        return None
    return Provider(
        kind="openai",
        api_keys=keys,
        base_url=base_url,
        organization=reader.read("OPENAI_ORG_ID", leaves.name),
        project=reader.read("OPENAI_PROJECT_ID", leaves.name),
    )


def _anthropic(reader: _Reader) -> Provider | None:
    keys = reader.keys("ANTHROPIC_API_KEY")
    return Provider(kind="anthropic", api_keys=keys) if keys else None


def _gemini(reader: _Reader) -> Provider | None:
    keys = reader.keys("GOOGLE_AI_API_KEY", "GEMINI_API_KEY")
    return Provider(kind="gemini", api_keys=keys) if keys else None


def _xai(reader: _Reader) -> Provider | None:
    keys = reader.keys("XAI_API_KEY")
    return Provider(kind="xai", api_keys=keys) if keys else None


def _azure(reader: _Reader) -> Provider | None:
    keys, base_url = reader.keys("AZURE_OPENAI_API_KEY"), reader.read("AZURE_OPENAI_ENDPOINT", address.url)
    if keys and not reader.text("AZURE_OPENAI_ENDPOINT"):
        reader.wrong("AZURE_OPENAI_ENDPOINT", "is not set, but AZURE_OPENAI_API_KEY is; set both, or neither")
    if not keys and base_url:
        reader.wrong("AZURE_OPENAI_API_KEY", "is not set, but AZURE_OPENAI_ENDPOINT is; set both, or neither")
    if not (keys and base_url):
        return None
    version = reader.read("OPENAI_API_VERSION", leaves.identifier) or AZURE_API_VERSION
    return Provider(kind="azure", api_keys=keys, base_url=base_url, api_version=version)


def _bedrock(reader: _Reader) -> Provider | None:
    """Make it only where a region is named too: AWS variables are often there for something else."""
    region = reader.read("AWS_REGION", leaves.identifier)
    tokens, key_id = reader.keys("AWS_BEARER_TOKEN_BEDROCK"), reader.secret("AWS_ACCESS_KEY_ID")
    if region is None or not (tokens or key_id):
        return None
    return Provider(
        kind="bedrock",
        region=region,
        api_keys=tokens,
        access_key_id=key_id,
        secret_access_key=reader.secret("AWS_SECRET_ACCESS_KEY") if key_id else None,
        session_token=reader.secret("AWS_SESSION_TOKEN") if key_id else None,
    )


def _vertex(reader: _Reader) -> Provider | None:
    file = reader.read("GOOGLE_APPLICATION_CREDENTIALS", leaves.name)
    if file is None:
        return None
    return Provider(
        kind="vertex",
        credentials_file=file,
        project=reader.read("GOOGLE_CLOUD_PROJECT", leaves.name),
        location=reader.read("GOOGLE_CLOUD_LOCATION", leaves.identifier) or LOCATION,
    )


_MAKERS: dict[str, Callable[[_Reader], Provider | None]] = {
    "openai": _openai,
    "anthropic": _anthropic,
    "gemini": _gemini,
    "xai": _xai,
    "azure": _azure,
    "bedrock": _bedrock,
    "vertex": _vertex,
}


def _store_url(reader: _Reader) -> StoreURL:
    url = reader.read("REDIS_URL", leaves.store_url)
    host = reader.text("REDIS_HOST")
    if url is not None or host is None:
        return url or StoreURL("embedded")
    port = reader.read("REDIS_PORT", _port) or 6379
    database = reader.read("REDIS_DB", amounts.count) or 0
    password = reader.text("REDIS_PASSWORD")
    userinfo = f":{quote(password, safe='')}@" if password else ""
    place = f"[{host}]" if ":" in host and not host.startswith("[") else host
    try:
        return leaves.store_url(f"redis://{userinfo}{place}:{port}/{database}")
    except ValueError:
        reader.wrong("REDIS_HOST", "wants the name or address of a host")
        return StoreURL("embedded")


def _port(text: str) -> int:
    """Return a port. Kubernetes sets REDIS_PORT to tcp://10.0.0.1:6379 beside a service that is called redis."""
    match = re.fullmatch(r"(?:tcp://[0-9A-Za-z.:\[\]-]+:)?([0-9]{1,5})", text, re.ASCII)
    if not match or not 0 < int(match[1]) < 2**16:
        raise ValueError("wants a port from 1 to 65535")
    return int(match[1])


def _temperature(text: str) -> float:
    wanted = "wants a number from 0 to 2"
    try:
        number = float(text)
    except ValueError:
        raise ValueError(wanted) from None
    if not math.isfinite(number) or not 0 <= number <= 2:  # noqa: PLR2004  OpenAI's own bounds
        raise ValueError(wanted)
    return number


def _timeouts(total_s: float | None) -> Timeouts:
    usual = Timeouts()
    if total_s is None:
        return usual
    return msgspec.structs.replace(usual, total_s=total_s, first_token_s=min(usual.first_token_s, total_s))


def _log(reader: _Reader) -> Log:
    values: dict[str, Any] = {}
    level, form = reader.text("LOG_LEVEL"), reader.text("LOG_FORMAT")
    if level is not None:
        values["level"] = _LEVELS.get(level.lower())
        if values["level"] is None:
            reader.wrong("LOG_LEVEL", "wants one of debug, info, warning, error")
    if form is not None:
        values["format"] = form.lower() if form.lower() in {"text", "json"} else None
        if values["format"] is None:
            reader.wrong("LOG_FORMAT", "wants one of text, json")
    return Log(**{name: value for name, value in values.items() if value is not None})
