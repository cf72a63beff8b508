"""What the fake provider bills: the truth that a judge compares a ledger with.

An entry is written once for each call, when it is over, however it ended. It says what was generated, not what the
client was told (`told` is that), and never depends on what the client says.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from adapters.base import JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One billed call. Tokens are those of all choices together, reasoning included."""

    number: int  # counts from 1, in the order in which calls arrived
    request_id: str  # the x-request-id that came with the call, else one made of `number`
    response_id: str  # the id in the answer, empty if there was none
    operation: str
    model: str  # without its script
    stream: bool
    prompt_tokens: int
    completion_tokens: int
    status: int  # HTTP's; 0 if no head was sent
    outcome: str  # complete, cancelled, broken (by the script), refused
    told: JSON | None  # the usage object that was sent to the client


class Invoice:
    """Append-only, in memory and, if wanted, as JSON lines in a file, flushed with every entry."""

    def __init__(self, path: Path | None = None) -> None:
        self._entries: list[Entry] = []
        self._file = path.open("ab") if path else None

    def append(self, entry: Entry) -> None:
        """Bill a call."""
        self._entries.append(entry)
        if self._file:
            self._file.write(orjson.dumps(asdict(entry)) + b"\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file; the entries stay readable."""
        if self._file:
            self._file.close()
            self._file = None

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries))

    def __getitem__(self, index: int) -> Entry:
        return self._entries[index]

    @property
    def prompt_tokens(self) -> int:
        """All input billed so far."""
        return sum(e.prompt_tokens for e in self._entries)

    @property
    def completion_tokens(self) -> int:
        """All output billed so far."""
        return sum(e.completion_tokens for e in self._entries)
