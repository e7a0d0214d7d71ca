"""The network in NCHW as Paddle's CPU kernels run it fastest: other operations, the same numbers.

Those kernels are limited by memory traffic, and broadcasting additions, means and the backward pass
of a max pool are slow beyond that. So a bias is added by another kernel, once for both expands of a
fire; activations are in place; pools keep their indices; and pictures go through in micro-batches
whose maps stay in the cache, in one thread a core.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, TypeVar

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

from .architecture import FIRES, VERSIONS
from .model import SqueezeNet, _check_input

Part = TypeVar("Part")
Result = TypeVar("Result")

# In place, but for PaddlePaddle 2.6, which takes ten times as long for that.
_relu = F.relu if paddle.__version__.startswith("2.") else F.relu_

MICRO_PIXELS = 8 * 227 * 227  # of a micro-batch for `forward`, measured
PLAIN_PIXELS = 227 * 227  # of one for the network's own forward, likewise


def forward(
    network: SqueezeNet,
    x: paddle.Tensor,
    keep: paddle.Tensor | None = None,
    parameters: Mapping[str, paddle.Tensor] | None = None,
) -> paddle.Tensor:
    """`network(x, keep)` to float tolerance, and so are the gradients.

    Args:
        network: of `data_format="NCHW"`, on the CPU. Hooks of its sublayers are not called.
        x: float32 [N, 3, H, W].
        keep: as for `SqueezeNet.forward`.
        parameters: by state-dict key, to be used instead of the network's own.
    """
    config = network.config
    _check_input(x, config)
    version = VERSIONS[config.version]
    p = dict(network.named_parameters()) if parameters is None else parameters
    activation = _relu if config.activation == "relu" else F.elu

    def conv(x: paddle.Tensor, name: str, stride: int = 1, padding: int = 0) -> paddle.Tensor:
        return F.conv2d(x, p[f"{name}.weight"], stride=stride, padding=padding)

    def biased(maps: paddle.Tensor, *names: str) -> paddle.Tensor:
        return _AddBias.apply(maps, paddle.concat([p[f"{name}.bias"] for name in names]))

    def pooled(x: paddle.Tensor, name: str) -> paddle.Tensor:
        return _max_pool(x) if name in version.pools else x

    def fire(x: paddle.Tensor, name: str) -> paddle.Tensor:
        squeeze, bypass1x1 = f"{name}.squeeze1x1", f"{name}.bypass1x1"
        expands = f"{name}.expand1x1", f"{name}.expand3x3"
        squeezed = activation(biased(conv(x, squeeze), squeeze))
        maps = paddle.concat([conv(squeezed, e, padding=i) for i, e in enumerate(expands)], 1)
        bypass = getattr(network, name).bypass
        if bypass == "none":
            return activation(biased(pooled(maps, name), *expands))
        shortcut = x if bypass == "identity" else biased(conv(x, bypass1x1), bypass1x1)
        return pooled(activation(biased(maps, *expands)) + shortcut, name)

    # Bias and activation keep the order of values, so they may follow a pool, on a quarter of them.
    x = activation(biased(_max_pool(conv(x, "conv1", stride=2)), "conv1"))
    for name in FIRES:
        x = fire(x, name)
    if config.head == "conv_bn":
        x = network.bn9(x)
    elif keep is not None:
        x = x * (keep.astype(x.dtype) / (1 - config.dropout))
    else:
        x = network.drop9(x)
    x = conv(x, "conv10", padding=version.conv10_pad)
    x = _sum_of_maps(activation(biased(x, "conv10"))) / (x.shape[2] * x.shape[3])
    return F.linear(x, p["fc.weight"], p["fc.bias"]) if config.head == "conv_fc" else x


class _AddBias(PyLayer):
    """x [N, C, H, W] + bias [C]; the broadcasting addition takes ten times as long."""

    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, bias: paddle.Tensor) -> paddle.Tensor:
        ctx.wanted = not x.stop_gradient, not bias.stop_gradient
        zeros, ones = paddle.zeros_like(bias), paddle.ones_like(bias)
        return F.batch_norm(x, zeros, ones, ones, bias, training=False, epsilon=0.0)

    @staticmethod
    def backward(ctx: Any, grad: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        of_x, of_bias = ctx.wanted
        return grad if of_x else None, _sum_of_maps(grad).sum(0) if of_bias else None


def _sum_of_maps(x: paddle.Tensor) -> paddle.Tensor:
    """[N, C, H, W] -> [N, C]; a matrix product is faster than a reduction."""
    n, c, h, w = x.shape
    return paddle.matmul(x.reshape([n * c, h * w]), paddle.ones([h * w, 1])).reshape([n, c])


def _max_pool(x: paddle.Tensor) -> paddle.Tensor:
    """3x3, stride 2, rounded up. The backward pass takes a fifth where indices are kept."""
    indices = _indices_round_up() or (x.shape[2] % 2 and x.shape[3] % 2)
    pooled = F.max_pool2d(x, 3, 2, ceil_mode=True, return_mask=bool(indices))
    return pooled[0] if indices else pooled


@functools.cache
def _indices_round_up() -> bool:
    """Whether ceil_mode is heeded where indices are asked for; PaddlePaddle 2.6 rounds down."""
    pooled, _ = F.max_pool2d(paddle.zeros([1, 1, 4, 4]), 3, 2, ceil_mode=True, return_mask=True)
    return pooled.shape[2] == 2


class Cores:
    """Runs the parts of a task side by side, each in a thread.

    Args:
        threads: how many; None takes all cores that the process may use.
    """

    def __init__(self, threads: int | None = None) -> None:
        cpus = _cpus()
        self.threads = threads or len(cpus)
        # Left to themselves, threads share a core at times while another is idle. Where there is a
        # thread for each core of the process, each is bound to one.
        self._cpus = cpus if self.threads == len(cpus) else []
        self._pool = ThreadPoolExecutor(self.threads)

    def run(self, work: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
        """`work` of each of at most `threads` parts."""
        parts = list(parts)
        if len(parts) == 1:
            return [work(parts[0])]

        def pinned(i: int, part: Part) -> Result:
            if self._cpus:
                os.sched_setaffinity(0, {self._cpus[i]})  # each time, as OpenMP resets it
            return work(part)

        return list(self._pool.map(pinned, range(len(parts)), parts))


def _cpus() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def split(part: slice, count: int) -> list[slice]:
    """Cuts a part into at most `count` of nearly the same length, none of them empty.

    Of an odd batch the first half is the longer one, as for two processes.
    """
    length = part.stop - part.start
    cuts = [part.start - (-length * i // count) for i in range(count + 1)]
    return [slice(a, b) for a, b in zip(cuts, cuts[1:]) if a < b]


def micro_batches(part: slice, inputs: np.ndarray, pixels: int | None) -> list[slice]:
    """Cuts a part of a batch into micro-batches of about so many pixels; None leaves it whole."""
    if pixels is None or part.start == part.stop:
        return split(part, 1)
    size = max(round(pixels / (inputs[0].size // 3)), 1)
    return split(part, -(-(part.stop - part.start) // size))
