"""How long a client may refuse to read: `timeouts.write_stall` in general, of a provider, of a model; the nearest one counts."""

import asyncio
import json

import pytest

from tests.sidecars import HELLO, KEY, MODEL, house

OF_PROVIDER = 'providers: {{fake: {{kind: fake, base_url: "{fake}"OWN}}}}\n'
OF_MODEL = 'models: {"*": {targets: [{to: fake/*}]OWN}}\n'


def settings(general="", provider="", model=""):
    def own(limit):
        return f", timeouts: {{write_stall: {limit}}}" if limit else ""

    return {
        "more": f"timeouts: {{write_stall: {general}}}\n" if general else "",
        "providers": OF_PROVIDER.replace("OWN", own(provider).replace("{", "{{").replace("}", "}}")),
        "models": OF_MODEL.replace("OWN", own(model)),
    }


async def begin(h, *, stream):
    """Ask for much, and read nothing of it."""
    body = {"model": MODEL + "?length=400000", "messages": HELLO, "max_tokens": 400_000, "stream": stream}
    raw = json.dumps(body).encode()
    _, writer = await asyncio.open_connection("127.0.0.1", h.port, limit=1024)
    writer.transport.pause_reading()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(raw)}\r\n\r\n"
    writer.write(head.encode() + raw)
    return writer


def connections(h):
    return h.sidecar._listeners._servers[0].connections


@pytest.mark.parametrize(
    "limits",
    [{"general": 0.3}, {"provider": 0.3}, {"model": 0.3}, {"general": 600, "provider": 600, "model": 0.3}],
    ids=["general", "of the provider", "of the model", "the model's before all others"],
)
async def test_a_client_that_reads_nothing_is_cut_off_after_the_limit_nearest_to_the_call(store, tmp_path, limits):
    async with house(store, tmp_path, **settings(**limits)) as h:
        writer = await begin(h, stream=True)
        await h.until_receipts(1, 15)
        assert h.receipts[0].outcome == "disconnect"
        writer.transport.abort()


@pytest.mark.parametrize("limits", [{"provider": 500}, {"model": 500}, {"provider": 400, "model": 500}])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_longer_limit_is_the_connections_own_and_the_next_answer_has_its_own_again(
    store, tmp_path, limits, stream
):
    async with house(store, tmp_path, **settings(general=77, **limits)) as h:
        assert (await h.chat(stream=stream)).status == 200
        assert [c.stall_s for c in connections(h)] == [500]
        assert (await h.get("/models")).status == 200
        assert [c.stall_s for c in connections(h)] == [77]
