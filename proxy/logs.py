"""Log lines on standard error: text for people, JSON for machines. One line per call, at its end.

Only fields that are passed by name are written, so nothing of a request gets into a log by accident.
"""

import logging
import sys
from datetime import UTC, datetime

import orjson

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


def set_up(level: str, style: str) -> None:
    """Send the log lines of this process to standard error; other libraries' only from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if style == "json" else TextLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("bursar").setLevel(level.upper())
    for noisy in ("aiohttp.access", "aiohttp.server"):  # they print request lines and headers
        logging.getLogger(noisy).setLevel(logging.CRITICAL)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


def _plain(value: object) -> str:
    text = str(value)
    return text if text.isprintable() else ascii(text)[1:-1]
