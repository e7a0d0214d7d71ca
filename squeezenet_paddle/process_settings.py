"""Settings of a process that make Paddle's CPU kernels faster. They change no result's meaning.

Importing this does nothing; `tune_process` does, and the tools call it before Paddle computes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def tune_process() -> None:
    """Lets MKL use AVX2 on AMD and one thread a call, and malloc keep the memory that it was given.

    Paddle's wheels bring an MKL that takes its AVX2 kernels on Intel processors alone, unless
    MKL_DEBUG_CPU_TYPE, which it reads at the first matrix product, says otherwise. And each map of
    the network is large enough for glibc to map and unmap it anew, with a page fault every 4 kB.
    Both together make the network more than twice as fast on an AMD processor with AVX2. We run one
    thread a core ourselves; more of MKL's, as OMP_NUM_THREADS would have them, only get in the way.
    """
    os.environ.setdefault("MKL_NUM_THREADS", "1")
    if _is_amd_with_avx2():
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    with contextlib.suppress(OSError, AttributeError):  # another libc than glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def _is_amd_with_avx2() -> bool:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return False
    flags = set(text.partition("\nflags")[2].partition("\n")[0].split())
    return "AuthenticAMD" in text and {"avx2", "fma"} <= flags
