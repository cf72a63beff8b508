"""Sends a planned answer over one connection, at its pace, and misbehaves in the middle of it as its script says.

`Tab` is what has been generated so far: it is right at every await, because a client that goes away cancels the
playback at any of them.
"""

import asyncio
from dataclasses import dataclass

import orjson
from aiohttp import web

from adapters.base import JSON
from adapters.sse import encode
from proxy.fake import refusals
from proxy.fake.formats import Chat, Completions, Format
from proxy.fake.plan import Plan
from proxy.fake.responses import Responses
from proxy.fake.script import Script

FORMATS: dict[str, type[Format]] = {"chat": Chat, "completions": Completions, "responses": Responses}
_GARBAGE = b'data: {"id": "chatcmpl-broken", "choices": [{"index"\n\n'


class BrokenOffError(Exception):
    """The script closed the connection; there is nothing more to send."""


@dataclass(slots=True, kw_only=True)
class Tab:
    """One call in progress, for its entry in the invoice."""

    number: int
    request_id: str
    operation: str = ""
    model: str = ""
    stream: bool = False
    response_id: str = ""
    prompt_tokens: int = 0
    whole: int = 0  # tokens of the whole answer, for a provider that bills it although nobody reads it
    generated: int = 0
    status: int = 0
    outcome: str = "cancelled"  # until something else is known
    told: JSON | None = None


class Out:
    """The answer on the wire: one head, then pieces of the body as the script wants them cut."""

    def __init__(self, request: web.BaseRequest, script: Script, headers: dict[str, str]) -> None:
        self._request, self._script, self._headers = request, script, headers
        self._sent_bytes = self._events = 0
        self.response = web.StreamResponse()

    def add_headers(self, headers: dict[str, str]) -> None:
        """Send these with the head, too."""
        self._headers = {**self._headers, **headers}

    async def open(self, status: int, content_type: str, length: int | None = None) -> None:
        """Send the head."""
        self.response = web.StreamResponse(status=status, headers={**self._headers, "content-type": content_type})
        if length is not None:
            self.response.content_length = length
        if self._script.last:
            self.response.force_close()
        await self.response.prepare(self._request)

    async def event(self, event: bytes) -> None:
        """Send one event of a stream."""
        if self._script.comments and self._events % self._script.comments == 0:
            event = b": this is a comment\n\n" + event
        self._events += 1
        await self.send(event.replace(b"\n", b"\r\n") if self._script.crlf else event)

    async def send(self, data: bytes) -> None:
        """Send a part of the body. Raises BrokenOffError where the script's count of bytes ends."""
        if self._script.cut_bytes is not None:
            data = data[: self._script.cut_bytes - self._sent_bytes]
        self._sent_bytes += len(data)
        size = self._script.bytes or len(data) or 1
        for at in range(0, len(data), size):
            await self.response.write(data[at : at + size])
            await asyncio.sleep(0)
        if self._sent_bytes == self._script.cut_bytes:
            self.cut()

    def cut(self, *, reset: bool = False) -> None:
        """Close the connection here. Raises BrokenOffError always."""
        transport = self._request.transport
        if transport is not None:
            transport.abort() if reset else transport.close()
        raise BrokenOffError

    async def end(self) -> None:
        """End the body."""
        await self.response.write_eof()
        if self._script.close_after and self._request.transport is not None:
            self._request.transport.close()


class Playback:
    """Plays one plan; `stream` or `whole` may be called once. Raises BrokenOffError where the script breaks off."""

    def __init__(self, plan: Plan, script: Script, out: Out, tab: Tab, pace: float) -> None:
        self._plan, self._script, self._out, self._tab, self._pace = plan, script, out, tab, pace
        self._format = FORMATS[plan.operation](plan, script)
        self._due_s = asyncio.get_running_loop().time()
        tab.response_id, tab.prompt_tokens, tab.whole = self._format.id, plan.prompt_tokens, plan.completion_tokens

    async def stream(self) -> None:
        """Send the answer token by token."""
        self._tab.status = 200
        await self._out.open(200, "text/event-stream; charset=utf-8")
        await self._fault()
        await self._events(self._format.begin())
        for index, piece in self._plan.steps():
            await self._token()
            if piece is not None:
                await self._events(self._format.token(index, piece))
            await self._fault()
        await self._end()

    async def whole(self) -> None:
        """Send the answer in one piece, when all of it has been generated."""
        for _ in self._plan.steps():
            if self._tab.generated == self._script.stall:
                await _forever()
            if self._pace:
                await self._token()
            else:
                self._tab.generated += 1
        body = orjson.dumps(self._format.whole(self._told()))
        self._tab.status = 200
        if self._script.malformed or self._script.garbage is not None:
            body = body[: len(body) // 2]
        await self._out.open(200, "application/json", None if self._script.bytes else len(body))
        if self._script.cut is not None or self._script.reset is not None:
            await self._out.send(body[: len(body) // 2])
            self._out.cut(reset=self._script.reset is not None)
        self._tab.outcome = "complete"
        await self._out.send(body)
        await self._out.end()

    async def _end(self) -> None:
        if not self._script.no_finish:
            await self._events(self._format.finish())
        told = self._told()
        if self._plan.operation == "responses" or (self._plan.include_usage and told is not None):
            await self._events(self._format.usage(told or {}))
        else:
            self._tab.told = None
        self._tab.outcome = "complete"  # before the last byte: a client may hang up as soon as it has it
        if self._format.done and not (self._script.no_done or self._script.no_finish):
            await self._out.event(self._format.done)
        await self._out.end()

    async def _token(self) -> None:
        """Generate one token: it is billed from here on."""
        if self._pace:
            loop = asyncio.get_running_loop()
            self._due_s += 1 / self._pace
            await asyncio.sleep(max(0, self._due_s - loop.time()))
        self._tab.generated += 1

    async def _fault(self) -> None:
        script, at = self._script, self._tab.generated
        if at == script.stall:
            await _forever()
        if at == script.garbage:
            await self._out.event(_GARBAGE)
        if at == script.error_after:
            await self._out.event(encode(refusals.body(500)))
            self._tab.outcome = "broken"
            await self._out.end()
            raise BrokenOffError
        if at in {script.cut, script.reset}:
            self._out.cut(reset=at == script.reset)

    async def _events(self, events: list[bytes]) -> None:
        for event in events:
            await self._out.event(event)

    def _told(self) -> JSON | None:
        if self._script.no_usage:
            return None
        usage = self._plan.usage(max(0, self._tab.generated + self._script.usage_wrong))
        if self._script.usage_zero:
            usage = {key: 0 if isinstance(value, int) else value for key, value in usage.items()}
        self._tab.told = usage
        return usage


async def _forever() -> None:
    await asyncio.Event().wait()  # its limit is the client's: the connection's end cancels it
