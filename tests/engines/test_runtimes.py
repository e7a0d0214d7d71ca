"""The engines besides Paddle's dynamic graph: every image once, nothing run as something else."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from squeezenet_paddle.engines.runtimes import OpenvinoEngine, Run, _RuntimeOnCores

CLASSES = 4


class Copies(_RuntimeOnCores):
    """An engine whose logits are the first numbers of the input; its first core is a slow one.

    That one ends its first call when all other images are done.
    """

    def __init__(self, threads: int, count: int) -> None:
        super().__init__(CLASSES, threads)
        self._count = count
        self._all_seen = threading.Event()
        self.sizes: list[list[int]] = [[] for _ in range(threads)]  # of each core's calls
        self.alone = 0

    def _compile_for_all_cores(self) -> Run:
        def run(inputs: np.ndarray) -> np.ndarray:
            self.alone += 1
            return inputs[:, 0, 0, :CLASSES]

        return run

    def _compile_for_one_core(self) -> list[Run]:
        def on(core: int) -> Run:
            def run(inputs: np.ndarray) -> np.ndarray:
                self.sizes[core].append(len(inputs))
                if sum(map(sum, self.sizes)) == self._count:
                    self._all_seen.set()
                if core == 0:
                    self._all_seen.wait(timeout=10)
                return inputs[:, 0, 0, :CLASSES]

            return run

        return [on(core) for core in range(len(self.sizes))]


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, []), (1, []), (2, [1, 1]), (6, [1, 1, 2, 2]), (9, [1, 1, 1, 2, 2, 2])]
)
def test_each_image_runs_once(
    count: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("squeezenet_paddle.engines.runtimes._MICRO_PIXELS", 2 * 8 * 8)
    inputs = np.random.default_rng(0).normal(size=(count, 3, 8, 8)).astype("float32")
    engine = Copies(2, count)
    np.testing.assert_array_equal(engine.logits(inputs), inputs[:, 0, 0, :CLASSES])
    assert engine.alone == (1 if count == 1 else 0)
    slow, fast = engine.sizes
    assert sorted(slow + fast) == sizes  # as many for each core
    assert len(slow) <= 1  # but a core that is slow is left with one


@pytest.mark.parametrize(
    ("capabilities", "precision", "warned"),
    [
        (["FP32", "INT8"], "bfloat16", True),
        (["FP32", "INT8"], "float32", False),
        (["FP32", "BF16", "INT8"], "bfloat16", False),
    ],
)
def test_bfloat16_on_a_processor_without_it(
    capabilities: list[str],
    precision: str,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    core = SimpleNamespace(get_property=lambda device, name: capabilities)
    monkeypatch.setitem(sys.modules, "openvino", SimpleNamespace(Core=lambda: core))
    OpenvinoEngine(b"", 3, precision, threads=1)
    assert ("computes in float32" in caplog.text) == warned
