"""One thing that happened to a call, as handlers are told of it."""

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from accounting.callbacks.handler import CustomAsyncCallbackHandler

Kind: TypeAlias = Literal["start", "end", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`what` is messages, a response or an exception, by kind; it is shared by all handlers and never edited.

    `size_bytes` is about what the event keeps in memory while it waits. Events of one `call` come in order.
    """

    kind: Kind
    what: Any
    kwargs: dict[str, Any] = field(default_factory=dict)
    size_bytes: int = 0

    @property
    def call(self) -> str:
        """The call that it belongs to; empty where it has no id."""
        return str(self.kwargs.get("request_id") or "")

    def told_to(self, handler: CustomAsyncCallbackHandler, **more: Any) -> Awaitable[Any]:
        """Begin to tell a handler; each gets its own copy of the keyword arguments."""
        if self.kind == "start":
            return handler.on_llm_start(self.what, **self.kwargs, **more)
        if self.kind == "end":
            return handler.on_llm_end(self.what, **self.kwargs, **more)
        return handler.on_llm_error(self.what, **self.kwargs, **more)
