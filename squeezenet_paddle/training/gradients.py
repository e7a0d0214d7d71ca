"""Gradients of a batch: loss and backward pass, run the way that is fastest on the device.

Losses and gradients are sums over pictures, so that batches, micro-batches, threads and processes
add up. What dropout keeps is a function of (seed, epoch, index of the picture) alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Callable

import numpy as np
import paddle
import paddle.nn.functional as F

from .. import fast_cpu
from ..architecture import ModelConfig, layers, output_sizes
from ..cores import Cores, micro_batches, split
from ..errors import InputError
from ..loader import Batch
from ..model import SqueezeNet
from .recipe import Amp

Forward = Callable[..., paddle.Tensor]  # of x and keep, as `SqueezeNet.forward`


class Gradients:
    """Adds the gradients of batches to `grad` of a network's trainable parameters.

    Attributes:
        loss_scale: what the loss, and so the gradients, are multiplied by.
    """

    def __init__(
        self,
        network: SqueezeNet,
        forward: Forward,
        seed: int,
        label_smoothing: float,
        amp: Amp | None,
        micro_pixels: int | None,
    ) -> None:
        self.loss_scale = 1.0
        self._network = network
        self._forward = forward
        self._seed = seed
        self._label_smoothing = label_smoothing
        self._amp = amp
        self._micro_pixels = micro_pixels

    def add(self, batch: Batch, epoch: int) -> tuple[float, int]:
        """Adds the gradients of the sum of the losses of a batch's pictures.

        Returns:
            The sum of the losses (cross-entropy in nats, not scaled), and of how many pictures
            the largest logit is that of the label.
        """
        return self._add(self._forward, batch, epoch, slice(0, len(batch.labels)))

    def _add(self, forward: Forward, batch: Batch, epoch: int, part: slice) -> tuple[float, int]:
        """`add` for a part of a batch, in micro-batches."""
        parts = micro_batches(part, batch.inputs, self._micro_pixels)
        return _total(self._add_at_once(forward, batch, epoch, each) for each in parts)

    def _add_at_once(
        self, forward: Forward, batch: Batch, epoch: int, part: slice
    ) -> tuple[float, int]:
        inputs, labels = batch.inputs[part], batch.labels[part]
        keep = dropout_mask(self._network.config, inputs, self._seed, epoch, batch.indices[part])
        x = paddle.to_tensor(inputs)
        mask = None if keep is None else paddle.to_tensor(keep)
        if self._amp is None:
            logits = forward(x, mask)
        else:
            with paddle.amp.auto_cast(level=self._amp.level, dtype=self._amp.dtype):
                logits = forward(x, mask)
            logits = logits.astype("float32")
        loss = _loss(logits, paddle.to_tensor(labels), self._label_smoothing)
        (loss * self.loss_scale).backward()
        return loss.item(), int((logits.numpy().argmax(axis=1) == labels).sum())


class ThreadedGradients(Gradients):
    """The same on a CPU in NCHW: one thread a core, each with a fixed share of the pictures."""

    def __init__(
        self, network: SqueezeNet, seed: int, label_smoothing: float, threads: int | None
    ) -> None:
        super().__init__(
            network, fast_cpu.forward, seed, label_smoothing, None, fast_cpu.MICRO_PIXELS
        )
        self._cores = Cores(threads)

    def add(self, batch: Batch, epoch: int) -> tuple[float, int]:
        """As `Gradients.add`."""
        parts = split(slice(0, len(batch.labels)), self._cores.threads)
        # Each thread has tensors that share the weights but have gradients of their own.
        leaves = [_shared_leaves(self._network) for _ in parts]

        def work(i: int) -> tuple[float, int]:
            forward = partial(fast_cpu.forward, self._network, parameters=leaves[i])
            return self._add(forward, batch, epoch, parts[i])

        total = _total(self._cores.run(work, range(len(parts))))
        for name, parameter in self._network.named_parameters():
            grads = [each[name].grad for each in leaves if each[name].grad is not None]
            if grads:
                grads = grads if parameter.grad is None else [parameter.grad, *grads]
                parameter.grad = paddle.add_n(grads)
        return total


def make_gradients(
    network: SqueezeNet,
    device: str,
    seed: int,
    label_smoothing: float = 0.0,
    to_static: bool = False,
    amp: Amp | None = None,
    threads: int | None = None,
) -> Gradients:
    """The fastest way for a network and a device.

    Args:
        network: the one to be trained.
        device: "cpu", "gpu" or "gpu:N".
        seed: of the dropout.
        label_smoothing: the share of each target that is spread over all classes evenly.
        to_static: run the network as a static graph, with the same numbers to rounding.
        amp: mixed precision, on a GPU.
        threads: on a CPU; None takes all cores that the process may use.

    Raises:
        InputError: `amp` on a CPU.
    """
    config = network.config
    on_cpu = device == "cpu"
    if amp is not None and on_cpu:
        raise InputError(
            "mixed precision (--amp) needs a GPU: on a CPU Paddle's auto_cast has no effect, and "
            "its convolutions take float32 and float64 alone."
        )
    fast = on_cpu and config.data_format == "NCHW" and not to_static
    # Batch normalisation is over all pictures of the batch at once.
    if fast and config.head != "conv_bn":
        return ThreadedGradients(network, seed, label_smoothing, threads)
    forward: Forward = network
    if fast:
        forward = partial(fast_cpu.forward, network)
    elif to_static:
        forward = _static_forward(network)
    micro_pixels = fast_cpu.PLAIN_PIXELS if on_cpu and config.head != "conv_bn" else None
    return Gradients(network, forward, seed, label_smoothing, amp, micro_pixels)


def dropout_mask(
    config: ModelConfig, inputs: np.ndarray, seed: int, epoch: int, indices: np.ndarray
) -> np.ndarray | None:
    """What the dropout keeps of fire9's output, bool in its shape; None where nothing is dropped.

    A picture's mask depends on (seed, epoch, index) and the size of its maps, not on the layout.
    """
    if config.head == "conv_bn" or config.dropout == 0:
        return None
    chain = layers(config)
    size = inputs.shape[2:] if config.data_format == "NCHW" else inputs.shape[1:3]
    channels = next(layer.channels for layer in chain if layer.name == "fire9/concat")
    shape = (channels, *(output_sizes(chain, n)["fire9/concat"] for n in size))
    threshold = round(config.dropout * 2**16)
    keep = np.empty((len(indices), *shape), bool)
    for mask, index in zip(keep, indices):
        # The last number keeps these apart from the random numbers of the augmentation.
        bits = np.random.default_rng([seed, epoch, int(index), 1]).bytes(2 * mask.size)
        np.greater_equal(np.frombuffer(bits, "<u2").reshape(shape), threshold, out=mask)
    return keep if config.data_format == "NCHW" else keep.transpose(0, 2, 3, 1)


def _loss(logits: paddle.Tensor, labels: paddle.Tensor, smoothing: float) -> paddle.Tensor:
    """The sum of the cross-entropies with (1 - smoothing) * onehot + smoothing / classes."""
    loss = F.cross_entropy(logits, labels, reduction="sum")
    if smoothing:
        spread = -F.log_softmax(logits).mean(axis=1).sum()
        loss = (1 - smoothing) * loss + smoothing * spread
    return loss


def _total(results: Iterable[tuple[float, int]]) -> tuple[float, int]:
    results = list(results)
    return sum(loss for loss, _ in results), sum(hits for _, hits in results)


def _shared_leaves(network: SqueezeNet) -> dict[str, paddle.Tensor]:
    """Leaves of a graph of their own that share the memory of the network's parameters."""
    leaves = {}
    for name, parameter in network.named_parameters():
        leaves[name] = parameter.detach()
        leaves[name].stop_gradient = parameter.stop_gradient
    return leaves


def _static_forward(network: SqueezeNet) -> Forward:
    """The network's forward as a static graph; batch, height and width stay open."""
    config = network.config
    shape = [None, 3, None, None] if config.data_format == "NCHW" else [None, None, None, 3]
    spec = [paddle.static.InputSpec(shape, "float32")]
    if config.head != "conv_bn" and config.dropout > 0:
        spec.append(paddle.static.InputSpec([None] * 4, "bool"))
    static = paddle.jit.to_static(network.forward, input_spec=spec, full_graph=True)
    # An input that the graph does not have must not be given, not even as None.
    return lambda x, keep: static(x) if keep is None else static(x, keep)
