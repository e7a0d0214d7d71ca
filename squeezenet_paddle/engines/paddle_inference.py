"""Paddle Inference with oneDNN on the CPU. Importing this module does not load Paddle.

A static graph is a program, which may write files as well as compute: only one that this process
has made itself is run.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.preprocess import Preprocess
from ..errors import InputError
from ..files import named_errors
from ..temporaries import temporary_directory
from .batches import Outputs, Run
from .threads import PinnedThreads, micro_batches

if TYPE_CHECKING:
    from ..network.model import SqueezeNet

_MICRO_PIXELS = 4 * 227 * 227  # in a micro-batch; an operator costs 40 us beyond its arithmetic


class PaddleEngine:
    """Logits by Paddle Inference, on all cores together: its Python API runs one call at a time.

    Args:
        network: in evaluation mode.
        preprocess: how an image becomes its input.
        threads: None takes one per core that the process may use.
        with_means: give the means of fire9's maps, too.

    Raises:
        InputError: the graph cannot be written to the folder of temporary files.
    """

    def __init__(
        self,
        network: SqueezeNet,
        preprocess: Preprocess,
        threads: int | None = None,
        with_means: bool = False,
    ) -> None:
        from .static_graph import save_static_graph  # Paddle

        count = PinnedThreads(threads).count
        with temporary_directory() as folder, named_errors(folder):
            graph, parameters = save_static_graph(
                *(network, preprocess, None, False, folder), with_means=with_means
            )
            self._run = compile_paddle(graph, parameters, count)
        self._num_classes = network.config.num_classes
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


def compile_paddle(graph: Path, parameters: Path, threads: int) -> Run:
    """A static graph with one input as a function.

    Args:
        graph: `inference.json` of Paddle 3 or `inference.pdmodel` of Paddle 2, which this process
            has written: whatever is in it is run.
        parameters: `inference.pdiparams`.
        threads: how many compute.

    Raises:
        InputError: Paddle cannot read it.
    """
    from paddle.inference import Config, create_predictor

    config = Config(str(graph), str(parameters))
    config.disable_gpu()
    config.disable_glog_info()
    config.set_cpu_math_library_num_threads(threads)
    config.enable_mkldnn()
    try:
        predictor = create_predictor(config)
    except Exception as error:  # Paddle writes a part without a word where the disk is full
        free = shutil.disk_usage(graph.parent).free
        raise InputError(
            f"{graph.parent}: Paddle cannot read what it has written there, {free / 1e6:,.1f} MB "
            "are free; TMPDIR gives another folder."
        ) from error
    to_graph = predictor.get_input_handle(predictor.get_input_names()[0])
    from_graph = [predictor.get_output_handle(name) for name in predictor.get_output_names()]

    def run(inputs: np.ndarray) -> list[np.ndarray]:
        to_graph.copy_from_cpu(np.ascontiguousarray(inputs))
        predictor.run()
        return [handle.copy_to_cpu() for handle in from_graph]

    return run
