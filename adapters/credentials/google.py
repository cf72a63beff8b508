"""Google: access tokens for Vertex AI from every kind of credentials file, and from the metadata server.

Source: https://google.aip.dev/auth (the four kinds of files), https://cloud.google.com/docs/authentication
"""

import base64
from collections.abc import Awaitable, Callable, Mapping

import orjson

from adapters.base import JSON, UpstreamRequest
from adapters.credentials.base import Secret
from adapters.credentials.expiry import unix_seconds
from adapters.credentials.fetch import METADATA, fetch, fetch_json, form, sendable, token_lease
from adapters.credentials.files import CredentialsError, parse_object, read_json, read_secret
from adapters.credentials.renew import Lease
from adapters.errors import UpstreamAuthError
from adapters.transport.base import Transport

Fetch = Callable[[], Awaitable[Lease[Secret]]]
Clock = Callable[[], float]

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
_LIFETIME_S = 3600
_METADATA_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"


def from_file(path: str, transport: Transport, clock: Clock) -> tuple[Fetch, str, tuple[tuple[str, str], ...]]:
    """Return how to fetch a token with this credentials file, a name for it, and headers that go with the token.

    Raises CredentialsError, also where the file is of a kind that is not known.
    """
    info = read_json(path)
    kind = info.get("type")
    makers = {
        "service_account": service_account,
        "authorized_user": authorized_user,
        "external_account": external_account,
    }
    if kind not in makers:
        raise CredentialsError(f"the credentials file {path} has a type that is none of {', '.join(makers)}")
    quota = info.get("quota_project_id")
    headers = (("x-goog-user-project", quota),) if isinstance(quota, str) and quota else ()
    return makers[kind](info, transport, clock), f"Google {kind}", headers


def service_account(info: JSON, transport: Transport, clock: Clock) -> Fetch:
    """Exchange a signed assertion. Raises CredentialsError.

    Source: https://developers.google.com/identity/protocols/oauth2/service-account#httprest
    """
    source, url = "Google service_account", str(info.get("token_uri") or _TOKEN_URL)
    email, key = _field(info, "client_email"), Secret(_field(info, "private_key"))
    sign_rs256 = _signer(key)
    header = {"alg": "RS256", "typ": "JWT", "kid": str(info.get("private_key_id") or "")}

    async def fetch_token() -> Lease[Secret]:
        now_s = int(clock())
        claims = {"iss": email, "sub": email, "aud": url, "scope": _SCOPE, "iat": now_s, "exp": now_s + _LIFETIME_S}
        signed = _base64url(orjson.dumps(header)) + b"." + _base64url(orjson.dumps(claims))
        assertion = (signed + b"." + _base64url(sign_rs256(signed))).decode()
        grant = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
        return token_lease(await fetch_json(transport, form(url, grant), source=source), clock, source=source)

    return fetch_token


def authorized_user(info: JSON, transport: Transport, clock: Clock) -> Fetch:
    """Use the refresh token that `gcloud auth application-default login` leaves. Raises CredentialsError."""
    source, url = "Google authorized_user", str(info.get("token_uri") or _TOKEN_URL)
    names = ("client_id", "client_secret", "refresh_token")
    secrets = {name: Secret(_field(info, name)) for name in names}

    async def fetch_token() -> Lease[Secret]:
        fields = {"grant_type": "refresh_token", **{name: secrets[name].reveal() for name in names}}
        return token_lease(await fetch_json(transport, form(url, fields), source=source), clock, source=source)

    return fetch_token


def external_account(info: JSON, transport: Transport, clock: Clock) -> Fetch:
    """Exchange a foreign token (workload identity federation), from a file or an address. Raises CredentialsError.

    Source: https://google.aip.dev/auth/4117
    """
    source, url, audience = "Google external_account", _field(info, "token_url"), _field(info, "audience")
    fields = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "audience": audience,
        "scope": _SCOPE,
        "subject_token_type": _field(info, "subject_token_type"),
    }
    subject = _subject(info.get("credential_source"), transport)
    impersonation = info.get("service_account_impersonation_url")

    async def fetch_token() -> Lease[Secret]:
        request = form(url, {**fields, "subject_token": (await subject()).reveal()})
        lease = token_lease(await fetch_json(transport, request, source=source), clock, source=source)
        return await _impersonated(str(impersonation), lease.value, transport) if impersonation else lease

    return fetch_token


def metadata_server(transport: Transport, clock: Clock, environ: Mapping[str, str]) -> Fetch:
    """Ask the metadata server of GKE, Compute Engine or Cloud Run.

    Source: https://cloud.google.com/compute/docs/access/authenticate-workloads#applications
    """
    source = "Google metadata server"
    url = "http://" + (environ.get("GCE_METADATA_HOST") or "metadata.google.internal") + _METADATA_PATH
    request = UpstreamRequest(method="GET", url=url, headers=(("metadata-flavor", "Google"),))

    async def fetch_token() -> Lease[Secret]:
        answer = await fetch_json(transport, request, source=source, timeouts=METADATA)
        return token_lease(answer, clock, source=source)

    return fetch_token


async def _impersonated(url: str, token: Secret, transport: Transport) -> Lease[Secret]:
    source = "Google impersonation"
    headers = (("authorization", "Bearer " + token.reveal()), ("content-type", "application/json"))
    body = orjson.dumps({"scope": [_SCOPE], "lifetime": f"{_LIFETIME_S}s"})
    answer = await fetch_json(transport, UpstreamRequest(url=url, headers=headers, body=body), source=source)
    got = sendable(answer.get("accessToken"))
    if not got:
        raise UpstreamAuthError(f"{source}: the answer holds no accessToken")
    return Lease(Secret(got), unix_seconds(answer.get("expireTime"), source=source))


def _subject(wanted: object, transport: Transport) -> Callable[[], Awaitable[Secret]]:
    given = wanted if isinstance(wanted, dict) else {}
    path, url, style = given.get("file"), given.get("url"), given.get("format")
    field = style.get("subject_token_field_name") if isinstance(style, dict) and style.get("type") == "json" else None
    if not isinstance(path, str) and not isinstance(url, str):
        raise CredentialsError("a Google external_account must have a credential_source with a file or a url")
    named = given.get("headers")
    headers = tuple((k.lower(), str(v)) for k, v in named.items()) if isinstance(named, dict) else ()

    async def read() -> Secret:
        if isinstance(path, str):
            text = read_secret(path)
        else:
            request = UpstreamRequest(method="GET", url=str(url), headers=headers)
            answer = await fetch(transport, request, source="Google credential_source", timeouts=METADATA)
            text = Secret(answer.decode("utf-8", "replace").strip())
        token = (parse_object(text.reveal().encode()) or {}).get(field) if field else text.reveal()
        if not isinstance(token, str) or not token:
            raise CredentialsError(f"the Google credential_source holds no {field or 'token'}")
        return Secret(token)

    return read


def _signer(key: Secret) -> Callable[[bytes], bytes]:
    try:
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import padding, rsa
    except ImportError:
        raise CredentialsError("a Google service_account needs RSA: install bursar[gcp]") from None
    loaded: object = None
    try:
        loaded = serialization.load_pem_private_key(key.reveal().encode(), password=None)
    except (ValueError, TypeError):
        loaded = None  # told below, where the parser's error is no longer a part of ours
    if not isinstance(loaded, rsa.RSAPrivateKey):
        raise CredentialsError("the private_key of the Google service_account is no RSA key in PEM form")
    private = loaded

    def sign_rs256(data: bytes) -> bytes:
        return private.sign(data, padding.PKCS1v15(), hashes.SHA256())

    return sign_rs256


def _field(info: JSON, name: str) -> str:
    value = info.get(name)
    if not isinstance(value, str) or not value:
        raise CredentialsError(f"the Google credentials file has no {name}")
    return value


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
