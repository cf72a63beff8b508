"""What the ledger writes down before it acts, so that a crash loses nothing: the seam to `accounting.journal`."""

from typing import Any, Protocol


class Journal(Protocol):
    """What the ledger writes down before it acts. See `accounting.journal`."""

    def admitted(self, note: dict[str, Any]) -> None:
        """Note a hold before its call is sent. Raises StoreError: then it must not be sent."""

    def grown(self, note: dict[str, Any]) -> None:
        """Note anew a hold that has grown; how far its call has come stays known. Raises StoreError."""

    def progress(self, seq: int, payload: bytes) -> None:
        """Note how far an open call has come, before more is relayed; `payload` is a `Progress`, dumped."""

    def settled(self, data: bytes) -> None:
        """Note a settlement before the answer's last byte leaves."""

    def acknowledged(self, seq: int) -> None:
        """Note that the store has a settlement."""


class NoJournal:
    """For commands and tests that may lose what is in flight."""

    def admitted(self, note: dict[str, Any]) -> None:
        """Do nothing."""

    def grown(self, note: dict[str, Any]) -> None:
        """Do nothing."""

    def progress(self, seq: int, payload: bytes) -> None:
        """Do nothing."""

    def settled(self, data: bytes) -> None:
        """Do nothing."""

    def acknowledged(self, seq: int) -> None:
        """Do nothing."""
