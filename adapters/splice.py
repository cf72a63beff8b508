r"""Changes members of a JSON object in place, so that every byte not meant stays as the client sent it.

Re-serialising would respell numbers (64-bit ids, `1.0`), reorder keys and so spoil a provider's prompt cache. What a
stranger would get wrong: JSON lets a key come twice, and readers differ in which one counts. Bursar and the provider
must never read two different limits, so a second spelling of any member that Bursar reads is refused, also one that is
escaped (`mod\u0065l`) or in other letter case (readers written in Go fold case).

The input is an object that a JSON parser has already accepted; brackets and strings are matched, values are not checked.
Most bodies were written evenly by a serialiser, and are cut up faster (`adapters.even`); the expressions here are for all others.
"""

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from adapters.errors import InvalidRequestError
from adapters.even import Even, cut_evenly

READ = frozenset({
    "model", "messages", "prompt", "input", "instructions", "suffix", "stream", "stream_options", "user", "n", "best_of",
    "max_tokens", "max_completion_tokens", "max_output_tokens", "tools", "tool_choice", "functions", "response_format",
    "reasoning", "reasoning_effort", "service_tier", "modalities", "audio", "web_search_options", "prediction",
    "background", "previous_response_id", "store", "metadata", "num_ctx", "max_tool_calls",
})  # fmt: skip

# Possessive repeats (++, *+) keep no way back: without them a megabyte of backslashes costs a megabyte of stack entries.
# A run of [^"] is several times faster than one of [^"\\], so most strings are matched by quotes, looking back from each.
_BY_QUOTES = rb'"(?:[^"]*+(?<=[^\\]\\)")*+[^"]*+(?<!\\)"'
_BY_ESCAPES = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_STRING = rb"(?:%b|%b)" % (_BY_QUOTES, _BY_ESCAPES)
_PLAIN = rb'[^"{}\[\]]++|' + _STRING
_DEPTH = 5  # values nested no deeper are matched by one expression; deeper ones bracket by bracket


def _nested(depth: int) -> bytes:
    inner = b"|" + _nested(depth - 1) if depth > 1 else b""
    return rb"[\[{](?:%b%b)*+[\]}]" % (_PLAIN, inner)


_VALUE = _STRING + rb"|" + _nested(_DEPTH) + rb"|" + rb'[^\s,"{}\[\]]++'
_MEMBER = re.compile(rb"(%b)\s*+:\s*+(?:(%b)\s*+([,}])\s*+)?" % (_STRING, _VALUE), re.DOTALL)
_ELEMENT = re.compile(rb"(%b)\s*+([,\]])\s*+" % _VALUE, re.DOTALL)
_INSIDE = re.compile(rb"(?:%b|%b)*+" % (_PLAIN, _nested(_DEPTH)), re.DOTALL)
_SPACE = re.compile(rb"\s*+")


class Member(NamedTuple):
    """One member of an object: its key as read, and where key and value lie (`end` is past the value)."""

    key: str
    start: int
    value: int
    end: int


def members(raw: bytes) -> list[Member]:
    """Return the object's own members, in order. Raises InvalidRequestError when `raw` is not an object."""
    even = cut_evenly(raw)
    return _searched(raw) if even is None else [Member(*place) for place in even.places()]


def _searched(raw: bytes) -> list[Member]:
    at = _open(raw, b"{")
    found: list[Member] = []
    mark = raw[at : at + 1]
    while mark != b"}":
        match = _MEMBER.match(raw, at)
        if match is None:
            raise InvalidRequestError("The request body is not a JSON object.")
        if match[2] is not None:
            value, end = match.span(2)
            mark, after = match[3], match.end()
        else:
            value = match.end()
            end = _deep_end(raw, value)
            mark, after = _after(raw, end)
        found.append(Member(_key(match[1]), at, value, end))
        at = after
    return found


def elements(raw: bytes) -> list[tuple[int, int]]:
    """Return start and end of each element of a JSON array. Raises InvalidRequestError when `raw` is none."""
    at = _open(raw, b"[")
    found: list[tuple[int, int]] = []
    mark = raw[at : at + 1]
    while mark != b"]":
        match = _ELEMENT.match(raw, at)
        end = match.end(1) if match else _deep_end(raw, at)
        found.append((at, end))
        mark, at = (match[2], match.end()) if match else _after(raw, end)
    return found


def splice(raw: bytes, changes: Mapping[str, bytes | None], *, read: frozenset[str] = READ) -> bytes:
    """Return `raw` with the members of `changes` set to that JSON text, or removed (None); new ones come last.

    Raises InvalidRequestError, naming the key, when a key of `read` or `changes` is there twice.
    """
    even = cut_evenly(raw)
    if even is None or _any_folds(even, read, changes):
        parts = _searched(raw)
        _refuse_twins(parts, read | changes.keys())
        return _apply(raw, parts, changes)
    return _changed(even, changes) if changes else raw


def _changed(even: Even, changes: Mapping[str, bytes | None]) -> bytes:
    found = even.members
    added = []
    for key, new in changes.items():
        if new is None:
            found.pop(key, None)
        elif key in found:
            found[key] = new
        else:
            added.append(_quoted(key) + even.colon + new)
    return even.written(added)


def _any_folds(even: Even, read: frozenset[str], changes: Mapping[str, bytes | None]) -> bool:
    """Tell whether a key is one that counts, but for its letter case."""
    for key in even.members:
        if key not in read and key not in changes:
            folded = key.casefold()
            if folded in read or folded in changes:
                return True
    return False


def _apply(raw: bytes, parts: list[Member], changes: Mapping[str, bytes | None]) -> bytes:
    out: list[bytes] = []
    at, kept_any = 0, False
    for number, part in enumerate(parts):
        if part.key not in changes:
            kept_any = True
            continue
        new = changes[part.key]
        if new is not None:
            out += (raw[at : part.value], new)
            at, kept_any = part.end, True
        elif kept_any:
            out.append(raw[at : parts[number - 1].end])
            at = part.end
        else:
            out.append(raw[at : part.start])
            at = parts[number + 1].start if number + 1 < len(parts) else part.end
    present = {part.key for part in parts}
    added = [_quoted(k) + b":" + v for k, v in changes.items() if v is not None and k not in present]
    if added:
        last = max(at, parts[-1].end if parts else raw.index(b"{") + 1)
        out += (raw[at:last], b"," if kept_any else b"", b",".join(added))
        at = last
    out.append(raw[at:])
    return b"".join(out)


def _refuse_twins(parts: list[Member], read: frozenset[str]) -> None:
    seen: set[str] = set()
    for part in parts:
        folded = part.key if part.key in read else part.key.casefold()
        if folded not in read:
            continue
        if folded != part.key:
            raise InvalidRequestError(f"The field must be spelled '{folded}'.", param=folded)
        if folded in seen:
            raise InvalidRequestError(f"The field '{folded}' is given more than once.", param=folded)
        seen.add(folded)


def _open(raw: bytes, bracket: bytes) -> int:
    at = _skip(raw, 0)
    if raw[at : at + 1] != bracket:
        raise InvalidRequestError("The request body is not a JSON object.")
    return _skip(raw, at + 1)


def _after(raw: bytes, end: int) -> tuple[bytes, int]:
    """Return the comma or bracket behind a value, and where what follows it begins."""
    at = _skip(raw, end)
    return raw[at : at + 1], _skip(raw, at + 1)


def _deep_end(raw: bytes, at: int) -> int:
    """Return the end of a value that is nested too deep for one expression."""
    depth = 0
    while True:
        mark = raw[at : at + 1]
        if mark in (b"{", b"["):
            depth += 1
        elif mark in (b"}", b"]") and depth:
            depth -= 1
        else:
            raise InvalidRequestError("The request body is not valid JSON.")
        at += 1
        if not depth:
            return at
        inside = _INSIDE.match(raw, at)
        at = inside.end() if inside else at


def _skip(raw: bytes, at: int) -> int:
    match = _SPACE.match(raw, at)
    return match.end() if match else at


def _quoted(key: str) -> bytes:
    return b'"%b"' % key.encode() if key.isidentifier() and key.isascii() else json.dumps(key).encode()


def _key(text: bytes) -> str:
    try:
        if b"\\" not in text:
            return text[1:-1].decode()
        return str(json.loads(text, strict=False))
    except ValueError:
        raise InvalidRequestError("A key of the request body is not valid JSON.") from None
