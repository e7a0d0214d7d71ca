"""Threads on cores, and how work is cut for them."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezenet_paddle.engines.threads import Cores, micro_batches, split
from squeezenet_paddle.errors import InputError


def test_parts_run_side_by_side_and_stay_in_order() -> None:
    cores = Cores(3)
    barrier = threading.Barrier(3, timeout=10)  # breaks unless all three are there at once

    def work(part: int) -> int:
        barrier.wait()
        time.sleep(0.01 * (2 - part))
        return 10 * part

    for _ in range(3):
        assert cores.run(work, range(3)) == [0, 10, 20]


def test_an_error_in_a_thread_is_raised() -> None:
    def work(part: int) -> None:
        if part:
            raise InputError("no")

    with pytest.raises(InputError, match="no"):
        Cores(2).run(work, [0, 1])


def test_threads_stay_on_the_cores_of_the_process() -> None:
    """Each on one of its own where there is a thread a core; the caller's thread may roam."""
    before = os.sched_getaffinity(0)
    cores = Cores()
    assert cores.threads == len(before)
    found = cores.run(lambda _: os.sched_getaffinity(0), range(cores.threads))
    if cores.threads > 1:
        assert set().union(*found) == before
        assert all(len(cpus) == 1 for cpus in found)
        more = Cores(cores.threads + 1)
        assert more.run(lambda _: os.sched_getaffinity(0), range(2)) == [before] * 2
    assert os.sched_getaffinity(0) == before


@given(st.integers(0, 5), st.integers(0, 40), st.integers(1, 9))
def test_splitting_is_even_and_complete(start: int, length: int, count: int) -> None:
    parts = split(slice(start, start + length), count)
    assert [i for part in parts for i in range(part.start, part.stop)] == list(
        range(start, start + length)
    )
    lengths = [part.stop - part.start for part in parts]
    assert len(parts) == min(count, length)
    assert not lengths or max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize(
    ("count", "pixels", "lengths"),
    [
        (16, 4 * 50 * 50, [4, 4, 4, 4]),
        (17, 4 * 50 * 50, [4, 3, 4, 3, 3]),
        (3, 1, [1, 1, 1]),
        (16, 10**9, [16]),
        (16, None, [16]),
        (0, 10, []),
        (0, None, []),
    ],
)
def test_micro_batches_have_a_number_of_pixels(
    count: int, pixels: int | None, lengths: list[int]
) -> None:
    inputs = np.zeros((count, 3, 50, 50), "float32")
    parts = micro_batches(slice(0, count), inputs, pixels)
    assert [part.stop - part.start for part in parts] == lengths
