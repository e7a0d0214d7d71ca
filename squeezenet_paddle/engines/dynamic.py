"""What computes logits: a network in dynamic graph."""

from __future__ import annotations

from functools import partial
from typing import Callable

import numpy as np
import paddle

from ..network import fast_cpu
from ..network.model import SqueezeNet, unpacked
from .threads import Cores, micro_batches, split


class DynamicEngine:
    """Runs a network as it stands at each call; on a CPU in one thread a core.

    An image's logits depend on the others that it comes with by rounding at most.

    Args:
        network: in evaluation mode.
        device: "cpu", "gpu" or "gpu:N".
        threads: on a CPU; None takes all cores that the process may use.
        first: the stage to start from, where `features_size` is given.
        features_size: height and width of the images whose features before the stage `first`, as
            `model.unpacked` takes them, stand in for their pixels; None: pixels.
    """

    def __init__(
        self,
        network: SqueezeNet,
        device: str,
        threads: int | None = None,
        first: str = "conv1",
        features_size: int | None = None,
    ) -> None:
        config = network.config
        self._num_classes = config.num_classes
        self._forward: Callable[[paddle.Tensor], paddle.Tensor] = network
        self._pixels: int | None = None  # all at once
        self._cores = Cores(threads if device == "cpu" else 1)
        tail = network.tail
        if device == "cpu":
            self._pixels = fast_cpu.PLAIN_PIXELS
            if config.data_format == "NCHW":
                self._forward = partial(fast_cpu.forward, network)
                self._pixels = fast_cpu.MICRO_PIXELS
                tail = partial(fast_cpu.tail, network)
        if features_size is not None:
            self._forward = lambda x: tail(unpacked(config, x, first, features_size), first)

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """float32 [N, *input], or features [N, F] -> float32 [N, num_classes]."""
        logits = np.empty((len(inputs), self._num_classes), "float32")

        def work(part: slice) -> None:
            with paddle.no_grad():  # which each thread has to say
                for micro in micro_batches(part, inputs, self._pixels):
                    logits[micro] = self._forward(paddle.to_tensor(inputs[micro])).numpy()

        self._cores.run(work, split(slice(0, len(inputs)), self._cores.threads))
        return logits
