"""One file of the journal, while it is written to: mapped into memory, on disk space that was taken when it was made.

An append is a copy into the page cache, without a system call. That is as safe from a kill -9 as write() is: the pages are the
kernel's, not ours. What a stranger would get wrong: the file must never be sparse, for a page that has no place on the disk kills
the process when it is touched (SIGBUS). So all of it is allocated first, and a full disk is told then, as an OSError.
"""

import contextlib
import errno
import mmap
import os
import sys
from pathlib import Path

from accounting.journal.format import HEAD_BYTES, header, put, put_all
from accounting.journal.session import sync_folder

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ZEROS = bytes(64 * 1024)
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class Disk:
    """The system calls that fail when a disk is full or broken; a test puts a failing one in its place."""

    def sync(self, fd: int) -> None:
        """Return when what was written, or copied into a mapping, survives a loss of power."""
        if sys.platform == "darwin":
            os.fsync(fd)
        else:
            os.fdatasync(fd)  # not mmap.flush, which keeps the interpreter to itself while the disk works

    def allocate(self, fd: int, start: int, size_bytes: int) -> None:
        """Take so much of the disk now, behind `start`; it reads as zeros."""
        if sys.platform == "darwin":
            _fill(fd, start, size_bytes)
        else:
            try:
                os.posix_fallocate(fd, start, size_bytes)
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
                _fill(fd, start, size_bytes)

    def free_bytes(self, folder: Path) -> int:
        """Return how much of the disk we may still take."""
        state = os.statvfs(folder)
        return state.f_bavail * state.f_frsize


class Segment:
    """A file that is appended to, `size_bytes` so far; `left_bytes` more fit. It has no records until it is named.

    Takes `most_bytes` of the disk, or what half, a quarter, … of it there is, but not less than `least_bytes`.
    Raises OSError where the disk does.
    """

    def __init__(self, making: Path, sid: str, disk: Disk, *, most_bytes: int, least_bytes: int | None = None) -> None:
        self.path, self._disk = making, disk
        self.fd = os.open(making, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        self._map: mmap.mmap | None = None
        self._allocated_bytes = self.size_bytes = self.left_bytes = 0
        self.waiting = 0  # settlements in it that the store is not known to have
        self.retired_s = 0.0
        self.carried_bytes = 0  # of it: what it began with
        self.dirty = False
        self._renamed = False
        try:
            self.grow(most_bytes, most_bytes if least_bytes is None else least_bytes)
        except OSError:
            self.discard()
            raise
        self.append_all(header(sid))

    def append(self, kind: int, payload: bytes) -> None:
        """Add one record, for which there must be room."""
        assert self._map is not None
        put(self._map, self.size_bytes, kind, payload)
        size_bytes = HEAD_BYTES + len(payload)
        self.size_bytes += size_bytes
        self.left_bytes -= size_bytes
        self.dirty = True

    def append_all(self, records: bytes) -> None:
        """Add encoded records, for which there must be room: after a kill all of them are there, or none."""
        assert self._map is not None
        if records:
            put_all(self._map, self.size_bytes, records)
            self._grown_by(len(records))

    def grow(self, most_bytes: int, least_bytes: int) -> None:
        """Take more of the disk: `most_bytes`, or half, a quarter, … of it, but not less than `least_bytes`."""
        wanted, start = most_bytes, self._allocated_bytes
        while not self._took(start, wanted := max(wanted, least_bytes), last=wanted <= least_bytes):
            wanted //= 2
        grown = mmap.mmap(self.fd, start + wanted)
        self._unmap()
        self._map = grown
        self._allocated_bytes += wanted
        self.left_bytes += wanted

    def name(self, path: Path) -> None:
        """Give it the name by which it is read back."""
        self.path.rename(path)
        self.path, self._renamed, self.dirty = path, True, True

    def sync(self) -> None:
        """Make durable what was appended so far."""
        if self.dirty and self.fd >= 0:
            self.dirty = False  # before: what is appended meanwhile makes it dirty again
            self._disk.sync(self.fd)
            if self._renamed:
                self._renamed = False
                sync_folder(self.path.parent)

    def close(self) -> None:
        """Close the file, and give back what of the disk it did not need."""
        self._unmap()
        if self.fd >= 0:
            with contextlib.suppress(OSError):  # then it ends in zeros
                os.ftruncate(self.fd, self.size_bytes)
            os.close(self.fd)
            self.fd, self.left_bytes = -1, 0

    def discard(self) -> None:
        """Close and delete the file."""
        self._unmap()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self.path.unlink(missing_ok=True)

    def _took(self, start: int, size_bytes: int, *, last: bool) -> bool:
        try:
            self._disk.allocate(self.fd, start, size_bytes)
        except OSError as error:
            os.ftruncate(self.fd, start)  # it may have taken some
            if error.errno not in FULL or last:
                raise
            return False
        return True

    def _grown_by(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes
        self.left_bytes -= size_bytes
        self.dirty = True

    def _unmap(self) -> None:
        if self._map is not None:
            self._map.close()  # before the file is cut: a page behind its end must not be touched
            self._map = None


def _fill(fd: int, start: int, size_bytes: int) -> None:
    end = start + size_bytes
    while start < end:
        start += os.pwrite(fd, _ZEROS[: end - start], start)
