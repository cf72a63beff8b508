"""AWS: keys from wherever a pod gets them, and requests signed with them.

The order in which sources are tried is that of AWS's SDKs: given keys, the environment's, a web identity (IRSA), a
container's endpoint (EKS Pod Identity, ECS), the instance's metadata. The environment comes in as a mapping.
Source: https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from urllib.parse import quote, urlsplit

from adapters.base import JSON, UpstreamRequest
from adapters.credentials.base import Credentials, Secret
from adapters.credentials.expiry import unix_seconds
from adapters.credentials.fetch import METADATA, fetch, fetch_json, form, sendable
from adapters.credentials.files import CredentialsError, read_secret
from adapters.credentials.renew import Lease, Renewed
from adapters.credentials.sigv4 import AwsKeys, sign
from adapters.errors import UpstreamAuthError
from adapters.transport.base import Transport

Fetch = Callable[[], Awaitable[Lease[AwsKeys]]]

_CONTAINER_HOST = "http://169.254.170.2"
_PLAIN_HOSTS = frozenset({"127.0.0.1", "localhost", "::1", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"})
_METADATA_HOST = "http://169.254.169.254"
_FOREVER_S = float("inf")


class AwsSigner(Credentials):
    """Signs every request for Bedrock; the keys are renewed as their source says."""

    def __init__(self, fetch_keys: Fetch, clock: Callable[[], float], *, region: str, name: str) -> None:
        self.name = name
        self._region, self._clock = region, clock
        self._keys = Renewed(fetch_keys, clock, source=name)

    async def apply(self, request: UpstreamRequest) -> UpstreamRequest:
        keys = await self._keys.get()
        now = datetime.fromtimestamp(self._clock(), UTC)
        return sign(request, keys, region=self._region, service="bedrock", now=now)


def static_keys(keys: AwsKeys) -> Fetch:
    """Return the given keys, for ever."""

    async def fetch_keys() -> Lease[AwsKeys]:
        return Lease(keys, _FOREVER_S)

    return fetch_keys


def keys_from_environment(environ: Mapping[str, str]) -> AwsKeys | None:
    """Return AWS_ACCESS_KEY_ID and its fellows, or None."""
    key_id, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if not key_id or not secret:
        return None
    token = environ.get("AWS_SESSION_TOKEN")
    return AwsKeys(
        access_key_id=key_id, secret_access_key=Secret(secret), session_token=Secret(token) if token else None
    )


def web_identity(transport: Transport, environ: Mapping[str, str], *, region: str) -> Fetch:
    """Exchange the pod's service account token at STS (IRSA). The token's file is read at every renewal.

    Source: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
    """
    endpoint = environ.get("AWS_ENDPOINT_URL_STS") or f"https://sts.{region}.amazonaws.com{_suffix(region)}"
    path, source = environ["AWS_WEB_IDENTITY_TOKEN_FILE"], "AWS web identity"
    fields = {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": environ["AWS_ROLE_ARN"],
        "RoleSessionName": environ.get("AWS_ROLE_SESSION_NAME") or "bursar",
    }

    async def fetch_keys() -> Lease[AwsKeys]:
        request = form(endpoint.rstrip("/") + "/", {**fields, "WebIdentityToken": read_secret(path).reveal()})
        body = (await fetch(transport, request, source=source)).decode("utf-8", "replace")
        names = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
        # STS answers in XML; these four are base64 and timestamps, so nothing in them is ever escaped
        found = {name: re.search(rf"<{name}>\s*([^<\s]+)\s*</{name}>", body) for name in names}
        return _lease({name: match[1] for name, match in found.items() if match}, token_name=names[2], source=source)

    return fetch_keys


def container(transport: Transport, environ: Mapping[str, str]) -> Fetch:
    """Ask the container's endpoint (EKS Pod Identity, ECS). Raises CredentialsError for a plain endpoint elsewhere.

    Source: https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
    """
    relative = environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    url = _CONTAINER_HOST + relative if relative else environ["AWS_CONTAINER_CREDENTIALS_FULL_URI"]
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in _PLAIN_HOSTS:
        raise CredentialsError("AWS_CONTAINER_CREDENTIALS_FULL_URI must be https, or a loopback or link-local address")
    path, given = (
        environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
        environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
    )

    async def fetch_keys() -> Lease[AwsKeys]:
        token = read_secret(path).reveal() if path else given
        headers = (("authorization", token),) if token else ()
        request = UpstreamRequest(method="GET", url=url, headers=headers)
        answer = await fetch_json(transport, request, source="AWS container", timeouts=METADATA)
        return _lease(answer, token_name="Token", source="AWS container")  # noqa: S106 - the name of a field

    return fetch_keys


def instance(transport: Transport, environ: Mapping[str, str]) -> Fetch:
    """Ask the instance's metadata service, version 2.

    Source: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html
    """
    host = (environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or _METADATA_HOST).rstrip("/")
    roles, source = host + "/latest/meta-data/iam/security-credentials/", "AWS instance metadata"

    async def fetch_keys() -> Lease[AwsKeys]:
        lifetime = (("x-aws-ec2-metadata-token-ttl-seconds", "300"),)
        put = UpstreamRequest(method="PUT", url=host + "/latest/api/token", headers=lifetime)
        token = (await fetch(transport, put, source=source, timeouts=METADATA)).decode("latin-1").strip()
        headers = (("x-aws-ec2-metadata-token", token),)
        listing = UpstreamRequest(method="GET", url=roles, headers=headers)
        role = (await fetch(transport, listing, source=source, timeouts=METADATA)).decode("utf-8", "replace").split()
        if not role:
            raise UpstreamAuthError(f"{source}: the instance has no role")
        request = UpstreamRequest(method="GET", url=roles + quote(role[0], safe=""), headers=headers)
        answer = await fetch_json(transport, request, source=source, timeouts=METADATA)
        return _lease(answer, token_name="Token", source=source)  # noqa: S106 - the name of a field

    return fetch_keys


def _suffix(region: str) -> str:
    return ".cn" if region.startswith("cn-") else ""


def _lease(answer: JSON, *, token_name: str, source: str) -> Lease[AwsKeys]:
    key_id, secret, token = (sendable(answer.get(name)) for name in ("AccessKeyId", "SecretAccessKey", token_name))
    if not key_id or not secret:
        raise UpstreamAuthError(f"{source}: the answer holds no keys")
    keys = AwsKeys(
        access_key_id=key_id,
        secret_access_key=Secret(secret),
        session_token=Secret(token) if token else None,
    )
    return Lease(keys, unix_seconds(answer.get("Expiration"), source=source))
