"""Makes the credentials of one configured provider: one for each API key, else the one that its platform gives.

Nothing is fetched here; files are read, so that a mistake in one is told at start. The environment is looked at only for
what the configuration leaves out, and comes in as a mapping.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.credentials import aws, azure, google
from adapters.credentials.base import Credentials, HeaderKey, NoCredentials, Secret
from adapters.credentials.bearer import FetchedToken
from adapters.credentials.files import CredentialsError, is_file
from adapters.credentials.sigv4 import AwsKeys
from adapters.transport.base import Transport

_BEARER = ("authorization", "Bearer ")
_HEADERS = {  # where a kind takes its API key; any other is a bearer token
    "anthropic": ("x-api-key", ""),
    "gemini": ("x-goog-api-key", ""),
    "vertex": ("x-goog-api-key", ""),
    "azure": ("api-key", ""),
}
_ADC_FILE = "/.config/gcloud/application_default_credentials.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What fetching credentials takes."""

    transport: Transport
    clock: Callable[[], float]  # Unix seconds
    environ: Mapping[str, str]


def make_credentials(
    kind: str,
    options: Mapping[str, Any],
    api_keys: Sequence[Secret],
    *,
    transport: Transport,
    clock: Callable[[], float],
    environ: Mapping[str, str] | None = None,
) -> list[Credentials]:
    """Return at least one. `options` are the provider's own keys in the configuration; secrets in it may be Secret or str.

    An empty API key counts as none. Raises CredentialsError; its message is safe to show.
    """
    keys = [key for key in (_clean(key, f"API key {n}") for n, key in enumerate(api_keys, 1)) if key]
    means = Means(transport=transport, clock=clock, environ=environ or {})
    if kind == "bedrock":
        return _bedrock(options, keys, means)
    if keys:
        header, prefix = _HEADERS.get(kind, _BEARER)
        return [HeaderKey(key, header=header, prefix=prefix, name=f"{kind} key {n}") for n, key in enumerate(keys, 1)]
    if kind == "vertex":
        return [_vertex(options, means)]
    if kind == "azure":
        return [_azure(options, means)]
    return [NoCredentials()]


def _bedrock(options: Mapping[str, Any], api_keys: Sequence[Secret], means: Means) -> list[Credentials]:
    if api_keys:
        return [HeaderKey(key, name=f"bedrock key {n}") for n, key in enumerate(api_keys, 1)]
    given = _given_keys(options)
    bearer = _clean(means.environ.get("AWS_BEARER_TOKEN_BEDROCK"), "AWS_BEARER_TOKEN_BEDROCK")
    if given is None and bearer:
        return [HeaderKey(bearer, name="AWS_BEARER_TOKEN_BEDROCK")]
    region = options.get("region") or means.environ.get("AWS_REGION") or means.environ.get("AWS_DEFAULT_REGION")
    if not region:
        raise CredentialsError("a bedrock provider needs its region, to sign for it")
    name, fetch = _aws_source(given, means, region=str(region))
    return [aws.AwsSigner(fetch, means.clock, region=str(region), name=name)]


def _given_keys(options: Mapping[str, Any]) -> AwsKeys | None:
    key_id = _clean(options.get("access_key_id"), "access_key_id")
    secret = _clean(options.get("secret_access_key"), "secret_access_key")
    if bool(key_id) != bool(secret):
        raise CredentialsError("access_key_id and secret_access_key must be given together")
    token = _clean(options.get("session_token"), "session_token")
    return (
        AwsKeys(access_key_id=key_id.reveal(), secret_access_key=secret, session_token=token or None)
        if key_id
        else None
    )


def _aws_source(given: AwsKeys | None, means: Means, *, region: str) -> tuple[str, aws.Fetch]:
    environ = means.environ
    keys = given or aws.keys_from_environment(environ)
    if keys is not None:
        return "AWS keys", aws.static_keys(keys)
    if environ.get("AWS_WEB_IDENTITY_TOKEN_FILE") and environ.get("AWS_ROLE_ARN"):
        return "AWS web identity", aws.web_identity(means.transport, environ, region=region)
    names = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI")
    if any(environ.get(name) for name in names):
        return "AWS container", aws.container(means.transport, environ)
    if environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        raise CredentialsError(
            "a bedrock provider has no credentials: give access_key_id and secret_access_key, or api_keys"
        )
    return "AWS instance metadata", aws.instance(means.transport, environ)


def _vertex(options: Mapping[str, Any], means: Means) -> Credentials:
    token = _clean(options.get("access_token"), "access_token")
    if token:
        return HeaderKey(token, name="Google access token")
    environ = means.environ
    path = options.get("credentials_file") or environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if not path and environ.get("HOME") and is_file(environ["HOME"] + _ADC_FILE):
        path = environ["HOME"] + _ADC_FILE
    if path:
        fetch, name, headers = google.from_file(str(path), means.transport, means.clock)
        return FetchedToken(fetch, means.clock, name=name, headers=headers)
    fetch = google.metadata_server(means.transport, means.clock, environ)
    return FetchedToken(fetch, means.clock, name="Google metadata server")


def _azure(options: Mapping[str, Any], means: Means) -> Credentials:
    token = _clean(options.get("access_token"), "access_token")
    if token:
        return HeaderKey(token, name="Azure access token")
    environ = means.environ
    makers = {
        "AZURE_FEDERATED_TOKEN_FILE": ("Azure workload identity", azure.workload_identity),
        "AZURE_CLIENT_SECRET": ("Azure client secret", azure.client_secret),
    }
    application = environ.get("AZURE_TENANT_ID") and environ.get("AZURE_CLIENT_ID")
    given = next((maker for key, maker in makers.items() if application and environ.get(key)), None)
    name, make = given or ("Azure instance metadata", azure.instance)
    return FetchedToken(make(means.transport, means.clock, environ), means.clock, name=name)


def _clean(value: object, what: str) -> Secret:
    """Return the value without the line end that files and Kubernetes secrets like to bring; empty if there is none."""
    text = value.reveal() if isinstance(value, Secret) else value if isinstance(value, str) else ""
    text = text.strip()
    if not text.isascii() or not text.isprintable():
        raise CredentialsError(f"the {what} holds characters that no header can carry")
    return Secret(text)
