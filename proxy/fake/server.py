"""The fake provider itself: a real HTTP server in OpenAI's format that knows what it bills.

Paths are matched by their ends, so that it also stands in for servers with a prefix of their own. It listens on
loopback only. A client that goes away cancels its call at once, as real providers do.
"""

import asyncio
import ssl as tls
from collections import Counter, deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
from aiohttp import web
from multidict import CIMultiDictProxy

from adapters.base import JSON
from proxy.fake import refusals
from proxy.fake.embeddings import embeddings
from proxy.fake.invoice import Entry, Invoice
from proxy.fake.plan import BadRequestError, Count, count_by_bytes, plan
from proxy.fake.playback import BrokenOffError, Out, Playback, Tab
from proxy.fake.script import HONEST, Script, ScriptError, split

MODELS = ("fake-1", "fake-1-mini")
_BODY_BYTES_MAX = 64 * 1024 * 1024
_CREATED = 1_760_000_000  # where no clock is given
_OPERATIONS = (  # the first that the path ends with
    ("/chat/completions", "chat"),
    ("/completions", "completions"),
    ("/embeddings", "embeddings"),
    ("/responses", "responses"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request as it arrived."""

    method: str
    path: str  # with its query
    headers: CIMultiDictProxy[str]
    body: bytes


class FakeProvider:
    """`async with FakeProvider() as fake:` listens until the block ends.

    `pace` is tokens per second (0: as fast as they can be sent), `count` counts the prompt's text, `billing` is `cancel`
    or `drain`, `clock` gives Unix seconds, `script` is for models that name none and may be changed at any time.
    """

    def __init__(  # noqa: PLR0913 - the settings of a test server, each with its default
        self,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        pace: float = 0,
        billing: str = "cancel",
        count: Count = count_by_bytes,
        script: Script = HONEST,
        api_keys: Collection[str] | None = None,
        invoice_file: Path | None = None,
        clock: Callable[[], float] = lambda: _CREATED,
        ssl: tls.SSLContext | None = None,
        keepalive_s: float = 3600,
        keep_requests: int = 1000,
    ) -> None:
        self.script = script
        self.invoice = Invoice(invoice_file)
        self.requests: deque[Seen] = deque(maxlen=keep_requests)  # the newest
        self.in_flight = 0
        self.cancelled = 0  # calls that the client did not wait for
        self.connections = 0  # accepted so far
        self._host, self._port, self._ssl = host, port, ssl
        self._pace, self._billing, self._count, self._clock = pace, billing, count, clock
        self._api_keys = None if api_keys is None else frozenset(api_keys)
        self._keepalive_s = keepalive_s
        self._calls = 0
        self._scripts: Counter[Script] = Counter()
        self._changed = asyncio.Event()

    @property
    def url(self) -> str:
        """The base URL for an OpenAI client, with /v1."""
        return f"{'https' if self._ssl else 'http'}://{self._host}:{self._port}/v1"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._web = web.Server(
            self._handle,
            request_factory=self._request,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=self._keepalive_s,
        )
        self._server = await loop.create_server(self._accept, self._host, self._port, ssl=self._ssl, backlog=1024)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self._web.pre_shutdown()  # idle connections end by themselves; the calls that hang are cancelled
        await self._web.shutdown(0.05)
        await self._server.wait_closed()
        self.invoice.close()

    async def until(self, condition: Callable[[], bool], timeout_s: float = 5) -> None:
        """Return as soon as `condition` holds; it is looked at whenever a call begins or ends. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not condition():
                await self._changed.wait()

    def _accept(self) -> asyncio.Protocol:
        self.connections += 1
        return self._web()

    @staticmethod
    def _request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
        loop = asyncio.get_running_loop()
        return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=_BODY_BYTES_MAX)

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        self.requests.append(
            Seen(method=request.method, path=request.path_qs, headers=request.headers, body=body),
        )
        if request.method == "GET":
            return _models(request.path)
        self._calls += 1
        tab = Tab(number=self._calls, request_id=request.headers.get("x-request-id", f"fake-{self._calls}"))
        out = Out(request, HONEST, {})
        self.in_flight += 1
        self._notify()
        billing = self._billing
        try:
            script = self._choose_script(tab, request, body)
            billing = script.billing or billing
            out = Out(request, script, {"x-request-id": tab.request_id, "openai-processing-ms": "1"})
            await self._answer(request, body, script, out, tab)
        except BrokenOffError:
            tab.outcome = "broken"
        except (BadRequestError, ScriptError) as error:
            tab.status, tab.outcome = 400, "refused"
            param = error.param if isinstance(error, BadRequestError) else "model"
            await _send_json(out, 400, refusals.body(400, message=str(error), param=param))
        finally:
            self.in_flight -= 1
            self.cancelled += tab.outcome == "cancelled"
            self.invoice.append(_entry(tab, drained=billing == "drain"))
            self._notify()
        return out.response

    def _choose_script(self, tab: Tab, request: web.BaseRequest, raw: bytes) -> Script:
        """Read who is to answer and how. Raises BadRequestError and ScriptError."""
        tab.operation = next((name for end, name in _OPERATIONS if request.path.endswith(end)), "")
        body = _parse(raw)
        model = body.get("model")
        if not isinstance(model, str) or not model:
            raise BadRequestError("you must provide a model parameter", "model")
        tab.model, text = split(model)
        tab.stream = body.get("stream") is True
        script = Script.parse(text) if text else self.script
        self._scripts[script] += 1
        return HONEST if script.times is not None and self._scripts[script] > script.times else script

    async def _answer(self, request: web.BaseRequest, raw: bytes, script: Script, out: Out, tab: Tab) -> None:
        if script.hang:
            await asyncio.Event().wait()  # its limit is the client's
        await asyncio.sleep(script.delay_ms / 1000)
        if script.close:
            out.cut()
        refusal = self._refusal(request, script, tab)
        if refusal is not None:
            tab.status, tab.outcome = refusal[0], "refused"
            await _send_refusal(out, *refusal)
            return
        body = _parse(raw)
        if tab.operation == "embeddings":
            answer = embeddings(raw, body, model=tab.model, count=self._count)
            tab.prompt_tokens, tab.told = answer["usage"]["prompt_tokens"], answer["usage"]
            tab.status, tab.outcome = 200, "complete"
            await _send_json(out, 200, answer)
            return
        created = int(self._clock())
        planned = plan(tab.operation, raw, body, script, number=tab.number, created=created, count=self._count)
        playback = Playback(planned, script, out, tab, self._pace if script.pace is None else script.pace)
        await (playback.stream() if planned.stream else playback.whole())

    def _refusal(
        self, request: web.BaseRequest, script: Script, tab: Tab
    ) -> tuple[int, dict[str, str], JSON | bytes] | None:
        if self._api_keys is not None and _key(request) not in self._api_keys:
            return 401, {}, refusals.body(401)
        if not tab.operation:
            message = f"Unknown request URL: {request.method} {request.path}"
            return 404, {}, refusals.body(404, message=message, code="unknown_url")
        if script.refuses:
            return refusals.scripted(script)
        if script.empty:
            return 200, {}, b""
        if script.error_body:
            return 200, {}, refusals.body(500)
        return None


async def serve(announce: Callable[[str], object], **settings: Any) -> None:
    """Run a fake provider until cancelled; `announce` gets its base URL once it listens."""
    async with FakeProvider(**settings) as fake:
        announce(fake.url)
        await asyncio.Event().wait()


def _parse(raw: bytes) -> JSON:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise BadRequestError("We could not parse the JSON body of your request.") from None
    if not isinstance(body, dict):
        raise BadRequestError("The JSON body of your request must be an object.")
    return body


def _key(request: web.BaseRequest) -> str:
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    return bearer or request.headers.get("api-key", "")


def _models(path: str) -> web.Response:
    _, _, model = path.partition("/models/")
    rows: list[JSON] = [
        {"id": name, "object": "model", "created": _CREATED, "owned_by": "bursar"}
        for name in ([model] if model else MODELS)
    ]
    if not model and not path.endswith("/models"):
        return web.Response(status=404, body=orjson.dumps(refusals.body(404)), content_type="application/json")
    answer = rows[0] if model else {"object": "list", "data": rows}
    return web.Response(body=orjson.dumps(answer), content_type="application/json")


async def _send_json(out: Out, status: int, answer: JSON) -> None:
    await _send_refusal(out, status, {}, answer)


async def _send_refusal(out: Out, status: int, headers: dict[str, str], answer: JSON | bytes) -> None:
    body = answer if isinstance(answer, bytes) else orjson.dumps(answer)
    out.add_headers(headers)
    await out.open(status, "text/html" if body[:1] == b"<" else "application/json", len(body))
    await out.send(body)
    await out.end()


def _entry(tab: Tab, *, drained: bool) -> Entry:
    whole = drained and tab.outcome == "cancelled"
    return Entry(
        number=tab.number,
        request_id=tab.request_id,
        response_id=tab.response_id,
        operation=tab.operation,
        model=tab.model,
        stream=tab.stream,
        prompt_tokens=tab.prompt_tokens,
        completion_tokens=tab.whole if whole else tab.generated,
        status=tab.status,
        outcome=tab.outcome,
        told=tab.told,
    )
