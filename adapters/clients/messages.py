"""What goes into a client and what comes out of it."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

JSON: TypeAlias = dict[str, Any]
ROLES = ("system", "user", "assistant", "tool", "developer")


@dataclass(frozen=True, slots=True)
class LLMMessage:
    """One message. `content` is text, or OpenAI's list of parts; `extra` are further fields (name, tool_calls, tool_call_id).

    Raises ValueError for another role and for empty or blank content, naming it; an assistant's tool calls need no content.
    """

    role: str
    content: str | list[JSON] | None
    extra: JSON = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role must be one of {', '.join(ROLES)}, not {self.role!r}")
        blank = not self.content.strip() if isinstance(self.content, str) else not self.content
        if blank and not (self.role == "assistant" and self.extra.get("tool_calls")):
            raise ValueError(f"the content of a message of role {self.role!r} must not be empty or blank")

    def as_dict(self) -> JSON:
        """Return it in OpenAI's form."""
        return {**self.extra, "role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class LLMResponse:
    """A whole answer. `cost_estimate` in USD, None where no price is known; `response_time` in seconds.

    If both parts are known and the total is not, the total is their sum. `cached`: it came from the response cache and cost
    nothing. `completion` is the answer in OpenAI's form, with tool calls and whatever else `content` leaves out.
    """

    content: str
    provider: str
    model: str
    tokens_used: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost_estimate: float | None = None
    response_time: float | None = None
    finish_reason: str | None = None
    cached: bool = False
    completion: JSON = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.tokens_used is None and self.prompt_tokens is not None and self.completion_tokens is not None:
            object.__setattr__(self, "tokens_used", self.prompt_tokens + self.completion_tokens)

    def told(self) -> JSON:
        """Return it as callbacks get it."""
        names = ("content", "tokens_used", "prompt_tokens", "completion_tokens", "provider", "model")
        return {name: getattr(self, name) for name in (*names, "response_time", "cost_estimate")}


def message_dicts(messages: "list[LLMMessage] | list[JSON]") -> list[JSON]:
    """Return messages in OpenAI's form; dicts are checked like messages. Raises ValueError, also for none at all."""
    if not messages:
        raise ValueError("messages must not be empty")
    made = []
    for message in messages:
        if not isinstance(message, LLMMessage):
            extra = {key: value for key, value in message.items() if key not in ("role", "content")}
            message = LLMMessage(str(message.get("role")), message.get("content"), extra)  # noqa: PLW2901 - the checked form of it
        made.append(message.as_dict())
    return made
