"""Work cut into parts, and threads that each stay on a core of their own. No Paddle here."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, TypeVar

import numpy as np

Part = TypeVar("Part")
Result = TypeVar("Result")


class Cores:
    """Runs the parts of a task side by side, each in a thread.

    Args:
        threads: how many; None takes all cores that the process may use.
    """

    def __init__(self, threads: int | None = None) -> None:
        cpus = _cpus()
        self.threads = threads or len(cpus)
        # Left to themselves, threads share a core at times while another is idle. Where there is a
        # thread for each core of the process, each is bound to one.
        self._cpus = cpus if self.threads == len(cpus) else []
        self._pool = ThreadPoolExecutor(self.threads)

    def run(self, work: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
        """`work` of each of at most `threads` parts."""
        parts = list(parts)
        if len(parts) == 1:
            return [work(parts[0])]

        def pinned(i: int, part: Part) -> Result:
            if self._cpus:
                os.sched_setaffinity(0, {self._cpus[i]})  # each time, as OpenMP resets it
            return work(part)

        return list(self._pool.map(pinned, range(len(parts)), parts))


def _cpus() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def split(part: slice, count: int) -> list[slice]:
    """Cuts a part into at most `count` of nearly the same length, none of them empty.

    Of an odd batch the first half is the longer one, as for two processes.
    """
    length = part.stop - part.start
    cuts = [part.start - (-length * i // count) for i in range(count + 1)]
    return [slice(a, b) for a, b in zip(cuts, cuts[1:]) if a < b]


def micro_batches(part: slice, inputs: np.ndarray, pixels: int | None) -> list[slice]:
    """Cuts a part of a batch into micro-batches of about so many pixels; None leaves it whole."""
    if pixels is None or part.start == part.stop:
        return split(part, 1)
    size = max(round(pixels / (inputs[0].size // 3)), 1)
    return split(part, -(-(part.stop - part.start) // size))
