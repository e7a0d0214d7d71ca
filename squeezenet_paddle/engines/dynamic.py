"""The network itself, in Paddle's dynamic graph."""

from __future__ import annotations

from functools import partial
from typing import Any, Callable

import numpy as np
import paddle

from ..network import fast_cpu
from ..network.config import FIRE9_CHANNELS
from ..network.heads import HEADS
from ..network.model import SqueezeNet, unpacked
from .batches import Outputs, Run
from .threads import PinnedThreads, micro_batches, split


class DynamicEngine:
    """Runs a network with the weights that it has at each call; on a CPU in one thread per core.

    An image's logits depend on the other images of its batch by rounding at most.

    Args:
        network: in evaluation mode.
        device: "cpu", "gpu" or "gpu:N".
        threads: on a CPU; None takes one per core that the process may use.
        trained_from: the stage to start from, where `features_size` is given.
        features_size: height and width of the images if the inputs are not pixels but features
            before the stage `trained_from`, as `model.unpacked` takes them.
        with_means: give the means of fire9's maps, too; the inputs are pixels then.
    """

    def __init__(
        self,
        network: SqueezeNet,
        device: str,
        threads: int | None = None,
        trained_from: str = "conv1",
        features_size: int | None = None,
        with_means: bool = False,
    ) -> None:
        config = network.config
        self._num_classes = config.num_classes
        self._with_means = with_means
        self._forward: Callable[[paddle.Tensor], Any] = network
        self._pixels: int | None = None  # the whole batch at once
        # Two layers on the means of maps are not worth sharing.
        is_small = features_size is not None and trained_from == "head"
        is_small = is_small and HEADS[config.head].pools_fires
        self._threads = PinnedThreads(threads if device == "cpu" and not is_small else 1)
        front, tail = network.front, network.tail
        if device == "cpu":
            self._pixels = fast_cpu.PLAIN_PIXELS
            if config.data_format == "NCHW":
                self._forward = partial(fast_cpu.forward, network)
                self._pixels = fast_cpu.MICRO_PIXELS
                front, tail = partial(fast_cpu.front, network), partial(fast_cpu.tail, network)
        if with_means:
            axes = [2, 3] if config.data_format == "NCHW" else [1, 2]

            def both(x: paddle.Tensor) -> list[paddle.Tensor]:
                [features] = front(x, "head")
                flat = features.ndim == 2  # the means of all fires, the last one's at the end
                means = features[:, -FIRE9_CHANNELS:] if flat else features.mean(axes)
                return [tail([features], "head"), means]

            self._forward = both
        if features_size is not None:
            self._forward = lambda x: tail(
                unpacked(config, x, trained_from, features_size), trained_from
            )

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """float32 [N, *input], or features [N, F] -> float32 [N, num_classes]."""
        return self.outputs(inputs).logits

    def outputs(self, inputs: np.ndarray) -> Outputs:
        """The logits and, `with_means`, the means of fire9's maps."""
        outputs = Outputs.empty(len(inputs), self._num_classes, self._with_means)

        def work(part: slice) -> None:
            with paddle.no_grad():  # holds for the thread that says it
                for micro in micro_batches(part, inputs, self._pixels):
                    found = self._forward(paddle.to_tensor(inputs[micro]))
                    tensors = found if self._with_means else [found]
                    outputs.put(micro, [tensor.numpy() for tensor in tensors])

        self._threads.map(work, split(slice(0, len(inputs)), self._threads.count))
        return outputs


def features_run(network: SqueezeNet, trained_from: str, device: str) -> Run:
    """The layers before a stage as a function; its outputs are NCHW.

    Args:
        network: in evaluation mode.
        trained_from: the first stage that is left out.
        device: "cpu", "gpu" or "gpu:N".
    """
    nhwc = network.config.data_format == "NHWC"
    front = network.front
    if device == "cpu" and not nhwc:
        front = partial(fast_cpu.front, network)

    def run(inputs: np.ndarray) -> list[np.ndarray]:
        with paddle.no_grad():  # holds for the thread that says it
            maps = [output.numpy() for output in front(paddle.to_tensor(inputs), trained_from)]
        return [m.transpose(0, 3, 1, 2) if nhwc and m.ndim == 4 else m for m in maps]

    return run
