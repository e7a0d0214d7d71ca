"""Paddle Inference with oneDNN on the CPU. Importing this module does not load Paddle."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import numpy as np

from .threads import PinnedThreads, micro_batches

_MICRO_PIXELS = 4 * 227 * 227  # in a micro-batch; an operator costs 40 us beyond its arithmetic


class PaddleEngine:
    """Logits by Paddle Inference, on all cores together: its Python API runs one call at a time.

    Args:
        graph: the static graph, `inference.json` of Paddle 3 or `inference.pdmodel` of Paddle 2.
        parameters: `inference.pdiparams`.
        num_classes: length of the logits.
        threads: None takes one per core that the process may use.
    """

    def __init__(
        self, graph: Path, parameters: Path, num_classes: int, threads: int | None = None
    ) -> None:
        self._run = compile_paddle(graph, parameters, PinnedThreads(threads).count)
        self._num_classes = num_classes

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """float32 [N, *input] -> float32 [N, num_classes]."""
        logits = np.empty((len(inputs), self._num_classes), "float32")
        for micro in micro_batches(slice(0, len(inputs)), inputs, _MICRO_PIXELS):
            logits[micro] = self._run(inputs[micro])
        return logits


def compile_paddle(
    graph: Path, parameters: Path, threads: int
) -> Callable[[np.ndarray], np.ndarray]:
    """A static graph with one input and one output as a function."""
    from paddle.inference import Config, create_predictor

    config = Config(str(graph), str(parameters))
    config.disable_gpu()
    config.disable_glog_info()
    config.set_cpu_math_library_num_threads(threads)
    config.enable_mkldnn()
    predictor = create_predictor(config)
    to_graph = predictor.get_input_handle(predictor.get_input_names()[0])
    from_graph = predictor.get_output_handle(predictor.get_output_names()[0])

    def run(inputs: np.ndarray) -> np.ndarray:
        to_graph.copy_from_cpu(np.ascontiguousarray(inputs))
        predictor.run()
        return from_graph.copy_to_cpu()

    return run
