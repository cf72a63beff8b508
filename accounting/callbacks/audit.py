"""The audit log: who called which model, when, and what it came to. One JSON line per event; never a prompt or an answer."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

from accounting.callbacks.handler import JSON, CustomAsyncCallbackHandler

_log = logging.getLogger("bursar.audit")
_ASKED = ("request_id", "user", "provider", "model", "temperature", "max_tokens")
_ANSWERED = (
    "provider",
    "model",
    "tokens_used",
    "prompt_tokens",
    "completion_tokens",
    "cost_estimate",
    "response_time",
)


class AuditLogCallbackHandler(CustomAsyncCallbackHandler):
    """`write` takes each line; by default it goes to the logger `bursar.audit` at INFO."""

    def __init__(self, write: Callable[[str], None] | None = None) -> None:
        self._write = write or (lambda line: _log.info("%s", line))

    async def on_llm_start(self, messages: list[JSON], **kwargs: Any) -> None:
        self._line("start", {name: kwargs.get(name) for name in _ASKED} | {"messages": len(messages)})

    async def on_llm_end(self, response: JSON, **kwargs: Any) -> None:
        told = {name: response.get(name) for name in _ANSWERED}
        cancelled = {"cancelled": True} if kwargs.get("cancelled") else {}
        self._line("end", {"request_id": kwargs.get("request_id"), "user": kwargs.get("user"), **told, **cancelled})

    async def on_llm_error(self, error: Exception, **kwargs: Any) -> None:
        told = {name: kwargs.get(name) for name in (*_ASKED, "tokens_used")}
        status = {"status": getattr(error, "status", None), "code": getattr(error, "code", None)}
        self._line("error", {**told, "error": type(error).__name__, **status})

    def _line(self, event: str, facts: JSON) -> None:
        known = {name: value for name, value in facts.items() if value is not None}
        line = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **known}
        self._write(orjson.dumps(line, default=str).decode())
