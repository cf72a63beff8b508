"""The one form of a conversation that every dialect is written from: what `adapters.messages` makes of a request.

`source` is the path of the request field that a part came from, for errors that name it. `cache` is always Anthropic's
form, `{"type": "ephemeral", "ttl"?: "5m" | "1h"}`, whichever way the client asked for a cache point.
"""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from adapters.base import JSON

_HOUR_TTLS = ("1h", "30m", "12h", "24h")  # OpenAI's lifetimes are longer than the 5 minutes of the default

Role: TypeAlias = Literal["user", "assistant", "system"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Text, never empty."""

    text: str
    cache: JSON | None = None
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A picture, as the client gave it: a data, https or other URL. `adapters.media` reads it."""

    url: str
    detail: str | None = None
    cache: JSON | None = None
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A document: `data` is a data URL or bare base64, or there is a `file_id` of a provider's store."""

    data: str | None = None
    file_id: str | None = None
    filename: str | None = None
    cache: JSON | None = None
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audio:
    """Speech of the user: base64, and `wav` or `mp3`."""

    data: str
    format: str
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call that the model made. `arguments` is always an object, `raw` what the client sent for it.

    `extra` are the call's keys beyond OpenAI's (`extra_content` of Gemini, `cache_control`).
    """

    id: str
    name: str
    arguments: JSON
    raw: str
    extra: JSON = field(default_factory=dict)
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """The client's answer to one call; `name` is that of the called function, found through the id."""

    id: str
    name: str
    parts: "list[Part]"
    cache: JSON | None = None
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasoning:
    """What the model thought, echoed by the client: `details` as given out before, `text` the visible part."""

    details: list[JSON]
    text: str
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A refusal that the model spoke earlier."""

    text: str
    source: str = ""


Part: TypeAlias = Text | Image | File | Audio | ToolCall | ToolResult | Reasoning | Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Everything one side said before the other spoke. In a user turn the tool results come first."""

    role: Role
    parts: list[Part]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """The leading system text, and the turns; no two neighbours have the same role, none but a user turn is empty.

    A system message that comes later keeps its place as a turn of role system. `dropped` names what no dialect takes.
    """

    system: list[Text]
    turns: list[Turn]
    dropped: tuple[str, ...] = ()


def cache_of(holder: JSON) -> JSON | None:
    """Return the cache point that a part, tool or message asks for, in Anthropic's form; None if it asks for none."""
    control = holder.get("cache_control")
    if isinstance(control, dict):
        kept = {key: value for key, value in control.items() if value is not None}
        if "ttl" in kept and kept["ttl"] != "5m":
            kept["ttl"] = "1h" if kept["ttl"] in _HOUR_TTLS else "5m"
        return {"type": "ephemeral", **kept}
    point = holder.get("prompt_cache_breakpoint")
    if isinstance(point, dict):
        return {"type": "ephemeral", "ttl": "1h"} if point.get("ttl") in _HOUR_TTLS else {"type": "ephemeral"}
    return None
