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
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import FrameType
from typing import TextIO, TypeAlias

import orjson

Fields: TypeAlias = Mapping[str, object]

HELD_S = 0.2
HELD_BYTES = 32 * 1024
_GONE = (OSError, ValueError, RuntimeError)  # ValueError: it is closed; RuntimeError: a signal came within a write
_STANDARD = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime", "taskName"}


class Lines(logging.Formatter, ABC):
    """How a line reads."""

    @abstractmethod
    def line(self, at_s: float, level: str, message: str, fields: Fields) -> str:
        """Return the line of what happened at that Unix time."""


class JsonLines(Lines):
    """One JSON object per line: no text can forge a second line."""

    def line(self, at_s: float, level: str, message: str, fields: Fields) -> str:
        entry = {"at": f"{_second(int(at_s), '%Y-%m-%dT%H:%M:%S')}.{int(at_s % 1 * 1000):03d}+00:00", "level": level}
        return orjson.dumps({**entry, "message": message, **fields}, default=str).decode()

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        return self.line(record.created, record.levelname.lower(), record.getMessage(), fields)


class TextLines(Lines):
    """`12:00:01 info call request_id=req_… outcome=ok …`"""

    def line(self, at_s: float, level: str, message: str, fields: Fields) -> str:
        begin = f"{_second(int(at_s), '%H:%M:%S')} {level} "
        words = [message, *[f"{name}={value}" for name, value in fields.items() if value is not None]]
        line = begin + " ".join(words)
        return line if line.isprintable() else begin + " ".join(map(_plain, words))

    def format(self, record: logging.LogRecord) -> str:
        line = self.line(record.created, record.levelname.lower(), record.getMessage(), _fields(record))
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class HeldLines(logging.Handler):
    """Writes lines in their order, several at once: after 200 ms, when 32 KiB wait, and at once with the first that is a warning.

    A stream that is gone loses its lines, and nobody is told. One that is slow is waited for only when 32 KiB wait.
    """

    def __init__(self, stream: TextIO, *, held_s: float = HELD_S) -> None:
        self._stream, self._held_s = stream, held_s
        self._lines: deque[str] = deque()
        self._held_bytes, self._held_max_bytes = 0, HELD_BYTES
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
        self.take(line, hurry=record.levelno >= logging.WARNING)

    def take(self, line: str, *, hurry: bool = False) -> None:
        """Take a line that is formatted already."""
        self._lines.append(line)
        self._held_bytes += len(line)
        if hurry or self._held_bytes >= self._held_max_bytes:
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
        self._held_max_bytes = 0
        self._ended.set()
        self._some.set()
        self.flush()
        super().close()

    def _flush_in_time(self) -> None:
        while self._some.wait() and not self._ended.wait(self._held_s):
            self._some.clear()  # before: a line that comes meanwhile sets it again
            self.flush()


def tell(log: logging.Logger, message: str, fields: Fields) -> None:
    """Write an info line as `log.info(message, extra=fields)` does, at a fifth of the price where this process logs as we set it up."""
    if not log.isEnabledFor(logging.INFO):
        return
    handlers = logging.root.handlers
    handler = handlers[0] if len(handlers) == 1 else None
    if isinstance(handler, HeldLines) and isinstance(lines := handler.formatter, Lines):
        handler.take(lines.line(time.time(), "info", message, fields))  # noqa: TID251 - a log tells wall time
    else:
        log.info(message, extra=fields)


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


def _plain(word: str) -> str:
    return word if word.isprintable() else ascii(word)[1:-1]


@lru_cache(4)
def _second(at_s: int, form: str) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime(form)
