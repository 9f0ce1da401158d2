"""What a process may use of its machine."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil


def usable_cpus() -> int:
    """CPUs that this process may use, by its affinity and its cgroup's quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cpus = min(cpus, max(1, int(quota) // int(period)))  # "max" without a limit: a ValueError
    return cpus


def free_memory() -> int:
    """Bytes that this process can still have, by the machine and its cgroup's limit."""
    free = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):
        limit, used = (
            int((group / name).read_text(encoding="ascii")) for name in ("memory.max", "memory.current")
        )
        free = min(free, max(0, limit - used))  # "max" without a limit: a ValueError
    return free
