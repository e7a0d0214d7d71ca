"""Micro-batches on cores: every image once."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from squeezenet_paddle.engines import batches
from squeezenet_paddle.engines.batches import MicroBatchEngine, Run

CLASSES = 4


class Copies:
    """Compiles a network whose logits are the first numbers of the input, with a slow first stream.

    That one ends its first call when all other images are done.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._all_seen = threading.Event()
        self.sizes: list[list[int]] = [[], []]  # of each stream's calls
        self.alone = 0

    def __call__(self, threads: int, streams: int) -> list[Run]:
        return [self._on_all_cores] if streams == 1 else [self._on(i) for i in range(streams)]

    def _on_all_cores(self, inputs: np.ndarray) -> list[np.ndarray]:
        self.alone += 1
        return [inputs[:, 0, 0, :CLASSES]]

    def _on(self, core: int) -> Run:
        def run(inputs: np.ndarray) -> list[np.ndarray]:
            self.sizes[core].append(len(inputs))
            if sum(map(sum, self.sizes)) == self._count:
                self._all_seen.set()
            if core == 0:
                self._all_seen.wait(timeout=10)
            return [inputs[:, 0, 0, :CLASSES]]

        return run


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, []), (1, []), (2, [1, 1]), (6, [1, 1, 2, 2]), (9, [1, 1, 1, 2, 2, 2])]
)
def test_each_image_runs_once(
    count: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MICRO_PIXELS", 2 * 8 * 8)
    inputs = np.random.default_rng(0).normal(size=(count, 3, 8, 8)).astype("float32")
    copies = Copies(count)
    engine = MicroBatchEngine(copies, CLASSES, threads=2)
    np.testing.assert_array_equal(engine.logits(inputs), inputs[:, 0, 0, :CLASSES])
    assert copies.alone == (1 if count == 1 else 0)
    slow, fast = copies.sizes
    assert sorted(slow + fast) == sizes  # as many for each core
    assert len(slow) <= 1  # a slow core gets no more than one
