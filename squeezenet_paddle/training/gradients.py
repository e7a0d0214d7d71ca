"""Gradients of a batch: loss and backward pass, computed in the way that is fastest on the device.

Losses and gradients are sums over images, so that batches, micro-batches, threads and processes
add up. The dropout mask of an image is a function of (seed, epoch, index of the image) alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Callable

import numpy as np
import paddle
import paddle.nn.functional as F

from ..data.loader import Batch
from ..engines.threads import PinnedThreads, micro_batches, split
from ..errors import InputError
from ..network import fast_cpu
from ..network.config import ModelConfig, dropout_shape
from ..network.heads import HEADS
from ..network.model import SqueezeNet, unpacked
from .staging import on_device

Forward = Callable[..., paddle.Tensor]  # (x, dropout mask) -> logits, as `SqueezeNet.forward`
Result = Callable[[], "tuple[float, int]"]  # waits, and gives the sum of the losses and the hits
Frozen = Callable[[paddle.Tensor], "list[paddle.Tensor]"]  # x -> maps, as `SqueezeNet.front`


@dataclass(frozen=True)
class Amp:
    """Mixed precision.

    Attributes:
        level: "O1", operators that gain from it and lose little; "O2", nearly all of them. The
            weights stay float32.
        dtype: "float16", with a loss scale, or "bfloat16".
    """

    level: str
    dtype: str = "float16"


@dataclass(frozen=True)
class Loss:
    """The sum of the cross-entropies of a batch's images, in nats.

    Attributes:
        label_smoothing: the share of each target that is spread over all classes evenly.
        class_weights: float32 [num_classes], what an image counts by its label; None: 1.
    """

    label_smoothing: float = 0.0
    class_weights: np.ndarray | None = None

    def __call__(self, logits: paddle.Tensor, labels: np.ndarray) -> paddle.Tensor:
        losses = F.cross_entropy(logits, paddle.to_tensor(labels), reduction="none").reshape([-1])
        if self.label_smoothing:
            spread = -F.log_softmax(logits).mean(axis=1)
            losses = (1 - self.label_smoothing) * losses + self.label_smoothing * spread
        if self.class_weights is not None:
            losses = losses * paddle.to_tensor(self.class_weights[labels])
        return losses.sum()


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
        loss: Loss,
        features_size: int | None,
        amp: Amp | None = None,
        micro_pixels: int | None = None,
    ) -> None:
        self.loss_scale = 1.0
        self._network = network
        self._forward = forward
        self._seed = seed
        self._loss = loss
        self._features_size = features_size
        self._amp = amp
        self._micro_pixels = micro_pixels

    def add(self, batch: Batch, epoch: int) -> tuple[float, int]:
        """Adds the gradients of the sum of the losses of a batch's images.

        Returns:
            The sum of the losses (as `Loss` has it, not scaled), and the number of images whose
            largest logit is that of the label.
        """
        return self.start(batch, epoch)()

    def start(self, batch: Batch, epoch: int) -> Result:
        """`add` that does not wait for a GPU, which computes while the next batch is prepared.

        Returns:
            A function that waits, and returns what `add` does. The batch is not needed any more.
        """
        return self._start(self._forward, batch, epoch, slice(0, len(batch.labels)))

    def _start(self, forward: Forward, batch: Batch, epoch: int, part: slice) -> Result:
        """`start` for a part of a batch, in micro-batches."""
        parts = micro_batches(part, batch.inputs, self._micro_pixels)
        results = [self._start_at_once(forward, batch, epoch, each) for each in parts]
        return lambda: _total(result() for result in results)

    def _start_at_once(self, forward: Forward, batch: Batch, epoch: int, part: slice) -> Result:
        mask = self._mask(batch, epoch, part)
        x = on_device(batch.inputs, part)
        if self._amp is None:
            logits = forward(x, mask)
        else:
            with paddle.amp.auto_cast(level=self._amp.level, dtype=self._amp.dtype):
                logits = forward(x, mask)
            logits = logits.astype("float32")
        return self._backward(logits, batch.labels[part])

    def _mask(self, batch: Batch, epoch: int, part: slice) -> paddle.Tensor | None:
        config, side = self._network.config, self._features_size
        size = batch.inputs.shape[2:] if config.data_format == "NCHW" else batch.inputs.shape[1:3]
        if side is not None:
            size = (side, side)
        mask = dropout_masks(config, size, self._seed, epoch, batch.indices[part])
        return None if mask is None else paddle.to_tensor(mask)

    def _backward(self, logits: paddle.Tensor, labels: np.ndarray) -> Result:
        loss = self._loss(logits, labels)
        (loss * self.loss_scale).backward()
        loss, logits = loss.detach(), logits.detach()
        return lambda: (loss.item(), int((logits.numpy().argmax(axis=1) == labels).sum()))


class ThreadedGradients(Gradients):
    """Gradients on a CPU in NCHW: one thread per core, each with a fixed share of the images."""

    def __init__(
        self,
        network: SqueezeNet,
        frozen: Frozen,
        trained_from: str,
        seed: int,
        loss: Loss,
        features_size: int | None,
        threads: int | None,
    ) -> None:
        def forward(
            x: paddle.Tensor, dropout_mask: paddle.Tensor | None, leaves: dict[str, paddle.Tensor]
        ) -> paddle.Tensor:
            return fast_cpu.tail(network, frozen(x), trained_from, dropout_mask, leaves)

        micro_pixels = fast_cpu.MICRO_PIXELS
        super().__init__(network, forward, seed, loss, features_size, micro_pixels=micro_pixels)
        self._frozen, self._trained_from = frozen, trained_from
        self._threads = PinnedThreads(threads)

    def add(self, batch: Batch, epoch: int) -> tuple[float, int]:
        """See `Gradients.add`."""
        parts = split(slice(0, len(batch.labels)), self._threads.count)
        # Each thread has tensors that share the weights but have gradients of their own.
        leaves = [_shared_leaves(self._network) for _ in parts]

        def work(i: int) -> tuple[float, int]:
            forward = partial(self._forward, leaves=leaves[i])
            return self._start(forward, batch, epoch, parts[i])()

        total = _total(self._threads.map(work, range(len(parts))))
        self._take(leaves)
        return total

    def start(self, batch: Batch, epoch: int) -> Result:
        """See `Gradients.start`; on a CPU there is nothing to wait for."""
        total = self.add(batch, epoch)
        return lambda: total

    def _take(self, leaves: list[dict[str, paddle.Tensor]]) -> None:
        """Adds the threads' gradients to the network's."""
        for name, parameter in self._network.named_parameters():
            grads = [each[name].grad for each in leaves if each[name].grad is not None]
            if grads:
                grads = grads if parameter.grad is None else [parameter.grad, *grads]
                parameter.grad = paddle.add_n(grads)


class WholeHeadGradients(ThreadedGradients):
    """Threaded gradients for a head that is computed for all images at once.

    The threads compute the input of the head, then one computes the head and its gradients, and
    then the threads run the rest of the backward pass.
    """

    def add(self, batch: Batch, epoch: int) -> tuple[float, int]:
        """See `Gradients.add`."""
        whole = slice(0, len(batch.labels))
        is_input = self._trained_from == "head" and self._features_size is not None
        parts = split(whole, 1 if is_input else self._threads.count)
        leaves = [_shared_leaves(self._network) for _ in parts]

        def features(i: int) -> list[paddle.Tensor]:
            micros = micro_batches(parts[i], batch.inputs, self._micro_pixels)
            tensors = [self._frozen(paddle.to_tensor(batch.inputs[micro])) for micro in micros]
            return [
                fast_cpu.features(self._network, x, self._trained_from, leaves[i]) for x in tensors
            ]

        inputs = self._threads.map(features, range(len(parts)))
        if not inputs:
            return 0.0, 0
        x = paddle.concat([each.detach() for own in inputs for each in own])
        x.stop_gradient = self._trained_from == "head"
        logits = fast_cpu.head(self._network, x, self._mask(batch, epoch, whole))
        total = self._backward(logits, batch.labels)()
        if x.stop_gradient:
            return total
        lengths = [len(each) for own in inputs for each in own]
        grads = iter(paddle.split(x.grad, lengths))
        pairs = [(own, [next(grads) for _ in own]) for own in inputs]
        self._threads.map(lambda pair: paddle.autograd.backward(*pair), pairs)
        self._take(leaves)
        return total


def make_gradients(
    network: SqueezeNet,
    device: str,
    seed: int,
    label_smoothing: float = 0.0,
    to_static: bool = False,
    amp: Amp | None = None,
    threads: int | None = None,
    trained_from: str = "conv1",
    features_size: int | None = None,
    class_weights: np.ndarray | None = None,
) -> Gradients:
    """The fastest way for a network and a device.

    Args:
        network: the one to be trained.
        device: "cpu", "gpu" or "gpu:N".
        seed: of the dropout.
        label_smoothing, class_weights: as for `Loss`.
        to_static: run the network as a static graph, with the same numbers to rounding.
        amp: mixed precision, on a GPU.
        threads: on a CPU; None takes all cores that the process may use.
        trained_from: the first stage that is trained; there is no backward pass before it.
        features_size: height and width of the images, where the batches hold features before the
            stage `trained_from` in place of pixels, as `model.unpacked` takes them; None: pixels.

    Raises:
        InputError: `amp` on a CPU or a GPU that cannot do it, or `to_static` with features.
    """
    config = network.config
    on_cpu = device == "cpu"
    if amp is not None and on_cpu:
        raise InputError(
            "`amp`: mixed precision needs a GPU: on a CPU Paddle's auto_cast has no effect, and "
            "its convolutions take float32 and float64 alone."
        )
    if amp is not None:
        _check_amp(amp)
    if to_static and features_size is not None:
        raise InputError("`to_static`: the static graph takes images, not cached features.")
    loss = Loss(label_smoothing, class_weights)
    fast = on_cpu and config.data_format == "NCHW" and not to_static
    front = partial(fast_cpu.front, network) if fast else network.front

    def frozen(x: paddle.Tensor) -> list[paddle.Tensor]:
        if features_size is not None:
            return unpacked(config, x, trained_from, features_size)
        with paddle.no_grad():
            return front(x, trained_from)

    # Batch normalisation is over all images of the batch, and two layers on the means of maps are
    # not worth sharing.
    head = HEADS[config.head]
    head_at_once = head.normalises_batches or head.pools_fires
    if fast:
        threaded = WholeHeadGradients if head_at_once else ThreadedGradients
        return threaded(network, frozen, trained_from, seed, loss, features_size, threads)
    forward: Forward = lambda x, mask: network.tail(frozen(x), trained_from, mask)  # noqa: E731
    if to_static:
        forward = _static_forward(network)
    micro_pixels = fast_cpu.PLAIN_PIXELS if on_cpu and not head_at_once else None
    return Gradients(network, forward, seed, loss, features_size, amp, micro_pixels)


def _check_amp(amp: Amp) -> None:
    """Refuses a type that the GPU does not have; Paddle warns, and then computes in float32.

    Raises:
        InputError: Paddle says why.
    """
    with warnings.catch_warnings(record=True) as remarks:
        warnings.simplefilter("always")
        with paddle.amp.auto_cast(level=amp.level, dtype=amp.dtype):
            pass
    for remark in remarks:
        raise InputError(f"`amp_dtype` {amp.dtype}: {remark.message}")


def dropout_masks(
    config: ModelConfig, size: Sequence[int], seed: int, epoch: int, indices: np.ndarray
) -> np.ndarray | None:
    """Masks of what dropout keeps, bool in the shape of its input; None if nothing is dropped.

    An image's mask depends on (seed, epoch, index) and the size of its maps, not on the layout.

    Args:
        config: the network.
        size: height and width of the images.
        seed, epoch: of the run.
        indices: of the images.
    """
    shape = dropout_shape(config, *size)
    if shape is None:
        return None
    threshold = round(config.dropout * 2**16)
    masks = np.empty((len(indices), *shape), bool)
    for mask, index in zip(masks, indices):
        # The last number keeps these apart from the random numbers of the augmentation.
        bits = np.random.default_rng([seed, epoch, int(index), 1]).bytes(2 * mask.size)
        np.greater_equal(np.frombuffer(bits, "<u2").reshape(shape), threshold, out=mask)
    is_map = len(shape) == 3
    return masks.transpose(0, 2, 3, 1) if is_map and config.data_format == "NHWC" else masks


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
    dropped = dropout_shape(config, 227, 227)
    if dropped is not None:
        spec.append(paddle.static.InputSpec([None] * (1 + len(dropped)), "bool"))
    static = paddle.jit.to_static(network.forward, input_spec=spec, full_graph=True)
    # Without dropout the graph has no such input, and must not be given one, not even None.
    return lambda x, mask: static(x) if mask is None else static(x, mask)
