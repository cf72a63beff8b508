"""P10: what a real `bursar serve` with the embedded store takes in memory, before and while it answers without counting."""

import sys
from pathlib import Path

import aiohttp
import pytest

from proxy.fake import FakeProvider
from tests.sidecars import HELLO, KEY, MODEL, config_text, serving

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")]
READY_MB = 60
SERVED_MB = 70
BUDGET = 'budgets: [{subject: "user:alice", usd: 100, period: day}]\n'


def resident_mb(pid):
    """Resident memory of one process in MB of 2**20 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


@pytest.fixture
async def running(tmp_path):
    """A process with an embedded store of its own."""
    file = tmp_path / "bursar.yaml"
    async with FakeProvider() as fake:
        file.write_text(config_text("embedded", tmp_path / "data", fake.url, more=BUDGET))
        async with serving(file) as process:
            process.fake = fake
            yield process


async def test_a_ready_process_is_small(running):
    async with aiohttp.ClientSession() as http, http.get(running.ops_url + "/readyz") as answer:
        assert answer.status == 200
    assert resident_mb(running.process.pid) <= READY_MB


async def test_a_process_that_has_served_without_counting_is_still_small(running):
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30)) as http:
        headers = {"authorization": f"Bearer {KEY}"}
        for number in range(200):
            body = {"model": MODEL + "?length=30", "messages": HELLO, "max_tokens": 50, "stream": number % 2 == 0}
            async with http.post(running.url + "/chat/completions", json=body, headers=headers) as answer:
                assert answer.status == 200
                await answer.read()
    assert "/aiohttp/" not in Path(f"/proc/{running.process.pid}/maps").read_text(), "nothing that serves needs it"
    assert resident_mb(running.process.pid) <= SERVED_MB
