"""Some of the disk, set aside while there is room: given up when the disk is full, so that what must still be written fits."""

import contextlib
import os
from pathlib import Path

from accounting.journal.segment import Disk


class Reserve:
    """A file of `size_bytes` with nothing in it."""

    def __init__(self, path: Path, size_bytes: int, disk: Disk) -> None:
        self._path, self._size_bytes, self._disk = path, size_bytes, disk

    def take(self) -> bool:
        """Set it aside if the disk then still has as much again: else admissions would take what settlements are to have."""
        try:
            if self._disk.free_bytes(self._path.parent) < 2 * self._size_bytes:
                return False
            fd = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                self._disk.allocate(fd, 0, self._size_bytes)
            finally:
                os.close(fd)
        except OSError:
            self.give_up()
            return False
        return True

    def give_up(self) -> None:
        """Free it."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
