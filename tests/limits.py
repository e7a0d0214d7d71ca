"""Limits of time and memory that the operating system holds a process to."""

from __future__ import annotations

import resource
from pathlib import Path


def limit_this_process(seconds: int, memory: int) -> None:
    """Ends this process after so many more seconds of CPU, or with so many more bytes."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    end = int(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (end, end))
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
