"""Settings of this process: what makes Paddle faster on a CPU, and signals that stay ours.

Importing this changes nothing. The commands call both before Paddle is loaded.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

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


def keep_signals_from_paddle() -> None:
    """Lets signals that end this process wait while Paddle is loaded, and then act as usual.

    Paddle takes SIGTERM for a crash, of which it prints the C++ stack; one that comes while it is
    loaded or computes can hang it for ever. Ctrl-C it takes for a missing library, and says so.
    Does nothing where Paddle is loaded already.
    """
    if "paddle" not in sys.modules and not any(type(f) is _PaddleFinder for f in sys.meta_path):
        sys.meta_path.insert(0, _PaddleFinder())


class _PaddleFinder:
    """Finds Paddle as usual, and loads it with the signals held back."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "paddle":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            held = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
            try:
                execute(module)
                module.disable_signal_handler()
            finally:
                for number in held[1:]:
                    if callable(handler := signal.getsignal(number)):  # Paddle has removed it
                        signal.signal(number, handler)
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
