"""Several processes on one port: one budget, one metrics page, and no one of them is needed."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from proxy.fake import FakeProvider
from proxy.merging import counters, merge, parse, text
from tests.sidecars import HELLO, KEY, KEYS, MODELS, PRICES, PROVIDERS, ROOT, samples, total

BUDGET = 12
TOKEN = "tok-0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("pages", "wanted"),
    [
        pytest.param(['# TYPE a counter\na_total{x="1"} 2', '# TYPE a counter\na_total{x="1"} 3'], 'a_total{x="1"} 5.0', id="counters"),
        pytest.param(["# TYPE bursar_in_flight gauge\nbursar_in_flight 2", "# TYPE bursar_in_flight gauge\nbursar_in_flight 1"], "bursar_in_flight 3.0", id="gauges"),
        pytest.param(["# TYPE bursar_budget_used gauge\nbursar_budget_used 5", "# TYPE bursar_budget_used gauge\nbursar_budget_used 7"], "bursar_budget_used 7.0", id="balances"),
        pytest.param(["# TYPE bursar_store_up gauge\nbursar_store_up 1", "# TYPE bursar_store_up gauge\nbursar_store_up 0"], "bursar_store_up 0.0", id="up"),
        pytest.param(["# TYPE a_created gauge\na_created 20", "# TYPE a_created gauge\na_created 10"], "a_created 10.0", id="born first"),
        pytest.param(['# TYPE h histogram\nh_bucket{le="+Inf"} 2', '# TYPE h histogram\nh_bucket{le="+Inf"} 2'], 'h_bucket{le="+Inf"} 4.0', id="histograms"),
        pytest.param(['# TYPE a counter\na_total{x="b c"} 2', '# TYPE a counter\na_total{x="d"} 3'], 'a_total{x="b c"} 2.0\na_total{x="d"} 3.0', id="labels"),
    ],
)  # fmt: skip
def test_pages_of_workers_become_one(pages, wanted):
    assert text(merge(parse(page) for page in pages)).partition("\n")[2].strip() == wanted


def test_a_page_is_written_as_it_was_read():
    page = '# HELP a What it is.\n# TYPE a counter\na_total{x="1",y="b\\"c"} 2.0\n'
    assert text(parse(page)) == page


def test_what_a_dead_worker_counted_goes_on_being_counted_and_what_it_held_does_not():
    dead = counters(parse("# TYPE a counter\na_total 2\n# TYPE g gauge\ng 7\n"))
    alive = parse("# TYPE a counter\na_total 1\n# TYPE g gauge\ng 1\n")
    assert text(merge([dead, alive])).splitlines()[1::2] == ["a_total 3.0", "g 1.0"]


class Parent:
    """`bursar serve --workers 2` with its own embedded store, and a client that never keeps a connection."""

    def __init__(self, process, url, ops_url):
        self.process, self.url, self.ops_url = process, url, ops_url

    async def call(self, http):
        body = {"model": "fake-1", "messages": HELLO, "max_tokens": 16}
        async with http.post(
            self.url + "/chat/completions", json=body, headers={"authorization": f"Bearer {KEY}"}
        ) as answer:
            await answer.read()
            return answer.status

    async def metrics(self, http):
        async with http.get(self.ops_url + "/metrics") as answer:
            return samples(await answer.text())

    async def until(self, http, name, value, **labels):
        """Scrape until a metric has this value."""
        async with asyncio.timeout(20):
            while total(found := await self.metrics(http), name, **labels) != value:
                await asyncio.sleep(0.3)  # a page is kept for a second
        return found

    def workers(self):
        """Pids of the children that run Python."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if b"--worker-fd" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.fixture
async def parent(tmp_path):
    async with FakeProvider() as fake:
        config = tmp_path / "bursar.yaml"
        config.write_text(
            'listen: 127.0.0.1:0\nops: {listen: "127.0.0.1:0", admin_token: "' + TOKEN + '"}\n'
            f"store: {{url: embedded, data_dir: {tmp_path}/data}}\n"
            + PROVIDERS.format(fake=fake.url) + MODELS + KEYS + PRICES
            + f'budgets: [{{subject: "user:alice", requests: {BUDGET}, period: day}}]\n'
        )  # fmt: skip
        command = [sys.executable, "-m", "proxy", "serve", "-c", str(config), "--workers", "2"]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            banner = ""
            async with asyncio.timeout(30):
                while "providers" not in banner:
                    line = await process.stdout.readline()
                    assert line, "it did not start"
                    banner += line.decode()
            found = [word for word in banner.split() if word.startswith("http://")]
            yield Parent(process, found[0], found[1].removesuffix("/metrics"))
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                assert await process.wait() in (0, -signal.SIGKILL)


def connecting():
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True), timeout=aiohttp.ClientTimeout(total=20)
    )


@pytest.mark.slow
async def test_two_workers_share_one_budget_and_their_metrics_add_up(parent):
    async with connecting() as http:
        statuses = await asyncio.gather(*(parent.call(http) for _ in range(2 * BUDGET)))
        assert sorted(statuses) == [200] * BUDGET + [429] * BUDGET
        found = await parent.until(http, "bursar_requests_total", BUDGET, outcome="ok")
        assert total(found, "bursar_budget_refusals_total") == BUDGET
        assert total(found, "bursar_budget_used", subject="user:alice") == BUDGET
        assert total(found, "bursar_workers_ready") == 2


@pytest.mark.slow
async def test_a_killed_worker_does_not_stop_service_and_its_counts_stay(parent):
    async with connecting() as http:
        assert [await parent.call(http) for _ in range(8)] == [200] * 8
        await parent.until(http, "bursar_requests_total", 8, outcome="ok")
        before = parent.workers()
        killed = os.pidfd_open(before[0])
        os.kill(before[0], signal.SIGKILL)
        await _ended(killed)
        assert await parent.call(http) == 200
        await parent.until(http, "bursar_worker_restarts_total", 1)
        await parent.until(http, "bursar_workers_ready", 2)
        await parent.until(http, "bursar_requests_total", 9, outcome="ok")
        assert len(parent.workers()) == 2
        assert set(parent.workers()) - set(before)
        async with http.get(parent.ops_url + "/readyz") as answer:
            assert answer.status == 200


@pytest.mark.slow
async def test_workers_end_when_their_parent_is_killed(parent):
    workers = [os.pidfd_open(pid) for pid in parent.workers()]
    parent.process.kill()
    try:
        async with asyncio.timeout(15):
            for pidfd in workers:
                await _ended(os.dup(pidfd))
    finally:
        for pidfd in workers:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)


async def _ended(pidfd):
    """A pidfd is readable when its process has ended."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


@pytest.mark.slow
async def test_the_parent_drains_all_and_asks_for_the_token_first(parent):
    async with connecting() as http:
        async with http.post(parent.ops_url + "/admin/v1/drain", headers={"authorization": "Bearer wrong"}) as answer:
            assert answer.status == 401
        assert await parent.call(http) == 200
        async with http.post(
            parent.ops_url + "/admin/v1/drain", headers={"authorization": f"Bearer {TOKEN}"}
        ) as answer:
            assert answer.status == 200
        async with asyncio.timeout(20):
            assert await parent.process.wait() == 0


@pytest.mark.slow
async def test_a_port_that_is_taken_is_one_sentence(parent, tmp_path):
    config = tmp_path / "second.yaml"
    config.write_text(
        (tmp_path / "bursar.yaml").read_text().replace("listen: 127.0.0.1:0\n", f"listen: {parent.url[7:-3]}\n", 1)
    )
    command = [sys.executable, "-m", "proxy", "serve", "-c", str(config), "--workers", "2"]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    assert not out
    assert err.decode().count("\n") == 1
    assert "cannot listen" in err.decode()
