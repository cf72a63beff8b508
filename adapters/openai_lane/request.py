"""Builds the body for a server that speaks OpenAI's format: the client's bytes, but for what must differ.

What must: the model's upstream name, the granted output limit in the field that counts, the wish for usage in a stream,
and what the server is known not to take (`adapters.quirks`). What a stranger would get wrong: the limit has two
spellings in chat, and servers differ in which one wins; exactly one of them is ever sent.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from adapters.base import JSON, Call
from adapters.openai_lane.history import changed_messages
from adapters.quirks import Quirks
from adapters.splice import elements, members, splice

_CHAT_LIMITS = ("max_tokens", "max_completion_tokens")


def build_body(
    call: Call, model: str, quirks: Quirks, recalled: Mapping[int, str] | None = None
) -> tuple[bytes, tuple[str, ...]]:
    """Return the body and the paths of the fields that were left out. Raises InvalidRequestError.

    `recalled` is the reasoning that is remembered for messages of the history, by position.
    """
    changes: dict[str, bytes | None] = {}
    operation = call.operation
    if call.body.get("model") != model:
        changes["model"] = orjson.dumps(model)
    if call.output_limit is not None and operation != "embeddings":
        _limit(call, model, call.output_limit, quirks, changes)
    dropped = _unknown_fields(call.body, quirks, changes) if quirks.drop else []
    if call.stream and operation in ("chat", "completions"):
        _ask_for_usage(call, quirks, changes, dropped)
    if operation == "chat" and not quirks.any_history:
        _history(call, quirks, changes, recalled or {})
    raw = splice(call.raw, changes)
    if quirks.renames and (renames := _renames(call, quirks)):
        raw = _renamed(raw, renames)
    return raw, tuple(dropped)


def _limit(call: Call, model: str, limit: int, quirks: Quirks, changes: dict[str, bytes | None]) -> None:
    if call.operation == "chat":
        wanted = quirks.limit_field_for(model)
    else:
        wanted = "max_tokens" if call.operation == "completions" else "max_output_tokens"
    changes[wanted] = b"%d" % limit
    if wanted in _CHAT_LIMITS:
        changes.update({other: None for other in _CHAT_LIMITS if other != wanted and other in call.body})


def _unknown_fields(body: JSON, quirks: Quirks, changes: dict[str, bytes | None]) -> list[str]:
    gone = [name for name in quirks.drop if name in body and name not in changes]
    changes.update(dict.fromkeys(gone))
    return [name for name in gone if body[name] is not None]


def _ask_for_usage(call: Call, quirks: Quirks, changes: dict[str, bytes | None], dropped: list[str]) -> None:
    given = call.body.get("stream_options")
    if quirks.stream_options == "unknown":
        if "stream_options" in call.body:
            changes["stream_options"] = None
            dropped += ["stream_options"] * isinstance(given, dict)
    elif quirks.stream_options == "known":
        if not isinstance(given, dict):
            changes["stream_options"] = b'{"include_usage":true}'
        elif given.get("include_usage") is not True:
            changes["stream_options"] = splice(
                _raw_member(call.raw, "stream_options"), {"include_usage": b"true"}, read=frozenset()
            )


def _history(call: Call, quirks: Quirks, changes: dict[str, bytes | None], recalled: Mapping[int, str]) -> None:
    messages = call.body.get("messages")
    if isinstance(messages, list):
        edits = changed_messages(messages, quirks, recalled)
        if edits:
            changes["messages"] = _edited(_raw_member(call.raw, "messages"), edits)


def _edited(raw: bytes, edits: Mapping[int, Mapping[str, Any]]) -> bytes:
    """Return the array with members of some of its objects set anew; all other bytes stay."""
    out: list[bytes] = []
    at = 0
    for number, (start, end) in enumerate(elements(raw)):
        if number in edits:
            new = {key: orjson.dumps(value) for key, value in edits[number].items()}
            out += (raw[at:start], splice(raw[start:end], new, read=frozenset()))
            at = end
    out.append(raw[at:])
    return b"".join(out)


def _renames(call: Call, quirks: Quirks) -> dict[str, str]:
    """Return what must be sent under another name, the client's own limit included when none was granted."""
    renames = {old: new for old, new in quirks.rename.items() if old in call.body and new not in call.body}
    if call.operation == "chat" and call.output_limit is None and quirks.limit_field == "max_tokens":
        old, new = "max_completion_tokens", "max_tokens"
        if call.body.get(old) is not None and call.body.get(new) is None:
            renames[old] = new
    return renames


def _renamed(raw: bytes, renames: Mapping[str, str]) -> bytes:
    values = {m.key: raw[m.value : m.end] for m in members(raw) if m.key in renames}
    changes: dict[str, bytes | None] = dict.fromkeys(values)
    changes.update({renames[old]: value for old, value in values.items()})
    return splice(raw, changes)


def _raw_member(raw: bytes, key: str) -> bytes:
    return next((raw[m.value : m.end] for m in members(raw) if m.key == key), b"{}")
