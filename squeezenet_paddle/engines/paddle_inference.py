"""Paddle Inference with oneDNN on the CPU. Importing this module does not load Paddle."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from .batches import Outputs, Run
from .threads import PinnedThreads, micro_batches

_MICRO_PIXELS = 4 * 227 * 227  # in a micro-batch; an operator costs 40 us beyond its arithmetic


class PaddleEngine:
    """Logits by Paddle Inference, on all cores together: its Python API runs one call at a time.

    Args:
        graph: the static graph, `inference.json` of Paddle 3 or `inference.pdmodel` of Paddle 2.
        parameters: `inference.pdiparams`.
        num_classes: length of the logits.
        threads: None takes one per core that the process may use.
        with_means: the graph gives the means of fire9's maps, too.
    """

    def __init__(
        self,
        graph: Path,
        parameters: Path,
        num_classes: int,
        threads: int | None = None,
        with_means: bool = False,
    ) -> None:
        count = PinnedThreads(threads).count
        self._run = compile_paddle(graph, parameters, count, 2 if with_means else 1)
        self._num_classes = num_classes
        self._with_means = with_means

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """float32 [N, *input] -> float32 [N, num_classes]."""
        return self.outputs(inputs).logits

    def outputs(self, inputs: np.ndarray) -> Outputs:
        """The logits and, `with_means`, the means of fire9's maps."""
        outputs = Outputs.empty(len(inputs), self._num_classes, self._with_means)
        for micro in micro_batches(slice(0, len(inputs)), inputs, _MICRO_PIXELS):
            outputs.put(micro, self._run(inputs[micro]))
        return outputs


def compile_paddle(graph: Path, parameters: Path, threads: int, outputs: int = 1) -> Run:
    """A static graph with one input as a function.

    Raises:
        InputError: it has fewer outputs than are needed.
    """
    from paddle.inference import Config, create_predictor

    config = Config(str(graph), str(parameters))
    config.disable_gpu()
    config.disable_glog_info()
    config.set_cpu_math_library_num_threads(threads)
    config.enable_mkldnn()
    predictor = create_predictor(config)
    to_graph = predictor.get_input_handle(predictor.get_input_names()[0])
    from_graph = [predictor.get_output_handle(name) for name in predictor.get_output_names()]
    if len(from_graph) < outputs:
        raise InputError(
            f"{graph}: this export is older than the model's calibration and does not give what "
            "that needs; export it again."
        )

    def run(inputs: np.ndarray) -> list[np.ndarray]:
        to_graph.copy_from_cpu(np.ascontiguousarray(inputs))
        predictor.run()
        return [handle.copy_to_cpu() for handle in from_graph]

    return run
