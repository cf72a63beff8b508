"""The ops listener of a Bursar with workers: one metrics page, probes that speak for all, and the rest from one of the workers.

Admin and UI show what is in the store, which every worker knows alike; what happens live they show of the worker that answers.
"""

import asyncio

import aiohttp
import orjson
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from proxy.errors import method_not_allowed, unavailable, unknown_url
from proxy.merging import text
from proxy.ops import METRICS_KEPT_S, answered, authorise, json_response
from proxy.serving.request import Request
from proxy.serving.response import Answer, Response, StreamedResponse
from proxy.worker import Worker
from proxy.workers import Workers

_ANSWER_S = 30.0  # until the head of a worker's answer
_HOP = ("connection", "content-length", "date", "host", "keep-alive", "server", "transfer-encoding")
_OK = 200
Upstreams = dict[str, dict[str, int]]  # by provider, what is not as it should be


class WorkersOps:
    """Serves the ops listener of the parent."""

    def __init__(self, workers: Workers, http: aiohttp.ClientSession) -> None:
        self._workers, self._http = workers, http
        self._metrics = b""
        self._metrics_at_s = -1e9
        self._scraping = asyncio.Lock()

    async def handle(self, request: Request) -> Answer:
        """Answer one request."""
        return await answered(self._dispatch(request))

    async def _dispatch(self, request: Request) -> Answer:
        path = request.path
        if path not in ("/metrics", "/livez", "/readyz"):
            if request.method == "POST" and path.rstrip("/") == "/admin/v1/drain":
                return self._drain(request)
            return await self._relay(request)
        if request.method not in ("GET", "HEAD"):
            raise method_not_allowed(request.method, "GET")
        if path == "/livez":
            return json_response(_OK, {"status": "ok"})
        if path == "/readyz":
            missing, upstreams = await self._fitness()
            status = "not ready" if missing else "ok"
            return json_response(503 if missing else _OK, {"status": status, "checks": missing, "upstreams": upstreams})
        return Response(body=await self._scrape(), headers={"content-type": CONTENT_TYPE_LATEST})

    async def _scrape(self) -> bytes:
        async with self._scraping:
            now_s = asyncio.get_running_loop().time()
            if now_s - self._metrics_at_s > METRICS_KEPT_S:
                self._metrics = text(await self._workers.metrics()).encode()
                self._metrics_at_s = now_s
            return self._metrics

    async def _fitness(self) -> tuple[dict[str, str], Upstreams]:
        """Return what is not ready, by worker, and of each provider the worst that a worker says."""
        if self._workers.stopping.is_set():
            return {"drain": "shutting down"}, {}
        found = await asyncio.gather(*(_fitness(worker) for worker in self._workers.workers))
        missing, worst = {}, Upstreams()
        for worker, (why, upstreams) in zip(self._workers.workers, found, strict=True):
            if why:
                missing[f"worker {worker.number}"] = why
            for name, state in upstreams.items():
                known = worst.setdefault(name, {})
                known.update({what: max(count, known.get(what, 0)) for what, count in state.items()})
        return missing, worst

    def _drain(self, request: Request) -> Response:
        """All are to drain, and a worker knows only itself: so the parent looks at the token."""
        known = self._workers.config.ops.admin_token.reveal()
        if not known:
            raise unknown_url(request.method, request.path)
        authorise(request, known)
        self._workers.drain_asked.set()
        return json_response(_OK, {"status": "draining"})

    async def _relay(self, request: Request) -> Answer:
        """Let a worker answer; the first that is ready, so that one page sees one worker."""
        worker = next((worker for worker in self._workers.workers if worker.ready), None)
        if worker is None:
            raise unavailable("No worker is ready.", code="overloaded")
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP}
        body = await request.read()
        path = request.raw_path + (f"?{request.raw_query}" if request.raw_query else "")
        try:
            async with asyncio.timeout(_ANSWER_S):
                answer = await self._http.request(
                    request.method, worker.ops_url + path, headers=headers, data=body or None, allow_redirects=False
                )  # fmt: skip
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise unavailable("The worker did not answer.", code="overloaded") from error
        async with answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP}
            response = StreamedResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response


async def _fitness(worker: Worker) -> tuple[str, Upstreams]:
    """Say why a worker is not ready, empty if it is; and what it says of the providers."""
    answer = await worker.ask("/readyz")
    if answer is None:
        return "does not answer", {}
    status, body = answer
    told = orjson.loads(body)
    why = "" if status == _OK else "; ".join(told.get("checks", {}).values()) or "not ready"
    return why, told.get("upstreams", {})
