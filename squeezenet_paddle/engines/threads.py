"""Threads that are pinned to cores, and how work is cut for them. No Paddle here."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, TypeVar

import numpy as np

Part = TypeVar("Part")
Result = TypeVar("Result")


class PinnedThreads:
    """Runs the parts of a task in parallel, each in a thread that stays on one core.

    Args:
        count: how many threads; None takes one per core that the process may use.

    Attributes:
        count: how many there are.
    """

    def __init__(self, count: int | None = None) -> None:
        cpus = _cpus()
        self.count = count or len(cpus)
        # Unpinned, two threads share a core at times while another core is idle. Pinned only if
        # there is exactly one thread per core of the process.
        self._cpus = cpus if self.count == len(cpus) else []
        # OpenMP, which MKL brings, takes the core of the pinned thread that is the first to compute
        # for all that the process may use, and would bind every other thread to it, unless told not
        # to before that.
        os.environ.setdefault("KMP_AFFINITY", "disabled")
        self._pool = ThreadPoolExecutor(self.count)

    def map(self, work: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
        """`work` of each of at most `count` parts, in their order."""
        parts = list(parts)
        if len(parts) == 1:
            return [work(parts[0])]

        def pinned(i: int, part: Part) -> Result:
            if self._cpus:
                os.sched_setaffinity(0, {self._cpus[i]})
            return work(part)

        return list(self._pool.map(pinned, range(len(parts)), parts))


def _cpus() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def split(part: slice, count: int) -> list[slice]:
    """Cuts a slice into at most `count` parts of nearly equal length, none of them empty.

    If the halves of an odd batch differ, the first is the longer one, as with two processes.
    """
    length = part.stop - part.start
    cuts = [part.start - (-length * i // count) for i in range(count + 1)]
    return [slice(a, b) for a, b in zip(cuts, cuts[1:]) if a < b]


def micro_batches(part: slice, inputs: np.ndarray, pixels: int | None) -> list[slice]:
    """Cuts a slice of a batch into micro-batches of about `pixels` pixels; None: a single one."""
    if pixels is None or part.start == part.stop:
        return split(part, 1)
    size = max(round(pixels / (inputs[0].size // 3)), 1)
    return split(part, -(-(part.stop - part.start) // size))
