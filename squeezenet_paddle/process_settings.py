"""Settings of this process that make Paddle faster on a CPU.

Importing this changes nothing. The commands call `use_fast_cpu_settings` before Paddle computes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # from glibc's malloc.h


def use_fast_cpu_settings() -> None:
    """Makes MKL use AVX2 on AMD and one thread, and malloc keep freed memory.

    The MKL in Paddle's wheels uses its AVX2 kernels on Intel processors only, unless
    MKL_DEBUG_CPU_TYPE, read at the first matrix product, says otherwise. And the feature maps are
    so large that glibc maps and unmaps each of them, with a page fault every 4 kB. On an AMD
    processor with AVX2, both settings together make the network more than twice as fast. MKL gets
    one thread because the engines run one thread per core themselves.

    Variables that the user has set are left alone.
    """
    os.environ.setdefault("MKL_NUM_THREADS", "1")
    if _is_amd_with_avx2():
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    with contextlib.suppress(OSError, AttributeError):  # not glibc
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
