"""One file of the journal, while it is written to: whole records or nothing, and what of it must still be made durable."""

import errno
import os
import sys
from pathlib import Path

from accounting.journal.format import header


class Disk:
    """The system calls that fail when a disk is full or broken; a test puts a failing one in its place."""

    def write(self, fd: int, data: memoryview) -> int:
        """Write some of it; return how much."""
        return os.write(fd, data)

    def sync(self, fd: int) -> None:
        """Return when what was written survives a loss of power."""
        if sys.platform == "darwin":
            os.fsync(fd)
        else:
            os.fdatasync(fd)

    def allocate(self, fd: int, size_bytes: int) -> None:
        """Take so much of the disk now."""
        if sys.platform == "darwin":
            os.write(fd, bytes(size_bytes))
        else:
            os.posix_fallocate(fd, 0, size_bytes)

    def free_bytes(self, folder: Path) -> int:
        """Return how much of the disk we may still take."""
        state = os.statvfs(folder)
        return state.f_bavail * state.f_frsize


class Segment:
    """A file that is appended to. Raises OSError where the disk does."""

    def __init__(self, path: Path, sid: str, disk: Disk) -> None:
        self.path, self._disk = path, disk
        self.fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.size_bytes = 0
        self.waiting = 0  # settlements in it that the store is not known to have
        self.retired_s = 0.0
        self.carried_bytes = 0  # of it: what it began with
        self.dirty = False
        self.torn = False  # it ends in half a record: nothing may be written behind that
        try:
            self.append(header(sid))
        except OSError:
            self.discard()
            raise

    def append(self, data: bytes) -> None:
        """Write all of `data`, or nothing of it."""
        view, done = memoryview(data), 0
        try:
            while done < len(data):
                wrote = self._disk.write(self.fd, view[done:])
                if wrote <= 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                done += wrote
        except OSError:
            if done:
                self._cut_back()
            raise
        self.size_bytes += done
        self.dirty = True

    def sync(self) -> None:
        """Make durable what was appended so far."""
        if self.dirty:
            self.dirty = False  # before: what is appended meanwhile makes it dirty again
            self._disk.sync(self.fd)

    def close(self) -> None:
        """Close the file."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def discard(self) -> None:
        """Close and delete the file."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _cut_back(self) -> None:
        try:
            os.ftruncate(self.fd, self.size_bytes)
        except OSError:
            self.torn = True
