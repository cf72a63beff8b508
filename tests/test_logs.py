"""Log lines: few writes, no line lost but to a kill -9, and all in their order."""

import io
import logging
import signal
import subprocess
import sys
import threading
import time

import orjson
import pytest

from proxy.logs import HELD_BYTES, HeldLines, JsonLines, TextLines, tell
from tests.sidecars import ROOT


class Stream:
    """Remembers each write; `wrote` is set with it. `hold` makes it slow."""

    def __init__(self):
        self.writes, self.wrote, self.entered, self.go = [], threading.Event(), threading.Event(), threading.Event()
        self.go.set()
        self.error = None

    def write(self, text):
        self.entered.set()
        self.go.wait(10)
        if self.error:
            raise self.error
        self.writes.append(text)
        self.wrote.set()

    def flush(self):
        pass

    @property
    def lines(self):
        return "".join(self.writes).splitlines()


@pytest.fixture
def made():
    handlers = []

    def make(held_s=60.0):
        stream = Stream()
        handler = HeldLines(stream, held_s=held_s)
        log = logging.getLogger("test_logs")
        log.setLevel(logging.INFO)
        log.propagate, log.handlers = False, [handler]
        handlers.append((handler, stream))
        return log, handler, stream

    yield make
    for handler, stream in handlers:
        stream.go.set()
        handler.close()
    logging.getLogger("test_logs").handlers.clear()


def test_lines_are_written_together_when_their_time_is_over(made):
    log, handler, stream = made(held_s=0.2)
    began_s = time.monotonic()
    for number in range(50):
        log.info("%d", number)
    assert not stream.writes
    assert stream.wrote.wait(5)
    assert time.monotonic() - began_s >= 0.2
    assert stream.lines == [str(number) for number in range(50)]
    assert len(stream.writes) == 1
    assert not handler._some.is_set()  # nothing wakes the thread while nothing waits
    stream.wrote.clear()
    log.info("again")
    assert stream.wrote.wait(5)
    assert stream.lines[-1] == "again"


@pytest.mark.parametrize("level", [logging.WARNING, logging.ERROR, logging.CRITICAL])
def test_a_warning_is_written_at_once_behind_what_came_before_it(made, level):
    log, _, stream = made()
    log.info("one")
    log.log(level, "two")
    assert stream.writes == ["one\ntwo\n"]


def test_no_more_than_32_kib_wait(made):
    log, _, stream = made()
    for _ in range(32):
        assert not stream.writes
        log.info("x" * 1024)
    assert len(stream.writes) == 1
    assert len(stream.writes[0]) >= HELD_BYTES


def test_a_stream_that_is_slow_does_not_hold_up_who_logs(made):
    log, _, stream = made(held_s=0.0)
    stream.go.clear()
    log.info("one")
    assert stream.entered.wait(5)  # the thread is within the write
    log.info("two")
    assert not stream.writes
    stream.go.set()
    log.warning("three")
    assert stream.lines == ["one", "two", "three"]


def test_a_slow_stream_holds_up_the_thread_that_warns_and_no_other(made):
    log, _, stream = made()
    stream.go.clear()
    warning = threading.Thread(target=log.warning, args=("one",))
    warning.start()
    assert stream.entered.wait(5)
    log.info("two")
    assert not stream.writes
    stream.go.set()
    warning.join()
    assert stream.lines == ["one"]


def test_a_stream_that_is_gone_fails_no_call(made):
    log, _, stream = made()
    for error in (BrokenPipeError(), ValueError("closed")):
        stream.error = error
        log.warning("one")
    stream.error = None
    log.warning("two")
    assert stream.lines == ["two"]


def test_a_line_that_cannot_be_made_ends_nothing(made, capsys):
    log, _, stream = made()
    log.info("%d", "no number")
    log.warning("two")
    assert stream.lines == ["two"]
    assert "no number" in capsys.readouterr().err


def test_lines_of_several_threads_are_all_there_each_threads_in_order(made):
    log, handler, stream = made(held_s=0.001)

    def work(name):
        for number in range(2000):
            log.log(logging.WARNING if number % 97 == 0 else logging.INFO, "%s %d", name, number)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.flush()
    for name in "abc":
        assert [line for line in stream.lines if line[0] == name] == [f"{name} {number}" for number in range(2000)]
    assert len(stream.lines) == 6000


def test_after_it_is_closed_nothing_waits(made):
    log, handler, stream = made()
    log.info("one")
    handler.close()
    assert stream.lines == ["one"]
    log.info("two")
    assert stream.lines == ["one", "two"]
    assert handler._thread is not None
    handler._thread.join(5)
    assert not handler._thread.is_alive()


_PROGRAM = """
import asyncio, logging, os, signal, sys
from proxy import logs
logs.set_up("info", "json")
log = logging.getLogger("bursar")
for number in range(100):
    log.info("%d", number)
"""
_ENDS = {
    "returns": ("", 0),
    "exits": ("sys.exit(3)", 3),
    "raises": ("raise ValueError", 1),
    "is_terminated": ("os.kill(os.getpid(), signal.SIGTERM); signal.pause()", -signal.SIGTERM),
    "is_terminated_in_a_loop": (
        "async def f():\n    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)\n    await asyncio.sleep(60)\n"
        "asyncio.run(f())",
        -signal.SIGTERM,
    ),
    "heeds_the_signal": (
        "async def f():\n    stop = asyncio.Event()\n    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n    await stop.wait()\nasyncio.run(f())",
        0,
    ),
}


@pytest.mark.parametrize("end", _ENDS)
def test_a_process_that_ends_has_written_all_its_lines(end):
    code, status = _ENDS[end]
    ran = subprocess.run([sys.executable, "-c", _PROGRAM + code], cwd=ROOT, capture_output=True, timeout=30)
    assert ran.returncode == status
    lines = [orjson.loads(line) for line in ran.stderr.splitlines() if line.startswith(b"{")]
    assert [line["message"] for line in lines] == [str(number) for number in range(100)]


def test_setting_up_again_loses_no_line():
    code = (
        _PROGRAM + 'logs.set_up("info", "json")\nlog.info("last")\nos.kill(os.getpid(), signal.SIGTERM)\nsignal.pause()'
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, timeout=30)
    assert [orjson.loads(line)["message"] for line in ran.stderr.splitlines()] == [*map(str, range(100)), "last"]


def test_a_line_is_one_line_of_json():
    record = logging.LogRecord("bursar", logging.INFO, "", 0, "two\nlines", (), None)
    line = JsonLines().format(record)
    assert "\n" not in line
    assert orjson.loads(line)["message"] == "two\nlines"


@pytest.mark.parametrize("style", [JsonLines, TextLines])
def test_the_short_way_writes_the_line_that_logging_would(style, monkeypatch):
    fields = {
        "request_id": "req_1",
        "key": None,
        "user": "a\nb",
        "estimated": False,
        "input": 3,
        "usd": "0.05",
        "odd": 1.5,
    }
    log, out = logging.getLogger("bursar.test_tell"), io.StringIO()
    handler = HeldLines(out)
    handler.setFormatter(style())
    monkeypatch.setattr(logging.root, "handlers", [handler])
    monkeypatch.setattr(log, "level", logging.INFO)
    log._cache.clear()
    tell(log, "call", fields)
    log.info("call", extra=fields)
    handler.flush()
    short, long = (line.partition("," if style is JsonLines else " ")[2] for line in out.getvalue().splitlines())
    assert short == long, "but for the time"
    assert "a\\nb" in out.getvalue()
    monkeypatch.setattr(log, "level", logging.WARNING)
    log._cache.clear()
    tell(log, "call", fields)
    handler.flush()
    assert len(out.getvalue().splitlines()) == 2
