"""The ops listener of a Bursar with workers: one metrics page, probes that speak for all, and the rest from one of the workers.

Admin and UI show what is in the store, which every worker knows alike; what happens live they show of the worker that answers.
"""

import asyncio
import hmac

import aiohttp
import orjson
from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from proxy.errors import ClientError, method_not_allowed, unauthorised, unavailable, unknown_url
from proxy.merging import text
from proxy.ops import METRICS_KEPT_S
from proxy.worker import Worker
from proxy.workers import Workers

_ANSWER_S = 30.0  # until the head of a worker's answer
_HOP = ("connection", "content-length", "date", "host", "keep-alive", "server", "transfer-encoding")
_OK = 200


class WorkersOps:
    """Serves the ops listener of the parent."""

    def __init__(self, workers: Workers, http: aiohttp.ClientSession) -> None:
        self._workers, self._http = workers, http
        self._metrics = b""
        self._metrics_at_s = -1e9
        self._scraping = asyncio.Lock()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        try:
            return await self._dispatch(request)
        except ClientError as error:
            return web.Response(
                status=error.status, body=error.body(), headers=error.headers, content_type="application/json"
            )

    async def _dispatch(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if path not in ("/metrics", "/livez", "/readyz"):
            if request.method == "POST" and path.rstrip("/") == "/admin/v1/drain":
                return self._drain(request)
            return await self._relay(request)
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed(request.method, "GET")
        if path == "/livez":
            return _json(_OK, {"status": "ok"})
        if path == "/readyz":
            missing = await self._missing()
            return _json(503 if missing else _OK, {"status": "not ready" if missing else "ok", "checks": missing})
        return web.Response(body=await self._scrape(), headers={"content-type": CONTENT_TYPE_LATEST})

    async def _scrape(self) -> bytes:
        async with self._scraping:
            now_s = asyncio.get_running_loop().time()
            if now_s - self._metrics_at_s > METRICS_KEPT_S:
                self._metrics = text(await self._workers.metrics()).encode()
                self._metrics_at_s = now_s
            return self._metrics

    async def _missing(self) -> dict[str, str]:
        if self._workers.stopping.is_set():
            return {"drain": "shutting down"}
        found = await asyncio.gather(*(_unready(worker) for worker in self._workers.workers))
        pairs = zip(self._workers.workers, found, strict=True)
        return {f"worker {worker.number}": why for worker, why in pairs if why}

    def _drain(self, request: web.BaseRequest) -> web.Response:
        """All are to drain, and a worker knows only itself: so the parent looks at the token."""
        known = self._workers.config.ops.admin_token.reveal()
        if not known:
            raise unknown_url(request.method, request.path)
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), known.encode()):
            raise unauthorised("The admin interface wants its own bearer token (ops.admin_token).")
        self._workers.drain_asked.set()
        return _json(_OK, {"status": "draining"})

    async def _relay(self, request: web.BaseRequest) -> web.StreamResponse:
        """Let a worker answer; the first that is ready, so that one page sees one worker."""
        worker = next((worker for worker in self._workers.workers if worker.ready), None)
        if worker is None:
            raise unavailable("No worker is ready.", code="overloaded")
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        body = await request.read()
        try:
            async with asyncio.timeout(_ANSWER_S):
                answer = await self._http.request(
                    request.method, worker.ops_url + request.raw_path, headers=headers, data=body or None, allow_redirects=False
                )  # fmt: skip
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unavailable("The worker did not answer.", code="overloaded") from error
        async with answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response


async def _unready(worker: Worker) -> str:
    """Say why a worker is not ready; empty if it is."""
    answer = await worker.ask("/readyz")
    if answer is None:
        return "does not answer"
    status, body = answer
    if status == _OK:
        return ""
    return "; ".join(orjson.loads(body).get("checks", {}).values()) or "not ready"


def _json(status: int, body: object) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
