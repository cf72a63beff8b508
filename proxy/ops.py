"""The ops listener: metrics and probes for machines, admin for people with a token. Never reachable through the data listener."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from proxy.errors import ClientError, method_not_allowed, unauthorised, unknown_url
from proxy.serving.request import Request
from proxy.serving.response import Answer, Response

METRICS_KEPT_S = 1.0
Admin = Callable[[Request], Awaitable[Any]]


@dataclass(slots=True, kw_only=True)
class Ops:
    """Serves the ops listener. `ready` returns what is not ready yet, by name; `collect` refreshes gauges before a scrape."""

    registry: CollectorRegistry
    ready: Callable[[], Mapping[str, str]]
    collect: Callable[[], Awaitable[None]]
    admin_token: str = ""
    details: Callable[[], Mapping[str, Any]] = dict  # of the providers; told, but never a reason not to be ready
    admin: Mapping[tuple[str, str], Admin] = field(default_factory=dict)  # (method, path below /admin/v1/) -> answer
    _metrics: bytes = b""
    _metrics_at_s: float = -1e9

    async def handle(self, request: Request) -> Answer:
        """Answer one request."""
        return await answered(self._dispatch(request))

    async def _dispatch(self, request: Request) -> Answer:
        path = request.path
        if path.startswith("/admin/v1/") and self.admin_token:
            return await self._admin(request, path.removeprefix("/admin/v1/"))
        if path not in ("/metrics", "/livez", "/readyz"):
            raise unknown_url(request.method, path)
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed(request.method, "GET")
        if path == "/livez":
            return json_response(200, {"status": "ok"})
        if path == "/readyz":
            missing = dict(self.ready())
            status = "not ready" if missing else "ok"
            told = {"status": status, "checks": missing, "upstreams": self.details()}
            return json_response(503 if missing else 200, told)
        return Response(body=await self._scrape(), headers={"content-type": CONTENT_TYPE_LATEST})

    async def _scrape(self) -> bytes:
        """Render in a thread, at most once a second: thousands of series would hold up the streams."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._metrics_at_s > METRICS_KEPT_S:
            await self.collect()
            self._metrics = await asyncio.to_thread(generate_latest, self.registry)
            self._metrics_at_s = now_s
        return self._metrics

    async def _admin(self, request: Request, path: str) -> Answer:
        authorise(request, self.admin_token)
        serve = self.admin.get((request.method, path.rstrip("/")))
        if serve is None:
            raise unknown_url(request.method, request.path)
        return json_response(200, await serve(request))


async def answered(answer: Awaitable[Answer]) -> Answer:
    """Return the answer, or the error that it came to."""
    try:
        return await answer
    except ClientError as error:
        return Response(status=error.status, body=error.body(), headers=error.headers, content_type="application/json")


def authorise(request: Request, admin_token: str) -> None:
    """Let only those through who have the token. Raises ClientError 401."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), admin_token.encode()):
        raise unauthorised("The admin interface wants its own bearer token (ops.admin_token).")


def json_response(status: int, body: Any) -> Response:
    """Return a JSON answer."""
    return Response(status=status, body=orjson.dumps(body), content_type="application/json")
