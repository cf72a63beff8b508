"""Remembers opaque reasoning state between the turns of a tool loop, for clients that do not echo it.

A provider signs what its model thought and wants it back with the next turn; OpenAI's clients drop such fields. The
memory is bounded in entries and bytes, forgets the least recently used first, and is one process's own: forgetting is
always allowed, and the translators then go on without. A key must be something that only the conversation's owner can
know (a tool call's random id), since whoever says it gets the state sent along with their own request.
"""

from collections import OrderedDict
from typing import Any

import orjson

ENTRIES_MAX = 4096
BYTES_MAX = 4 * 1024 * 1024


class Memory:
    """A bounded map from strings to JSON values; what is recalled is a copy."""

    def __init__(self, *, entries_max: int = ENTRIES_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._entries_max, self._bytes_max = entries_max, bytes_max
        self._values: OrderedDict[str, bytes] = OrderedDict()
        self.size_bytes = 0

    def remember(self, key: str, value: Any) -> None:
        """Keep a JSON value, in place of an older one of this key; one above an eighth of the room is not kept."""
        self._forget(key)
        try:
            packed = orjson.dumps(value)
        except TypeError:  # what JSON cannot hold cannot be sent back either
            return
        size = len(packed) + len(key)
        if size > self._bytes_max // 8 or self._entries_max < 1:
            return
        self._values[key] = packed
        self.size_bytes += size
        while self.size_bytes > self._bytes_max or len(self._values) > self._entries_max:
            self._forget(next(iter(self._values)))

    def recall(self, key: str) -> Any:
        """Return the value, None if it is not known; it counts as used."""
        packed = self._values.get(key)
        if packed is None:
            return None
        self._values.move_to_end(key)
        return orjson.loads(packed)

    def __len__(self) -> int:
        return len(self._values)

    def _forget(self, key: str) -> None:
        packed = self._values.pop(key, None)
        if packed is not None:
            self.size_bytes -= len(packed) + len(key)
