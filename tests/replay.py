"""A provider that serves one recorded answer over a real socket, in pieces of any size, and a Bursar in front of it.

`Replay` keeps every request that it got. `bursar_before` starts one whole `Sidecar` whose providers, one of each kind and
one for each preset that has recordings, all lead to the replay; a model is called `provider/model`.
"""

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from proxy.config.load import load_text
from proxy.sidecar import Sidecar
from tests import recorded

PRESETS = (
    "alibaba", "cerebras", "deepseek", "groq", "huggingface", "mistral", "moonshotai", "ollama", "openrouter", "perplexity",
    "vllm", "zai",
)  # fmt: skip
KINDS = ("openai", "anthropic", "gemini", "vertex", "bedrock", "azure", "xai")
PROVIDERS = (*KINDS, *PRESETS)

_CONFIG = """
listen: 127.0.0.1:0
ops: {{listen: "127.0.0.1:0"}}
store: {{data_dir: {folder}}}
auth: {{mode: none}}
retries: {{attempts: 1}}
providers:
  openai: {{kind: openai, base_url: "{url}/v1", api_keys: [k-0123456789], repair: auto}}
  openai-off: {{kind: openai, base_url: "{url}/v1", api_keys: [k-0123456789], repair: off}}
  anthropic: {{kind: anthropic, base_url: "{url}", api_keys: [k-0123456789]}}
  gemini: {{kind: gemini, base_url: "{url}", api_keys: [k-0123456789]}}
  vertex: {{kind: vertex, base_url: "{url}", project: p, location: us-central1, access_token: t-0123456789}}
  bedrock: {{kind: bedrock, base_url: "{url}", region: us-east-1, access_key_id: AKIDEXAMPLE12345, secret_access_key: s-0123456789abcdef}}
  azure: {{kind: azure, base_url: "{url}", api_version: "2024-10-21", api_keys: [k-0123456789]}}
  xai: {{kind: xai, base_url: "{url}/v1", api_keys: [k-0123456789]}}
{presets}
models:
{models}
"""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came off the socket."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Reply:
    """What is served next: `size` bytes at a time (0: whole); `close` ends it without its terminator (a broken connection)."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    size: int = 0
    chunked: bool = True
    close: bool = False
    pieces: list[bytes] | None = None
    gate: asyncio.Semaphore | None = None  # passed before the head and before every piece, if given
    keep_coding: bool = False  # the body is as its content-encoding says
    hold: bool = False  # after the pieces: say nothing more, until the other side goes


class Replay:
    """Serves `replies` in turn, the last again and again."""

    def __init__(self) -> None:
        self.replies: list[Reply] = [Reply(body=b"{}")]
        self.requests: list[Request] = []
        self.gone = asyncio.Event()  # the other side left while a reply was held or gated
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self, *replies: Reply) -> None:
        """Serve these from now on, and forget what was asked before."""
        self.replies, self.requests, self.gone = list(replies), [], asyncio.Event()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=5)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._one(reader, writer):
                    pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = head[0].split(" ", 2)
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append(Request(method, path, headers, body))
        reply = self.replies[min(len(self.requests), len(self.replies)) - 1]
        gone = {"content-length", "transfer-encoding", "connection", "date", "server"} | (
            set() if reply.keep_coding else {"content-encoding"}
        )
        kept = {name: value for name, value in reply.headers.items() if name.lower() not in gone}
        chunked = reply.chunked and not reply.close
        size = (
            {"transfer-encoding": "chunked"}
            if chunked
            else {}
            if reply.close
            else {"content-length": str(len(reply.body))}
        )
        if reply.close:
            size = {"transfer-encoding": "chunked"}
        lines = [f"HTTP/1.1 {reply.status} Word", *(f"{name}: {value}" for name, value in {**kept, **size}.items())]
        await self._pass(reply, reader)
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("utf-8"))
        for piece in reply.pieces if reply.pieces is not None else recorded.pieces(reply.body, reply.size):
            await self._pass(reply, reader)
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked or reply.close else piece)
            await writer.drain()
        if reply.hold:
            await self._left(reader)
        if chunked:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return not reply.close

    async def _pass(self, reply: Reply, reader: asyncio.StreamReader) -> None:
        """Wait at the gate; if the other side leaves meanwhile, note it and stop."""
        if reply.gate is None:
            return
        opened, left = asyncio.ensure_future(reply.gate.acquire()), asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait((opened, left), return_when=asyncio.FIRST_COMPLETED)
            if left.done() and not opened.done():
                self.gone.set()
                raise ConnectionError
        finally:
            for task in (opened, left):
                task.cancel()
            await asyncio.wait((opened, left))

    async def _left(self, reader: asyncio.StreamReader) -> None:
        try:
            while await reader.read(1):
                pass
        finally:
            self.gone.set()
        raise ConnectionError


@dataclass(slots=True)
class Bursar:
    """One running sidecar and the provider behind it."""

    url: str
    replay: Replay
    session: aiohttp.ClientSession

    async def post(self, path: str, body: Any) -> tuple[int, dict[str, str], bytes]:
        """Send a request as a client would; return status, headers (lower case) and body."""
        async with self.session.post(self.url + path, json=body) as response:
            return response.status, {k.lower(): v for k, v in response.headers.items()}, await response.read()

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.session.get(self.url + path) as response:
            return response.status, json.loads(await response.read())


@asynccontextmanager
async def bursar_before(*, more: str = "") -> AsyncIterator[Bursar]:
    """Start a replay and a sidecar whose every provider is that replay; `more` is appended to the configuration."""
    replay = Replay()
    await replay.start()
    presets = "\n".join(
        f'  {name}: {{preset: {name}, base_url: "{replay.url}/v1", api_keys: [k-0123456789]}}' for name in PRESETS
    )
    models = "\n".join(f'  "{name}/*": "{name}/*"' for name in (*PROVIDERS, "openai-off"))
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        text = _CONFIG.format(folder=folder, url=replay.url, presets=presets, models=models) + more
        sidecar = Sidecar(load_text(text, "replay.yaml", {}).config)
        await sidecar.start()
        try:
            async with aiohttp.ClientSession() as session:
                yield Bursar(sidecar.url, replay, session)
        finally:
            await sidecar.stop(drain_s=1)
            await replay.stop()


def provider_of(case: dict[str, Any]) -> str:
    """Return the configured provider that stands for the one that a case was recorded from."""
    return case["provider"] if case["provider"] in PROVIDERS else "openai"


PATHS = {"openai-responses": "/v1/responses", "openai-completions": "/v1/completions"}
STAND_INS: dict[str, Any] = {  # for recordings without a request
    "/v1/responses": {"input": "hi"},
    "/v1/completions": {"prompt": "hi"},
    "/v1/embeddings": {"input": "hi", "encoding_format": "float"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
}


def request_of(case: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the path and the body that a client would send to get the recorded answer."""
    form = case["upstream_format"]
    path = "/v1/embeddings" if "embeddings" in form else PATHS.get(form, "/v1/chat/completions")
    body = dict(case["request"]["openai"] or STAND_INS[path])
    if case["request"]["openai"] is None and case["response"]["body_kind"] == "sse":
        body["stream"] = True
    native = (case["request"].get("native") or {}).get("model") if path == "/v1/embeddings" else None
    body["model"] = f"{provider_of(case)}/{body.get('model') or native or 'test-model'}"
    return path, body


def reply_of(case: dict[str, Any], size: int = 0) -> Reply:
    """Return the recorded answer, in pieces of `size` bytes; what is not a stream is sent with its length."""
    response = case["response"]
    streamed = response["body_kind"] in ("sse", "aws-eventstream")
    return Reply(
        body=recorded.response_bytes(case), status=response["status"], headers=dict(response.get("headers") or {}), size=size, chunked=streamed,
    )  # fmt: skip
