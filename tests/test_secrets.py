"""P8: no key, prompt or completion in any log, metric, error or label; malformed requests get constants for an answer."""

import asyncio
import json
import logging

import aiohttp
import pytest

from proxy.fake import FakeProvider
from proxy.logs import JsonLines, TextLines
from tests.sidecars import KEY, KEYS, MODEL, PROVIDER_KEY, config_text, house, serving

PROMPT = "canary-prompt-7f3a91"
ANSWER = "canary-answer-55d2c0"
WRONG = "sk-canary-wrong-key-0a1b2c3d4e"
CANARIES = (PROMPT, ANSWER, WRONG, KEY, PROVIDER_KEY)
BUDGET = (
    'budgets: [{subject: "user:alice", tokens: 100000, period: day}]\nretries: {attempts: 1}\ntimeouts: {idle: 0.2}\n'
)
ASKED = [{"role": "user", "content": PROMPT}]

MALFORMED = {
    "bad header line": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + KEY.encode() + b"\r\nx bad " + PROMPT.encode() + b"\r\n\r\n",
    "bad header name": b"GET /v1/models HTTP/1.1\r\nhost: x\r\n" + KEY.encode() + b"\x01: x\r\n\r\n",
    "control character": b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + KEY.encode() + b"\x00\r\n\r\n",
    "bad request line": KEY.encode() + b" " + PROMPT.encode() + b"\r\n\r\n",
    "bad method": b"G@T /v1/" + PROMPT.encode() + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    "bad version": b"GET /v1/" + PROMPT.encode() + b" HTTP/9.9\r\nhost: x\r\n\r\n",
    "bad length": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: " + PROMPT.encode() + b"\r\n\r\n",
    "two lengths": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\nx: " + PROMPT.encode() + b"\r\n\r\n",
    "length and chunks": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\nx: " + PROMPT.encode() + b"\r\n\r\n0\r\n\r\n",
    "bad chunk": b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + KEY.encode() + b"\r\ntransfer-encoding: chunked\r\n\r\n" + PROMPT.encode() + b"\r\n",
    "long header": b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx: " + PROMPT.encode() * 5000 + b"\r\n\r\n",
    "long path": b"GET /v1/" + PROMPT.encode() * 5000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + PROMPT.encode(),
}  # fmt: skip


@pytest.fixture
def log():
    """All that any logger writes, as both formats write it."""
    lines = []

    class Keep(logging.Handler):
        def emit(self, record):
            lines.append(JsonLines().format(record))
            lines.append(TextLines().format(record))

    handler, root = Keep(logging.DEBUG), logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("", "bursar", "aiohttp", "asyncio")}
    root.addHandler(handler)
    for name in levels:
        logging.getLogger(name).setLevel(logging.DEBUG)
    yield lines
    root.removeHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
async def h(store, tmp_path):
    async with house(store, tmp_path, more=BUDGET) as made:
        yield made


def clean(*texts):
    for text in texts:
        for canary in CANARIES:
            assert canary not in (text.decode("latin-1") if isinstance(text, bytes) else text), canary


async def raw(port, data):
    """Send bytes; return all that comes back until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        async with asyncio.timeout(10):
            answer = await reader.read()
    except ConnectionError:
        answer = b""
    writer.close()
    return answer


async def test_nothing_that_callers_and_providers_say_is_kept_anywhere(h, log):
    for script in (
        "length=5",
        "no_usage",
        "cut=3",
        "error_after=2",
        "stall=2",
        "garbage=2",
        "status=400",
        "status=500",
        "html_error",
        "malformed",
        "empty",
        "close",
        "status=401",
    ):
        for stream in (False, True) if script != "stall=2" else (True,):
            await h.chat(f"{MODEL}?{script}", messages=ASKED, stream=stream)
    for body in (
        b"{" + PROMPT.encode(),
        json.dumps({"model": PROMPT}).encode(),
        json.dumps(PROMPT).encode(),
        b'{"model": "gpt-4o", "messages": "' + PROMPT.encode() + b'"}',
    ):
        await h.send("POST", "/chat/completions", data=body)
    for key in (WRONG, PROVIDER_KEY):
        clean((await h.chat(key=key, messages=ASKED)).body)
    await h.get("/" + PROMPT)
    await h.settled()
    clean("\n".join(log), await h.scrape(), json.dumps(await h.records()))
    assert any('"outcome":"ok"' in line for line in log)


async def test_what_a_provider_answers_is_in_no_record_and_no_log(h, log):
    reply = await h.chat(MODEL + "?length=30", messages=ASKED)
    words = reply.json["choices"][0]["message"]["content"]
    await h.settled()
    everything = "\n".join(log) + await h.scrape() + json.dumps(await h.records())
    assert words[:40] not in everything
    assert " ".join(words.split()[3:8]) not in everything


async def test_a_bug_of_our_own_is_told_without_its_words(h, log, monkeypatch):
    async def broken(*_):
        raise ValueError(f"what a bug might say: {PROMPT} {KEY}")

    monkeypatch.setattr(type(h.sidecar.routes.gateway), "call", broken)
    reply = await h.chat(messages=ASKED)
    assert (reply.status, reply.error["type"], reply.error["code"]) == (500, "server_error", "internal_error")
    clean(reply.body, "\n".join(log))
    assert any("ValueError" in line for line in log)


@pytest.mark.parametrize("name", MALFORMED)
async def test_a_malformed_request_gets_a_constant_and_leaves_no_trace(h, log, name):
    answers = [
        await raw(h.port, MALFORMED[name]),
        await raw(int(h.sidecar.ops_url.rpartition(":")[2]), MALFORMED[name]),
    ]
    for answer in answers:
        clean(answer)
        if name != "long path" and answer:
            assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
            assert b'"error"' in answer
    clean("\n".join(log))
    assert (await h.chat()).status == 200


@pytest.mark.slow
async def test_a_real_process_writes_none_of_it_at_its_most_talkative(store, tmp_path):
    file = tmp_path / "bursar.yaml"
    async with FakeProvider() as fake, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http:
        text = config_text(store, tmp_path, fake.url, more=BUDGET).replace("level: info", "level: debug")
        file.write_text(text)
        async with serving(file) as process:
            port = int(process.url.split(":")[2].split("/")[0])
            for data in MALFORMED.values():
                await raw(port, data)
            for key in (KEY, WRONG):
                for script in ("length=5", "status=500", "cut=2", "status=401"):
                    headers = {"authorization": f"Bearer {key}"}
                    body = {"model": f"{MODEL}?{script}", "messages": ASKED, "stream": True}
                    async with http.post(process.url + "/chat/completions", json=body, headers=headers) as answer:
                        await answer.read()
            async with http.get(process.ops_url + "/metrics") as answer:
                clean(await answer.read())
            process.process.terminate()
            assert await process.ended() == 0
            clean(process.log, process.banner)
            assert "Traceback" not in process.log
            assert all(json.loads(line) for line in process.log.splitlines())


async def test_nothing_in_the_store_opens_a_door(store, tmp_path):
    keys = KEYS
    async with house(store, tmp_path, keys=keys, more=BUDGET, prefix="secretless") as h:
        await h.chat(messages=ASKED)
        await h.settled()
        for name in await store.command("KEYS", "secretless*"):
            dump = await store.command("DUMP", name)
            clean(name, dump)
