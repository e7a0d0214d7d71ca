"""Batches on the cores of a processor: micro-batches for logits, single images for features.

On AVX2 processors inference is bound by arithmetic, so what can be gained lies between the layers:
a micro-batch on each core keeps its maps in that core's cache, and no core waits for another one
at the end of each layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Callable, NamedTuple

import numpy as np

from ..network.config import FIRE9_CHANNELS
from .threads import PinnedThreads, micro_batches, split

MICRO_PIXELS = 2 * 227 * 227  # in a micro-batch on one core; measured

_LARGEST = float(np.finfo("float16").max)

# float32 [n, *input] -> the graph's outputs, float32 [n, ...] each.
Run = Callable[[np.ndarray], "list[np.ndarray]"]
# Numbers of threads and streams -> a function per stream, to be called in parallel.
Compile = Callable[[int, int], "list[Run]"]


class Outputs(NamedTuple):
    """What a network computes of a batch.

    Attributes:
        logits: float32 [N, num_classes].
        means: float32 [N, 512], of fire9's maps; None where they were not asked for.
    """

    logits: np.ndarray
    means: np.ndarray | None

    @staticmethod
    def empty(count: int, num_classes: int, with_means: bool) -> Outputs:
        """Room for the outputs of a batch."""
        means = np.empty((count, FIRE9_CHANNELS), "float32") if with_means else None
        return Outputs(np.empty((count, num_classes), "float32"), means)

    def put(self, rows: slice, arrays: Sequence[np.ndarray]) -> None:
        """Fills some rows from what a graph gave: the logits, and fire9's maps or their means."""
        self.logits[rows] = arrays[0]
        if self.means is not None:
            maps = arrays[1]
            self.means[rows] = maps.mean(axis=(2, 3)) if maps.ndim == 4 else maps


class MicroBatchEngine:
    """Logits, computed in micro-batches on one core each, or of few images on all cores together.

    Args:
        compile_for: gives the compiled network, whose outputs are the logits and, `with_means`,
            the output of fire9, its maps or their means.
        num_classes: length of the logits.
        threads: None takes one per core that the process may use.
        with_means: give the means of fire9's maps, too.
    """

    def __init__(
        self,
        compile_for: Compile,
        num_classes: int,
        threads: int | None = None,
        with_means: bool = False,
    ) -> None:
        self._compile_for = compile_for
        self._num_classes = num_classes
        self._with_means = with_means
        self._threads = PinnedThreads(threads)

    @cached_property
    def _on_all_cores(self) -> Run:
        return self._compile_for(self._threads.count, 1)[0]

    @cached_property
    def _on_one_core(self) -> list[Run]:
        return self._compile_for(self._threads.count, self._threads.count)

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """float32 [N, *input] -> float32 [N, num_classes]."""
        return self.outputs(inputs)[0]

    def outputs(self, inputs: np.ndarray) -> Outputs:
        """The logits and, `with_means`, the means of fire9's maps."""
        outputs = Outputs.empty(len(inputs), self._num_classes, self._with_means)
        if len(inputs) == 0:
            return outputs
        if len(inputs) < max(self._threads.count, 2):
            outputs.put(slice(None), self._on_all_cores(inputs))
            return outputs

        whole, threads = slice(0, len(inputs)), self._threads.count
        rounds = -(-len(micro_batches(whole, inputs, MICRO_PIXELS)) // threads)
        micros = iter(split(whole, rounds * threads))

        def work(run: Run) -> None:
            # Each core takes the next one, as processes that read images may slow down a core.
            for micro in micros:
                outputs.put(micro, run(inputs[micro]))

        self._threads.map(work, self._on_one_core)
        return outputs


class FeatureEngine:
    """Features before a stage of the network, of one image at a time per core.

    So the features of an image depend on no other image, and are the same from a cache, without
    one, and after a restart.

    Args:
        engine: what computes them, with its version.
        compile_for: gives the compiled layers, whose outputs together are the features.
        size: F, the number of features of an image.
        threads: None takes one per core that the process may use.

    Attributes:
        engine, size: as above.
    """

    def __init__(self, engine: str, compile_for: Compile, size: int, threads: int | None) -> None:
        self.engine, self.size = engine, size
        self._threads = PinnedThreads(threads)
        self._runs = compile_for(self._threads.count, self._threads.count)

    def features(self, inputs: np.ndarray) -> np.ndarray:
        """float32 [N, *input] -> float16 [N, F]; values beyond its range are cut off."""
        features = np.empty((len(inputs), self.size), "float16")

        def work(part: tuple[Run, slice]) -> None:
            run, rows = part
            for i in range(rows.start, rows.stop):
                features[i] = np.clip(flat(run(inputs[i : i + 1])), -_LARGEST, _LARGEST)

        parts = split(slice(0, len(inputs)), self._threads.count)
        self._threads.map(work, list(zip(self._runs, parts)))
        return features

    def exact(self, x: np.ndarray) -> np.ndarray:
        """float32 [*input] -> float32 [F]: the features of one image before they are rounded."""
        return flat(self._runs[0](x[None]))


def flat(outputs: list[np.ndarray]) -> np.ndarray:
    """Arrays one behind the other, as one of one dimension."""
    return np.concatenate([output.ravel() for output in outputs])
