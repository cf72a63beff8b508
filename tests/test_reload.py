"""A changed file is put in force whole, by SIGHUP or because it changed, without dropping a stream; a bad one changes nothing."""

import asyncio
import itertools
import json
import signal

import aiohttp
import pytest

from proxy.fake import FakeProvider
from tests.sidecars import HELLO, KEY, MODEL, config_text, serving

pytestmark = pytest.mark.slow
_runs = itertools.count()
NEW_KEY = "sk-new-0123456789abcdef0123456789x"
NEW_KEYS = f'keys: [{{id: new, user: nina, secret: "{NEW_KEY}"}}]\n'


@pytest.fixture
async def running(store, tmp_path):
    """A real process, its file, its provider; `say(key)` is the status of a call with that key."""
    file = tmp_path / "bursar.yaml"
    async with FakeProvider() as fake, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http:
        prefix = f"reload{next(_runs)}"
        text = config_text(store, tmp_path, fake.url, prefix=prefix)
        file.write_text(text)
        async with serving(file) as process:

            async def say(key, model=MODEL):
                body = {"model": model, "messages": HELLO}
                headers = {"authorization": f"Bearer {key}"}
                async with http.post(process.url + "/chat/completions", json=body, headers=headers) as answer:
                    return answer.status

            process.say, process.http, process.file, process.fake, process.text = say, http, file, fake, text
            process.again = lambda **more: config_text(store, tmp_path, fake.url, prefix=prefix, **more)
            yield process


@pytest.mark.parametrize("how", ["signal", "change"])
async def test_a_changed_file_is_in_force_and_a_stream_goes_on(running, how):
    assert (await running.say(KEY), await running.say(NEW_KEY)) == (200, 401)
    body = {"model": MODEL + "?length=60&pace=15", "messages": HELLO, "stream": True}
    headers = {"authorization": f"Bearer {KEY}"}
    async with running.http.post(running.url + "/chat/completions", json=body, headers=headers) as stream:
        await stream.content.readuntil(b"\n\n")
        running.file.write_text(running.again(keys=NEW_KEYS))
        if how == "signal":
            running.signal(signal.SIGHUP)
        await running.until_logged("configuration reloaded")
        assert (await running.say(KEY), await running.say(NEW_KEY)) == (401, 200)
        assert running.fake.in_flight == 1  # the stream is still going
        rest = await stream.content.read()
    assert rest.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    "bad", ["keys: [", "nonsense: 1\n", "models: {a: nobody/b}\n", "keys: [{id: x, user: u}]\n", "\x00", ""], ids=range(6)
)  # fmt: skip
async def test_a_bad_file_changes_nothing_and_is_told(running, bad):
    running.file.write_text(bad if not bad else running.text + bad)
    running.signal(signal.SIGHUP)
    await running.until_logged("the old one stays")
    assert await running.say(KEY) == 200
    assert KEY not in running.log
    running.file.write_text(running.again(keys=NEW_KEYS))
    running.signal(signal.SIGHUP)
    await running.until_logged("configuration reloaded")
    assert (await running.say(KEY), await running.say(NEW_KEY)) == (401, 200)


async def test_budgets_and_models_of_the_new_file_count(running):
    more = 'budgets: [{subject: "user:alice", requests: 1, period: total}]\n'
    running.file.write_text(running.again(models="models: {renamed: fake/fake-1}\n", more=more))
    running.signal(signal.SIGHUP)
    await running.until_logged("configuration reloaded")
    assert await running.say(KEY) == 404
    assert await running.say(KEY, "renamed") == 200
    assert await running.say(KEY, "renamed") == 429


async def test_a_smaller_limit_for_bodies_counts_on_connections_that_are_open(running):
    assert await running.say(KEY) == 200
    running.file.write_text(running.again(more="server: {max_body: 20B}\n"))
    running.signal(signal.SIGHUP)
    await running.until_logged("configuration reloaded")
    assert await running.say(KEY) == 413


async def test_a_file_that_is_replaced_as_a_configmap_is_seen(running):
    staged = running.file.with_name("staged.yaml")
    staged.write_text(running.again(keys=NEW_KEYS))
    staged.rename(running.file)
    await running.until_logged("configuration reloaded")
    assert await running.say(NEW_KEY) == 200


async def test_many_signals_at_once_do_no_harm(running):
    for _ in range(20):
        running.signal(signal.SIGHUP)
    await running.until_logged("configuration reloaded")
    statuses = await asyncio.gather(*(running.say(KEY) for _ in range(20)))
    assert set(statuses) == {200}
    assert "Traceback" not in running.log
    assert all(json.loads(line) for line in running.log.splitlines())
