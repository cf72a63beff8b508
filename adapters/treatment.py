"""Every request field gets one of three treatments, never silence: mapped, dropped and told, or refused.

A dialect says in a `Treatment` what it maps, drops and refuses; the union of the three must be all of OpenAI's fields
(`complete` tells). Null means not given. A value that only states OpenAI's default (`n: 1`) is never refused.
An unknown field is copied if it is a native name of the provider, else dropped and told.
Source of the fields: https://platform.openai.com/docs/api-reference/chat/create
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters.base import JSON
from adapters.errors import UnsupportedParameterError

OPENAI_FIELDS = frozenset(
    [
        "audio",
        "frequency_penalty",
        "function_call",
        "functions",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "modalities",
        "model",
        "moderation",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    ]
)
_HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "modalities": (["text"], []),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """One dialect's treatment of each field; `native` are names of the provider's own that are copied."""

    provider: str  # its name in messages to the client
    mapped: frozenset[str]
    dropped: frozenset[str]
    refused: Mapping[str, str]  # the field -> why, a sentence for the client
    native: frozenset[str] = frozenset()

    @property
    def complete(self) -> bool:
        """True if each of OpenAI's fields has exactly one treatment."""
        kinds = [self.mapped, self.dropped, frozenset(self.refused)]
        return frozenset().union(*kinds) == OPENAI_FIELDS and sum(map(len, kinds)) == len(OPENAI_FIELDS)

    def apply(self, body: JSON) -> tuple[JSON, list[str]]:
        """Return the native fields of a request, in its order, and the names of those that are dropped.

        Raises UnsupportedParameterError for the first field that is refused.
        """
        native: JSON = {}
        dropped: list[str] = []
        for name, value in body.items():
            if value is None or name in self.mapped:
                continue
            if name in self.refused:
                if not _harmless(name, value):
                    raise UnsupportedParameterError(name, self.refused[name])
            elif name in self.native:
                native[name] = value
            else:
                dropped.append(_shown(name))
        return native, dropped


def _harmless(name: str, value: Any) -> bool:
    return any(value == harmless and type(value) is type(harmless) for harmless in _HARMLESS.get(name, ()))


def _shown(name: str) -> str:
    """Return a field's name fit for a response header."""
    short = name[:64]
    return short if short.isascii() and short.isprintable() and "," not in short else "unknown"
