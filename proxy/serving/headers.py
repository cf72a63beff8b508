"""The headers of a request, looked up by name whatever its case.

Few of a request's headers are ever asked for, so a value is decoded when it is. What a stranger would get wrong: of a name that
was sent twice the first counts; whatever may not be sent twice has been refused before anybody looks.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TypeVar, overload

from proxy.wellformed import Again, ByName

_T = TypeVar("_T")


class Headers(Mapping[str, str]):
    """Read-only, over the values by lower-case name. Iteration gives these names. `by_name` and `again` are what was sent, as bytes."""

    __slots__ = ("again", "by_name")

    def __init__(self, by_name: ByName, again: Again = ()) -> None:
        self.by_name, self.again = by_name, again

    def __getitem__(self, name: str) -> str:
        return self.by_name[_key(name)].decode("utf-8", "surrogateescape")

    @overload
    def get(self, key: str, /) -> str | None: ...
    @overload
    def get(self, key: str, /, default: str) -> str: ...
    @overload
    def get(self, key: str, /, default: _T) -> str | _T: ...
    def get(self, key: str, /, default: object = None) -> object:
        value = self.by_name.get(_key(key))
        return default if value is None else value.decode("utf-8", "surrogateescape")

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and _key(name) in self.by_name

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self.by_name)

    def __len__(self) -> int:
        return len(self.by_name)


@lru_cache(256)  # the few that are ever asked for
def _key(name: str) -> bytes:
    return name.lower().encode("latin-1", "replace")
