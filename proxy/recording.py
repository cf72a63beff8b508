"""Writes one real exchange with a provider down, so that a translator can be tested against it; what identifies an account is taken out.

Pure. Names of organisations and accounts, and every secret that the configuration holds, are replaced in texts; an event stream of AWS
has checksums, so its bytes stay as they came.
"""

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

from adapters.base import UpstreamRequest

HEADERS_KEPT = (
    "content-type", "retry-after", "retry-after-ms", "x-should-retry", "x-amzn-requestid", "x-amzn-errortype", "request-id", "x-request-id",
    "openai-version", "openai-processing-ms", "anthropic-ratelimit-tokens-remaining", "x-ratelimit-remaining-tokens",
)  # fmt: skip
SCRUBBED = "scrubbed"
_FORMATS = {
    "anthropic": "anthropic-messages",
    "gemini": "gemini-generate",
    "vertex": "gemini-generate",
    "bedrock": "bedrock-converse",
}
_ACCOUNTS = (
    (re.compile(r"\b(sk-|xai-|gsk_|AIza|hf_)[-_A-Za-z0-9]{16,}"), SCRUBBED),
    (re.compile(r"\b(org|proj|user|acct|team)-[A-Za-z0-9_-]{8,}"), rf"\1-{SCRUBBED}"),
    (re.compile(r"\b(org|proj)_[A-Za-z0-9]{8,}"), rf"\1_{SCRUBBED}"),
    (re.compile(r"(arn:aws[a-z-]*:[a-z0-9-]*:[a-z0-9-]*:)\d{12}(?=:)"), r"\g<1>000000000000"),
    (re.compile(r"(/projects/|\bprojects/)[a-z][a-z0-9-]{4,}(?=/)"), rf"\1{SCRUBBED}"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A provider's answer, as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def recorded_case(
    kind: str,
    provider: str,
    *,
    request: Mapping[str, Any],
    native: UpstreamRequest,
    received: Received,
    secrets: Iterable[str],
) -> dict[str, Any]:
    """Return the case; `native` is the request before credentials were put on it."""
    hidden = [secret for secret in secrets if len(secret) >= 4]  # noqa: PLR2004 - shorter ones would blot out words
    stream = bool(request.get("stream"))
    url = urlsplit(native.url)
    return {
        "id": f"{provider}-{'stream' if stream else 'non-stream'}",
        "provider": provider,
        "upstream_format": _FORMATS.get(kind, "openai-chat"),
        "kinds": [*(["error"] if received.status >= 400 else []), "stream" if stream else "non-stream"],  # noqa: PLR2004
        "endpoint": {"method": native.method, "path": scrubbed(url.path, hidden), "query": scrubbed(url.query, hidden)},
        "request": {
            "openai": _json(orjson.dumps(request), hidden), "openai_source": "recorded",
            "native": _json(native.body, hidden), "losses_in_derivation": [], "media_substituted": False,
        },
        "response": {
            "status": received.status,
            "headers": {name: scrubbed(received.headers[name], hidden) for name in HEADERS_KEPT if name in received.headers},
            "framing": "as-recorded",
            **_body(received.body, received.headers.get("content-type", ""), hidden),
        },
    }  # fmt: skip


def scrubbed(text: str, secrets: Iterable[str]) -> str:
    """Return a text without the secrets, and without what names an account or an organisation."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, SCRUBBED)
    for pattern, instead in _ACCOUNTS:
        text = pattern.sub(instead, text)
    return text


def _body(body: bytes, content_type: str, secrets: list[str]) -> dict[str, str]:
    if "eventstream" in content_type:
        return {"body_kind": "eventstream", "body_base64": base64.b64encode(body).decode()}
    kind = "sse" if "event-stream" in content_type else "json"
    try:
        return {"body_kind": kind, "body_text": scrubbed(body.decode(), secrets)}
    except UnicodeDecodeError:
        return {"body_kind": kind, "body_base64": base64.b64encode(body).decode()}


def _json(data: bytes, secrets: list[str]) -> Any:
    text = scrubbed(data.decode("utf-8", "replace"), secrets)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
