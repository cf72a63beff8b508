"""Log lines on standard error: text for people, JSON for machines. One line per call, at its end.

Only fields that are passed by name are written, so nothing of a request gets into a log by accident. Lines wait for each other, up
to 200 ms, since a write for each would cost more than the line. A kill -9 loses those; a warning and a normal end do not wait.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections import deque
from datetime import UTC, datetime
from types import FrameType
from typing import TextIO

import orjson

HELD_S = 0.2
HELD_BYTES = 32 * 1024
_GONE = (OSError, ValueError, RuntimeError)  # ValueError: it is closed; RuntimeError: a signal came within a write
_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object per line: no text can forge a second line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return orjson.dumps(entry, default=str).decode()


class TextLines(logging.Formatter):
    """`12:00:01 info call request_id=req_… outcome=ok …`"""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S")
        fields = " ".join(f"{name}={_plain(value)}" for name, value in _fields(record).items() if value is not None)
        line = f"{at} {record.levelname.lower()} {_plain(record.getMessage())} {fields}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class HeldLines(logging.Handler):
    """Writes lines in their order, several at once: after 200 ms, when 32 KiB wait, and at once with the first that is a warning.

    A stream that is gone loses its lines, and nobody is told. One that is slow is waited for only when 32 KiB wait.
    """

    def __init__(self, stream: TextIO, *, held_s: float = HELD_S) -> None:
        self._stream, self._held_s = stream, held_s
        self._lines: deque[str] = deque()
        self._held_bytes = 0
        self._batch: list[str] = []  # is being written: kept here for a signal that ends us within that
        self._writing = threading.RLock()
        self._some, self._ended = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        super().__init__()

    def createLock(self) -> None:  # noqa: N802 - the name is logging's
        """Have none: adding a line is atomic, and must not wait for a line that is being written."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Take a line."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - as every handler does: a bad line must not end a call
            self.handleError(record)
            return
        self._lines.append(line)
        self._held_bytes += len(line)
        if record.levelno >= logging.WARNING or self._held_bytes >= HELD_BYTES or self._ended.is_set():
            self.flush()
        elif not self._some.is_set():
            self._some.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._flush_in_time, name="logs", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Write what waits."""
        with self._writing:
            self._held_bytes = 0
            while self._lines:
                self._batch.append(self._lines.popleft())
            if self._batch:
                with contextlib.suppress(*_GONE):
                    self._stream.write("\n".join(self._batch) + "\n")
                    self._stream.flush()
                self._batch.clear()

    def close(self) -> None:
        """Write what waits; from now on nothing does. `logging` calls it when the process ends."""
        self._ended.set()
        self._some.set()
        self.flush()
        super().close()

    def _flush_in_time(self) -> None:
        while self._some.wait() and not self._ended.wait(self._held_s):
            self._some.clear()  # before: a line that comes meanwhile sets it again
            self.flush()


def set_up(level: str, style: str) -> None:
    """Send the log lines of this process to standard error; other libraries' only from warnings on."""
    handler = HeldLines(sys.stderr)
    handler.setFormatter(JsonLines() if style == "json" else TextLines())
    root = logging.getLogger()
    for old in root.handlers:
        if isinstance(old, HeldLines):
            old.close()
    root.handlers[:] = [handler]
    _flush_at_sigterm()
    root.setLevel(logging.WARNING)
    logging.getLogger("bursar").setLevel(level.upper())
    for noisy in ("aiohttp.access", "aiohttp.server"):  # they print request lines and headers
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


def _flush_at_sigterm() -> None:
    """Lose no line also where SIGTERM ends the process at once, as it does until the server heeds it."""
    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _flush_and_end)


def _flush_and_end(number: int, frame: FrameType | None) -> None:
    del frame
    for handler in logging.getLogger().handlers:
        handler.flush()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


def _plain(value: object) -> str:
    text = str(value)
    return text if text.isprintable() else ascii(text)[1:-1]
