"""Pinned threads, and how work is cut for them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezenet_paddle.engines.threads import PinnedThreads, micro_batches, split
from squeezenet_paddle.errors import InputError


def test_parts_run_side_by_side_and_stay_in_order() -> None:
    threads = PinnedThreads(3)
    barrier = threading.Barrier(3, timeout=10)  # breaks unless all three are there at once

    def work(part: int) -> int:
        barrier.wait()
        time.sleep(0.01 * (2 - part))
        return 10 * part

    for _ in range(3):
        assert threads.map(work, range(3)) == [0, 10, 20]


def test_an_error_in_a_thread_is_raised() -> None:
    def work(part: int) -> None:
        if part:
            raise InputError("no")

    with pytest.raises(InputError, match="no"):
        PinnedThreads(2).map(work, [0, 1])


def test_threads_stay_on_the_cores_of_the_process() -> None:
    """Each on its own core if there is one thread per core; the caller's thread is not bound."""
    before = os.sched_getaffinity(0)
    threads = PinnedThreads()
    assert threads.count == len(before)
    found = threads.map(lambda _: os.sched_getaffinity(0), range(threads.count))
    if threads.count > 1:
        assert set().union(*found) == before
        assert all(len(cpus) == 1 for cpus in found)
        more = PinnedThreads(threads.count + 1)
        assert more.map(lambda _: os.sched_getaffinity(0), range(2)) == [before] * 2
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


PINNED_FIRST = """
import os, sys
import zlib  # before PaddlePaddle 2.6.2
import paddle
from squeezenet_paddle.engines.threads import PinnedThreads
before = os.sched_getaffinity(0)
threads = PinnedThreads()
matrix = paddle.ones([8, 8])
for _ in range(2):
    used = threads.map(lambda _: (paddle.matmul(matrix, matrix), os.sched_getaffinity(0))[1],
                       range(threads.count))
    assert len(used) == len(before) and set().union(*used) == before, used
paddle.matmul(matrix, matrix)
assert os.sched_getaffinity(0) == before, os.sched_getaffinity(0)
assert PinnedThreads().count == len(before)
"""


def test_the_process_keeps_its_cores() -> None:
    """Where a pinned thread is the first of a process to compute, as in training."""
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("this process has one core")
    subprocess.run([sys.executable, "-c", PINNED_FIRST], check=True, env=os.environ, timeout=120)
