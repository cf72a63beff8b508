"""What a process and its children use, read from Linux's /proc: CPU time, memory; and where they may run.

CPU time is counted in ticks of 10 ms, so a window of some seconds is exact to a percent or better. Memory is PSS where the kernel
tells it (shared pages are counted once), else RSS.
"""

import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Cores:
    """Cores for what is measured, and for everything else; the same where the machine has only one."""

    measured: frozenset[int]
    rest: frozenset[int]

    @property
    def apart(self) -> bool:
        """Whether the two do not disturb each other."""
        return not self.measured & self.rest


def cores() -> Cores:
    """Share out this machine: the first core for what is measured, the second for load and provider."""
    usable = sorted(os.sched_getaffinity(0))
    return Cores(frozenset(usable[:1]), frozenset(usable[1:2] or usable[:1]))


def tree(pid: int) -> list[int]:
    """Return a process and all its living descendants."""
    parents: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents.setdefault(_parent(entry), []).append(int(entry.name))
    found, at = [pid], 0
    while at < len(found):
        found += parents.get(found[at], [])
        at += 1
    return found


def named(pid: int, names: Collection[str]) -> bool:
    """Tell whether a process is one of these programs."""
    try:
        return (_PROC / str(pid) / "comm").read_text().strip() in names
    except OSError:
        return False


def cpu_s(pids: Collection[int]) -> float:
    """Return the CPU seconds, user and system, that the processes and their ended children have used."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            total += sum(int(value) for value in _stat(_PROC / str(pid))[11:15])
    return total / _TICKS_PER_S


def memory_bytes(pids: Collection[int]) -> int:
    """Return the memory of the processes."""
    return sum(_memory_bytes(pid) for pid in pids)


def pin(pid: int, where: Collection[int]) -> None:
    """Let a process, with all its threads, run on these cores only."""
    for task in (_PROC / str(pid) / "task").iterdir():
        with suppress(OSError):
            os.sched_setaffinity(int(task.name), where)


def machine() -> dict[str, str]:
    """Say what this machine is."""
    model = next(
        (line.partition(":")[2].strip() for line in (_PROC / "cpuinfo").read_text().splitlines() if line.startswith("model name")),
        "unknown processor",
    )  # fmt: skip
    system = os.uname()
    memory_kb = (_PROC / "meminfo").read_text().split()[1]
    return {
        "processor": model, "cores": str(len(os.sched_getaffinity(0))), "memory": f"{int(memory_kb) / 2**20:.1f} GiB",
        "kernel": f"{system.sysname} {system.release}", "load before": f"{os.getloadavg()[0]:.2f}",
    }  # fmt: skip


def _stat(entry: Path) -> list[str]:
    """Fields after the name, which may hold anything: index 0 is field 3, the state. Source: proc_pid_stat(5)."""
    return (entry / "stat").read_text().rpartition(")")[2].split()


def _parent(entry: Path) -> int:
    return int(_stat(entry)[1])


def _memory_bytes(pid: int) -> int:
    with suppress(OSError):
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    with suppress(OSError):
        return int((_PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
