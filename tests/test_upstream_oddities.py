"""C13: what providers and what is between us and them send besides answers. Never taken for a complete answer, never a 500."""

import json

import pytest

from tests.misbehaving import chunked, provider
from tests.sidecars import house, rows_of

ANSWER = json.dumps({
    "id": "x", "object": "chat.completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi there"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}).encode()  # fmt: skip
N = b"%d" % len(ANSWER)


def delta(text, finish=None):
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
EVENTS = delta("one ") + delta("two ") + delta("three", "stop") + DONE
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
PLAIN = JSON + b"content-length: " + N + b"\r\n\r\n" + ANSWER
TE = b"transfer-encoding: chunked\r\n\r\n"


def says(data, *, close=True):
    async def script(peer):
        while await peer.request():
            await peer.write(data)
            if close:
                return

    return script


class At:
    """An address in place of the fake provider's."""

    def __init__(self, odd):
        self.url = odd.url("/v1")


WHOLE = {
    "well-formed": (PLAIN, 200),
    "five 1xx before": (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 5 + PLAIN, 200),
    "a flood of 1xx": (b"HTTP/1.1 102 Processing\r\n\r\n" * 5000 + PLAIN, 502),
    "101": (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\n" + PLAIN, 502),
    "less than its length": (JSON + b"content-length: 9999\r\n\r\n" + ANSWER, 502),
    "more than its length": (JSON + b"content-length: 10\r\n\r\n" + ANSWER, 502),
    "two lengths": (JSON + b"content-length: 5\r\ncontent-length: " + N + b"\r\n\r\n" + ANSWER, 502),
    "length and chunks": (JSON + b"content-length: 5\r\n" + TE + chunked(ANSWER, b""), 502),
    "an odd transfer-encoding": (JSON + b"transfer-encoding: gzip, chunked\r\n\r\n" + chunked(ANSWER, b""), 502),
    "chunks that break off": (JSON + TE + chunked(ANSWER), 502),
    "a bad chunk size": (JSON + TE + b"zz\r\n" + ANSWER + b"\r\n0\r\n\r\n", 502),
    "delimited by the close, whole": (JSON + b"\r\n" + ANSWER, 200),
    "delimited by the close, cut": (JSON + b"\r\n" + ANSWER[:-20], 502),
    "bare LFs": (PLAIN.replace(b"\r\n", b"\n"), 502),
    "a NUL in a header": (JSON + b"x: a\x00b\r\ncontent-length: " + N + b"\r\n\r\n" + ANSWER, 502),
    "a 9 KB header": (JSON + b"x: " + b"y" * 9000 + b"\r\ncontent-length: " + N + b"\r\n\r\n" + ANSWER, 200),
    "a 90 KB header": (JSON + b"x: " + b"y" * 90_000 + b"\r\ncontent-length: " + N + b"\r\n\r\n" + ANSWER, 502),
    "HTTP/2.0": (PLAIN.replace(b"HTTP/1.1", b"HTTP/2.0"), 502),
    "no HTTP at all": (b"220 smtp.example ESMTP\r\n", 502),
    "nothing": (b"", 502),
    "half a head": (b"HTTP/1.1 200 O", 502),
    "a redirect": (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n", 502),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 502),
    "no JSON": (JSON + b"content-length: 5\r\n\r\nhello", 502),
    "a page": (b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html></html>", 502),
    "JSON that is no object": (JSON + b"content-length: 2\r\n\r\n[]", 502),
    "an empty object": (JSON + b"content-length: 2\r\n\r\n{}", 502),
    "a page as an error": (b"HTTP/1.1 503 Busy\r\ncontent-type: text/html\r\ncontent-length: 13\r\n\r\n<html></html>", 503),
    "an early 413": (b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", 413),
    "a status of 999": (b"HTTP/1.1 999 Nope\r\ncontent-length: 0\r\n\r\n", 502),
    "a status of 600": (b"HTTP/1.1 600 Nope\r\ncontent-length: 0\r\n\r\n", 502),
    "an encoding that was not asked for": (JSON + b"content-encoding: br\r\ncontent-length: 5\r\n\r\nxxxxx", 502),
}  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
async def test_a_strange_answer_is_an_error_and_never_a_completion(store, tmp_path, name):
    data, status = WHOLE[name]
    more = "timeouts: {first_token: 2, idle: 2}\nretries: {attempts: 1}\n"
    async with provider(says(data)) as odd, house(store, tmp_path, fake=At(odd), more=more) as home:
        reply = await home.chat()
        assert reply.status == status, reply
        if status == 200:
            assert reply.json["choices"][0]["message"]["content"] == "hi there"
        else:
            assert set(reply.error) >= {"message", "type", "param", "code"}
            assert b"127.0.0.1:9" not in reply.body
            assert "location" not in reply.headers
        await home.settled()
        assert home.sidecar.ledger.open == {}


HEAD = SSE + TE
STREAMS = {
    "well-formed": (HEAD + chunked(EVENTS, b""), None),
    "one byte a chunk": (HEAD + chunked(*(EVENTS[i : i + 1] for i in range(len(EVENTS))), b""), None),
    "CRLF": (HEAD + chunked(EVENTS.replace(b"\n", b"\r\n"), b""), None),
    "a byte order mark and comments": (HEAD + chunked(b"\xef\xbb\xbf: OPENROUTER PROCESSING\n\n" + EVENTS, b""), None),
    "no chunk of length zero after [DONE]": (HEAD + chunked(EVENTS), None),
    "no [DONE]": (HEAD + chunked(EVENTS.removesuffix(DONE), b""), "either"),
    "no finish": (HEAD + chunked(delta("one "), b""), "error"),
    "delimited by the close, cut": (SSE + b"\r\n" + delta("one ") + delta("two "), "error"),
    "cut inside an event": (HEAD + chunked(delta("one ") + delta("two")[:30]), "error"),
    "an error event": (HEAD + chunked(delta("one ") + b'data: {"error": {"message": "boom", "type": "server_error"}}\n\n', b""), "error"),
    "chunks that turn bad": (HEAD + chunked(delta("one ")) + b"zz\r\n", "error"),
    "a length too short": (SSE + b"content-length: 40\r\n\r\n" + EVENTS, "error"),
}  # fmt: skip


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_is_complete_only_if_it_says_so(store, tmp_path, name):
    data, outcome = STREAMS[name]
    more = "timeouts: {first_token: 2, idle: 2}\nretries: {attempts: 1}\n"
    async with provider(says(data)) as odd, house(store, tmp_path, fake=At(odd), more=more) as home:
        reply = await home.chat(stream=True)
        if reply.status != 200:  # it broke before anything was there to be sent on
            assert outcome == "error"
            assert reply.status == 502
            return
        rows = rows_of(reply.body)
        finished = any(row.get("choices") and row["choices"][0].get("finish_reason") for row in rows)
        failed = any("error" in row for row in rows)
        if outcome is None:
            assert (finished, failed) == (True, False)
            assert reply.body.endswith((DONE, DONE.replace(b"\n", b"\r\n")))
        elif outcome == "error":
            assert (finished, failed) == (False, True)
            assert b"[DONE]" not in reply.body
        await home.settled()
        assert home.receipts[-1].outcome == ("upstream_error" if failed else "ok")


async def test_a_stream_whose_name_is_json_is_not_relayed_as_one(store, tmp_path):
    data = JSON + b"content-length: " + N + b"\r\n\r\n" + ANSWER
    async with (
        provider(says(data)) as odd,
        house(store, tmp_path, fake=At(odd), more="retries: {attempts: 1}\n") as home,
    ):
        reply = await home.chat(stream=True)
        assert (reply.status, reply.error["code"]) == (502, "upstream_protocol_error")
        await home.settled()
        assert home.receipts[-1].usage.output == 2  # the provider worked for it, and will bill it
