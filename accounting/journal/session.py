"""A session's folder: its files, and the lock that says its process lives.

The lock is taken before the folder has its name, and goes with the process however that ends. So a folder whose lock is
free is of a dead session, and whoever holds the lock is the only one to touch it. A process meets its own lock, too.
"""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

_MAKING = ".new-"
_MAKING_S_MAX = 3600
_LOCK = "lock"
RESERVE = "reserve"


class Session:
    """One folder, locked by us. `files` are in the order in which they were written."""

    def __init__(self, path: Path, lock_fd: int) -> None:
        self.path, self._lock_fd = path, lock_fd

    @classmethod
    def create(cls, folder: Path, sid: str) -> "Session":
        """Make the folder of a new session. Raises OSError."""
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)  # `parents` would leave it open to others
        folder.mkdir(exist_ok=True, mode=0o700)
        path, making = folder / sid, folder / (_MAKING + sid)
        making.mkdir(mode=0o700)
        fd = os.open(making / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        making.rename(path)
        sync_folder(folder)
        return cls(path, fd)

    @classmethod
    def dead(cls, folder: Path, now_s: float) -> "Iterator[Session]":
        """Yield the sessions whose process is gone, each locked; the caller releases or deletes them. Raises OSError."""
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.is_dir() and (fd := _locked(path)) is not None:
                session = cls(path, fd)
                if not path.name.startswith(_MAKING):
                    yield session
                elif path.stat().st_mtime < now_s - _MAKING_S_MAX:  # its process ended before it wrote anything
                    session.delete()
                else:
                    session.release()

    @property
    def sid(self) -> str:
        """Whose folder it is."""
        return self.path.name

    def file(self, number: int) -> Path:
        """Return the path of the journal's file of that number."""
        return self.path / f"{number:08d}.log"

    def making(self, number: int) -> Path:
        """Return the path of a file that is being made; any number not used yet will do."""
        return self.path / f"{number:08d}.new"

    def tidy(self) -> None:
        """Delete what a dead session set aside. Raises OSError."""
        for path in (self.path / RESERVE, *self.path.glob("*.new")):
            path.unlink(missing_ok=True)

    def files(self) -> list[Path]:
        """Return the files there are, oldest first."""
        return sorted(self.path.glob("*.log"))

    def changed_s(self) -> float:
        """Return when it was last written to, as Unix time."""
        return max((path.stat().st_mtime for path in self.files()), default=0.0)

    def delete(self) -> None:
        """Delete it, the lock last, and let go. Raises OSError."""
        try:
            for path in self.path.iterdir():
                if path.name != _LOCK:
                    path.unlink(missing_ok=True)
            (self.path / _LOCK).unlink(missing_ok=True)
            self.path.rmdir()
        finally:
            self.release()

    def release(self) -> None:
        """Let go of it: from now on it counts as dead."""
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def sync_folder(folder: Path) -> None:
    """Make the names of new files durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _locked(path: Path) -> int | None:
    """Return the lock if it was free; None if its owner lives, or the folder is being deleted by another."""
    try:
        fd = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(fd).st_nlink:
            return fd
    except OSError:
        pass
    os.close(fd)
    return None
