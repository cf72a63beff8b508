"""Spells commands as Redis reads them, from pieces: what is sent with every call is spelled once, and only joined after that.

A piece is one argument or several, spelled; whoever joins pieces counts the arguments in them. What a stranger would get wrong:
the caches are of values and not of meanings, so nothing in them can go stale.
Source: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import hiredis

Argument: TypeAlias = str | bytes | int

NUMBERS_MAX = 4096
TEXTS_MAX = 4096


class Packed(NamedTuple):
    """What follows the script in an EVALSHA, spelled: the number of keys, the keys, the arguments; and how many that are."""

    words: int
    pieces: bytes

    def after(self, start: bytes) -> bytes:
        """Return the whole command; `start` is its name and the script, spelled."""
        return b"*%d\r\n%b%b" % (self.words + 2, start, self.pieces)


def pack(command: Sequence[Argument]) -> bytes:
    """Spell a whole command."""
    packed: bytes = hiredis.pack_command(tuple(command))  # type: ignore[arg-type]  # its stub knows only one-element tuples
    return packed


def piece(*arguments: Argument) -> bytes:
    """Spell arguments, without their count."""
    packed = pack(arguments)
    return packed[packed.index(b"\n") + 1 :]


def blob(value: bytes) -> bytes:
    """Spell bytes."""
    return b"$%d\r\n%b\r\n" % (len(value), value)


def fresh(value: int) -> bytes:
    """Spell a number that will hardly come again."""
    return blob(b"%d" % value)


number = lru_cache(NUMBERS_MAX)(fresh)
"""Spell a number that may come again."""


@lru_cache(TEXTS_MAX)
def text(*values: str) -> bytes:
    """Spell texts that may come again together."""
    return piece(*values)


def arguments_of(keys: Sequence[str], args: Sequence[Argument]) -> Packed:
    """Spell the KEYS and ARGV of a script."""
    return Packed(1 + len(keys) + len(args), piece(len(keys), *keys, *args))
