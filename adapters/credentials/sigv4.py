"""AWS Signature Version 4 for one request, with the time passed in. Pure.

The path is encoded once more than it is on the wire (`%3A` is signed as `%253A`), for every service but S3. Hop-by-hop
and tracing headers are not signed, so that nothing on the way breaks the signature. Headers that the transport writes
itself are taken out; `host` is signed as it sends it: in lower case, without a default port.
Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote, urlsplit

from msgspec.structs import replace

from adapters.base import UpstreamRequest
from adapters.credentials.base import Secret

_UNSIGNED = frozenset(
    {
        "baggage", "connection", "expect", "keep-alive", "proxy-authenticate", "proxy-authorization", "te",
        "traceparent", "tracestate", "trailer", "transfer-encoding", "upgrade", "user-agent", "x-amzn-trace-id",
    }
)  # fmt: skip
_TRANSPORTS = frozenset({"host", "content-length", "accept-encoding"})
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsKeys:
    """What signs; temporary keys have a session token."""

    access_key_id: str
    secret_access_key: Secret
    session_token: Secret | None = None


def sign(request: UpstreamRequest, keys: AwsKeys, *, region: str, service: str, now: datetime) -> UpstreamRequest:
    """Return the request with its signature; nothing may be changed afterwards. `now` is in UTC."""
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    added = [("x-amz-date", stamp)]
    if keys.session_token:
        added.append(("x-amz-security-token", keys.session_token.reveal()))
    headers = (*((name, value) for name, value in request.headers if name.lower() not in _TRANSPORTS), *added)
    canonical, signed = _canonical(request, headers)
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = ("AWS4" + keys.secret_access_key.reveal()).encode()
    for part in (stamp[:8], region, service, "aws4_request"):
        key = _hmac(key, part)
    signature = _hmac(key, f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{digest}").hex()
    credential = f"AWS4-HMAC-SHA256 Credential={keys.access_key_id}/{scope}"
    authorization = f"{credential}, SignedHeaders={signed}, Signature={signature}"
    return replace(request, headers=(*headers, ("authorization", authorization)))


def _canonical(request: UpstreamRequest, headers: tuple[tuple[str, str], ...]) -> tuple[str, str]:
    url = urlsplit(request.url)
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname or ""
    if url.port not in {None, _DEFAULT_PORTS.get(url.scheme)}:
        host = f"{host}:{url.port}"
    values = {"host": [host]}
    for name, value in headers:
        if name.lower() not in _UNSIGNED:
            values.setdefault(name.lower(), []).append(" ".join(value.split()))
    lines = "".join(f"{name}:{','.join(values[name])}\n" for name in sorted(values))
    signed = ";".join(sorted(values))
    pairs = sorted((key, value) for key, _, value in (p.partition("=") for p in url.query.split("&") if url.query))
    query = "&".join(f"{key}={value}" for key, value in pairs)
    payload = hashlib.sha256(request.body).hexdigest()
    return f"{request.method}\n{_path(url.path)}\n{query}\n{lines}\n{signed}\n{payload}", signed


def _path(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in {"", "."}:
            parts.append(part)
    end = "/" if path.endswith("/") and parts else ""
    return quote("/" + "/".join(parts) + end, safe="/~")


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
