"""What must be true between settings: every finding at once, over a Config that was decoded.

Pure: names are compared, nothing is resolved, opened or connected to. A finding's path uses the file's names.
"""

import hashlib
import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase

from adapters.credentials.base import Secret
from proxy.config.address import is_loopback, parse_address, same_listener, url
from proxy.config.check_providers import check_providers
from proxy.config.check_spending import check_spending
from proxy.config.model import Config, spread_of
from proxy.config.policy import Key
from proxy.config.problem import Finding, Path, nameable, nearest
from proxy.config.secret_faults import credential_fault, is_placeholder, placeholder_digests

ADMIN_TOKEN_CHARS_MIN = 16
KEY_CHARS_MIN = 8


def check(config: Config, *, own_names: Collection[str] = ()) -> list[Finding]:
    """Return all that is wrong; `own_names` are this machine's host names, for providers that lead back to it."""
    return [
        *_listeners(config),
        *_admin(config),
        *check_providers(config, own_names),
        *_models(config),
        *_keys(config),
        *check_spending(config),
        *_alerts(config),
    ]


def _listeners(config: Config) -> Iterator[Finding]:
    data, ops = parse_address(config.listen), parse_address(config.ops.listen)
    if config.auth.mode == "none" and not is_loopback(data.host):
        message = "with auth.mode none only loopback may be listened on; listen on 127.0.0.1, or set auth: {mode: keys}"
        yield Finding(path=("listen",), message=message)
    if same_listener(data, ops):
        yield Finding(path=("ops", "listen"), message="is the data listener's port too; choose another, such as 9090")


def _admin(config: Config) -> Iterator[Finding]:
    token = config.ops.admin_token
    if not token:
        return
    fault = credential_fault(token, ADMIN_TOKEN_CHARS_MIN)
    if fault:
        yield Finding(path=("ops", "admin_token"), message=f"{fault}; make one with: openssl rand -hex 24")


def _models(config: Config) -> Iterator[Finding]:
    for name, entry in config.models.items():
        path: Path = ("models", name)
        if not name or name.count("*") > 1:
            yield Finding(path=path, message="a name has at least one character and at most one *")
        spread = spread_of(entry)
        if not spread.targets:
            yield Finding(path=path, message="has no target; name one as provider/model")
        for index, target in enumerate(spread.targets):
            message = _target_fault(config, name, target.to)
            if message:
                yield Finding(path=_target_path(path, entry, index), message=message)


def _target_path(path: Path, entry: object, index: int) -> Path:
    if isinstance(entry, str):
        return path
    return (*path, index) if isinstance(entry, tuple) else (*path, "targets", index, "to")


def _target_fault(config: Config, name: str, target: str) -> str | None:
    provider, slash, model = target.partition("/")
    if not (provider and slash and model):
        return "wants provider/model, such as openai/gpt-4o-mini"
    if provider not in config.providers:
        near = nearest(provider, config.providers)
        hint = f"nearest: {near}" if near else f"configured: {', '.join(config.providers) or 'none'}"
        return f"provider {nameable(provider)} is not configured; {hint}"
    if model.count("*") > min(1, name.count("*")):
        return "has a * that no * in the name stands for"
    return None


def _keys(config: Config) -> Iterator[Finding]:
    ids: set[str] = set()
    secrets: dict[str, str] = {}
    for index, key in enumerate(config.keys):
        path: Path = ("keys", index)
        if key.id in ids:
            yield Finding(path=(*path, "id"), message=f"{nameable(key.id)} is the id of a key above; ids are unique")
        ids.add(key.id)
        yield from _key_secret(key, path, secrets)
        for position, pattern in enumerate(key.models or ()):
            message = _key_model_fault(config, pattern)
            if message:
                yield Finding(path=(*path, "models", position), message=message)


def _key_secret(key: Key, path: Path, secrets: dict[str, str]) -> Iterator[Finding]:
    if (key.secret is None) == (key.secret_sha256 is None):
        yield Finding(path=path, message="needs secret or secret_sha256, and only one of them")
        return
    if key.secret is not None:
        fault = credential_fault(key.secret, KEY_CHARS_MIN)
        if fault:
            yield Finding(path=(*path, "secret"), message=f"{fault}; make one with: openssl rand -hex 24")
            return
    digest = key.secret_sha256 or _digest(key.secret)
    field = "secret" if key.secret is not None else "secret_sha256"
    if key.secret_sha256 in placeholder_digests():
        yield Finding(path=(*path, field), message="is the SHA-256 of nothing, or of a well-known placeholder")
    elif digest in secrets:
        yield Finding(
            path=(*path, field), message=f"is the secret of {nameable(secrets[digest])} too; each key needs its own"
        )
    secrets.setdefault(digest, key.id)


def _digest(secret: Secret | None) -> str:
    return hashlib.sha256((secret.reveal() if secret else "").encode()).hexdigest()


def _key_model_fault(config: Config, pattern: str) -> str | None:
    if any(
        pattern == name or fnmatchcase(name, _literal(pattern)) or fnmatchcase(pattern, _literal(name))
        for name in config.models
    ):
        return None
    near = nearest(pattern, config.models)
    return f"no model has that name; {f'nearest: {near}' if near else 'names are the keys of models'}"


def _literal(pattern: str) -> str:
    """Return the pattern with only * as a wildcard."""
    return re.sub(r"[\[?]", lambda match: f"[{match[0]}]", pattern)


def _alerts(config: Config) -> Iterator[Finding]:
    alerts = config.alerts
    if alerts.webhook is not None:
        try:
            url(alerts.webhook.reveal().partition("?")[0])
        except ValueError:
            yield Finding(path=("alerts", "webhook"), message="wants a URL such as https://example.com/hook")
    if alerts.secret is not None and (not alerts.secret or is_placeholder(alerts.secret)):
        yield Finding(path=("alerts", "secret"), message="is empty or a placeholder; leave it out, or give a real one")
