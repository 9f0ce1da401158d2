"""What a process may use of its machine."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def usable_cpus() -> int:
    """CPUs that this process may use, by its affinity and its cgroup's quota."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cpus = min(cpus, max(1, int(quota) // int(period)))  # "max" without a limit: a ValueError
    return cpus
