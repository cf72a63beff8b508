"""The headers of a response, taken apart when somebody first looks: most answers are relayed unread.

Made only of a head that a strict parser has accepted (no folded lines, no bare LF, no blank before a colon), so that cutting at
CR LF and at the first colon reads it as that parser did.
Source: https://www.rfc-editor.org/rfc/rfc9112#section-5
"""

from collections.abc import Iterator, Mapping


class Headers(Mapping[str, str]):
    """Names in lower case; of a repeated header the last. `head` is a status line and headers, without the empty line."""

    __slots__ = ("_fields", "_head")

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._fields: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __contains__(self, name: object) -> bool:
        return name in self._read()

    def __repr__(self) -> str:
        return f"<Headers of {len(self._head)} bytes>"

    def all(self, name: str) -> list[str]:
        """Return all values of the header `name`, in their order."""
        return [value for key, value in self._lines() if key == name]

    def _read(self) -> dict[str, str]:
        if self._fields is None:
            self._fields = dict(self._lines())
        return self._fields

    def _lines(self) -> Iterator[tuple[str, str]]:
        for line in self._head.decode("latin-1").split("\r\n")[1:]:
            name, _, value = line.partition(":")
            yield name.lower(), value.strip(" \t")
