"""Says which process serves a data directory. The file is locked for as long as that process lives, so a stale one is never believed.

Of several on one directory the first has the file.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

NAME = "bursar.pid"
_TRIES = 5  # somebody may be looking at this very moment


@contextlib.contextmanager
def held(data_dir: Path) -> Iterator[bool]:
    """Hold the file while the process serves; yields False where another process has it, or the directory takes no file."""
    path = data_dir / NAME
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        stream = path.open("a+")
    except OSError:
        yield False
        return
    with stream:
        if not _taken(stream.fileno()):
            yield False
            return
        stream.truncate(0)
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        try:
            yield True
        finally:
            stream.truncate(0)


def running(data_dir: Path) -> int | None:
    """Return the process that serves this directory, None if none does."""
    try:
        with (data_dir / NAME).open("r+") as stream:
            if _locked(stream.fileno(), fcntl.LOCK_SH):  # shared: those who only look do not see each other
                return None  # nobody holds it: whatever it says is of the past
            text = stream.read(32).strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _taken(number: int) -> bool:
    for _ in range(_TRIES):
        if _locked(number, fcntl.LOCK_EX):
            return True
        time.sleep(0.01)
    return False


def _locked(number: int, how: int) -> bool:
    try:
        fcntl.flock(number, how | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
