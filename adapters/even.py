"""Cuts up a JSON object that a serialiser wrote evenly: without a needless byte, or with one blank behind each colon and comma.

A decoder in C gives the members, but does not tell of a key that came twice, or was escaped. The size does: a member's text is never
shorter than key and value and their marks, so if those fill the object to the byte, nothing else is in it. Where blanks could be
missing to make room for something, the text is compared as well.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

_DECODER: msgspec.json.Decoder[Any] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_MARKS = 4  # of a member: two quotes, a colon, a comma (the last one's stands for one of the braces)


class Even(msgspec.Struct, frozen=True):
    """The members by key, in their order, none of them escaped; and the marks between them."""

    members: dict[str, msgspec.Raw | bytes]
    colon: bytes
    comma: bytes

    def written(self, added: Sequence[bytes] = ()) -> bytes:
        """Return the object's text, with further members as text."""
        comma, mark = self.comma, b'"' + self.colon
        out: list[msgspec.Raw | bytes] = []
        for key, value in self.members.items():
            out += (comma, b'"', key.encode(), mark, value)
        for text in added:
            out += (comma, text)
        return b"{%b}" % b"".join(out[1:])

    def places(self) -> Iterator[tuple[str, int, int, int]]:
        """Yield of each member: key, start, where its value begins, end."""
        start, colon, comma = 1, len(self.colon), len(self.comma)
        for key, value in self.members.items():
            at = start + len(key) + 2 + colon
            end = at + len(value)
            yield key, start, at, end
            start = end + comma


def cut_evenly(raw: bytes) -> Even | None:
    """Return the members of an object that is written evenly, with each key once and plain; None of anything else."""
    try:
        found: dict[str, msgspec.Raw | bytes] = _DECODER.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    count = len(found)
    size = sum(map(len, found)) + sum(map(len, found.values())) + _MARKS * count + (1 if count else 2)
    if size == len(raw):
        return Even(found, b":", b",")
    if size + 2 * count - 1 == len(raw):
        even = Even(found, b": ", b", ")
        if even.written() == raw:
            return even
    return None
