"""The provider of the benchmark: the same 1 KB answer or the same stream for everyone, for as little CPU as Python can.

It shares a core with the load generator, so what it costs is taken from no proxy. Run as a module it prints one JSON line with its
ports (and the file of the CA behind its TLS port), then serves until it is ended.
"""

import argparse
import asyncio
import json
import ssl
import tempfile
from pathlib import Path

MODEL = "gpt-4o-mini"
CHUNKS = 50
EVERY_MS = 5
PROMPT_TOKENS, OUTPUT_TOKENS = 160, 50
_HEAD = {"id": "chatcmpl-bench0123456789abcdefghijkl", "created": 1_760_000_000, "model": MODEL}
_USAGE = {
    "prompt_tokens": PROMPT_TOKENS, "completion_tokens": OUTPUT_TOKENS, "total_tokens": PROMPT_TOKENS + OUTPUT_TOKENS,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
}  # fmt: skip


def answer(text_bytes: int = 520) -> bytes:
    """Return a whole HTTP response with a completion of about 1 KB."""
    text = ("The treasurer counts what is spent, and says no in time. " * 20)[:text_bytes]
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    body = json.dumps(
        {**_HEAD, "object": "chat.completion", "choices": [choice], "usage": _USAGE, "system_fingerprint": "fp_bench"}
    ).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nx-request-id: req_bench\r\n\r\n"
    return head.encode() + body


def stream(chunks: int, *, usage: bool) -> list[bytes]:
    """Return what is sent, piece by piece: the head with a first chunk, `chunks` of about 270 bytes, the end."""
    pieces = [_framed(_chunk({"role": "assistant", "content": ""}))]
    word = " treasurer" + "." * 30
    pieces += [_framed(_chunk({"content": word})) for _ in range(chunks - 2)]
    last = _framed(_chunk({}, finish="stop"))
    if usage:
        last += _framed({**_chunk({}), "choices": [], "usage": _USAGE})
    done = b"data: [DONE]\n\n"
    pieces.append(last + b"%x\r\n%b\r\n0\r\n\r\n" % (len(done), done))
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nx-request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n"
    return [head + pieces[0], *pieces[1:]]


def _chunk(delta: dict[str, str], finish: str | None = None) -> dict[str, object]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return {**_HEAD, "object": "chat.completion.chunk", "system_fingerprint": "fp_bench", "choices": [choice]}


def _framed(chunk: dict[str, object]) -> bytes:
    event = b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


class Upstream(asyncio.Protocol):
    """One connection; a request at a time, as proxies send them."""

    def __init__(self, scripts: dict[bool, list[bytes]], whole: bytes, every_s: float) -> None:
        self._scripts, self._whole, self._every_s = scripts, whole, every_s
        self._buffer = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a stream

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            at = head.find(b"\r\ncontent-length:")
            length = int(head[at + 17 :].partition(b"\r\n")[0]) if at >= 0 else 0
            if at < 0 and b"\r\ntransfer-encoding:" in head:
                stop = self._buffer.find(b"\r\n0\r\n\r\n", end)
                if stop < 0:
                    return
                length = stop + 7 - end - 4
            if len(self._buffer) < end + 4 + length:
                return
            body, self._buffer = self._buffer[end + 4 : end + 4 + length], self._buffer[end + 4 + length :]
            self._serve(body)

    def _serve(self, body: bytes) -> None:
        if b'"stream":true' in body or b'"stream": true' in body:
            self._pieces = self._scripts[b'"include_usage":true' in body or b'"include_usage": true' in body]
            self._next, self._at_s = 0, asyncio.get_running_loop().time()
            self._piece()
        else:
            self._transport.write(self._whole)

    def _piece(self) -> None:
        self._transport.write(self._pieces[self._next])
        self._next += 1
        if self._next < len(self._pieces):
            self._at_s += self._every_s
            self._timer = asyncio.get_running_loop().call_at(self._at_s, self._piece)


async def serve(*, chunks: int = CHUNKS, every_ms: float = EVERY_MS, tls: bool = True) -> None:
    """Listen on free ports, say which, serve for ever."""
    loop, whole = asyncio.get_running_loop(), answer()
    scripts = {usage: stream(chunks, usage=usage) for usage in (False, True)}

    def made() -> Upstream:
        return Upstream(scripts, whole, every_ms / 1000)

    plain = await loop.create_server(made, "127.0.0.1", 0, backlog=1024)
    ports: dict[str, object] = {"plain": plain.sockets[0].getsockname()[1], "tls": None, "ca": None}
    if tls:
        context, ca_file = _certificate()
        secure = await loop.create_server(made, "127.0.0.1", 0, ssl=context, backlog=1024)
        ports |= {"tls": secure.sockets[0].getsockname()[1], "ca": str(ca_file)}
    print(json.dumps(ports), flush=True)
    await asyncio.Event().wait()


def _certificate() -> tuple[ssl.SSLContext, Path]:
    import trustme

    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    folder = Path(tempfile.mkdtemp(prefix="bursar-bench-ca-"))
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    return context, folder / "ca.pem"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=CHUNKS)
    parser.add_argument("--every-ms", type=float, default=EVERY_MS)
    parser.add_argument("--no-tls", action="store_true")
    args = parser.parse_args()
    try:
        asyncio.run(serve(chunks=args.chunks, every_ms=args.every_ms, tls=not args.no_tls))
    except KeyboardInterrupt:
        pass
