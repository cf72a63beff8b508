"""Speaks HTTP/1.1 to a listener byte by byte, as clients do that no library would be."""

import asyncio
import contextlib
import json

from tests.sidecars import KEY

BODY = json.dumps({"model": "fake-1?length=3", "messages": [{"role": "user", "content": "case 0000"}]}).encode()
AUTH = b"authorization: Bearer " + KEY.encode() + b"\r\n"
JSON = b"content-type: application/json\r\n"


def post(
    body=BODY, *, line=b"POST /v1/chat/completions HTTP/1.1", host=b"host: bursar.example\r\n", headers=b"", length=True
):
    """A well-formed call, but for what is said otherwise."""
    counted = b"content-length: %d\r\n" % len(body) if length else b""
    return line + b"\r\n" + host + AUTH + JSON + counted + headers + b"\r\n" + body


async def talk(port, data, timeout_s=11.0, *, chunks=None, end=False):
    """Send bytes and return all that comes back until the other side closes, or `timeout_s`: then None follows."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = bytearray()
    try:
        with contextlib.suppress(ConnectionError):
            for piece in chunks or (data,):
                writer.write(piece)
                await writer.drain()
                if chunks:
                    await asyncio.sleep(0)
            if end:
                writer.write_eof()
        async with asyncio.timeout(timeout_s):
            with contextlib.suppress(ConnectionError):
                while piece := await reader.read(65536):
                    got += piece
        return bytes(got), True
    except TimeoutError:
        return bytes(got), False
    finally:
        writer.close()


def answers(data):
    """The (status, body) of all responses in `data`; interim ones are left out."""
    found = []
    while data.startswith(b"HTTP/1."):
        head, _, rest = data.partition(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
        if 100 <= status < 200:
            data = rest
            continue
        if headers.get(b"transfer-encoding") == b"chunked":
            body = b""
            while rest:
                size, _, rest = rest.partition(b"\r\n")
                count = int(size, 16)
                body += rest[:count]
                rest = rest[count + 2 :]
                if not count:
                    break
        else:
            count = int(headers.get(b"content-length", b"0"))
            body, rest = rest[:count], rest[count:]
        found.append((status, body))
        data = rest
    return found


@contextlib.asynccontextmanager
async def opened(port):
    """One connection for a conversation."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def one_answer(reader):
    """Read one response with a content-length; return (status, headers, body)."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return int(lines[0].split(" ")[1]), headers, body
