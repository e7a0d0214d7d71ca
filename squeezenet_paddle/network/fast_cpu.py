"""The network in NCHW as Paddle's CPU kernels run it fastest: other operations, the same numbers.

Those kernels are limited by memory traffic, and broadcasting additions, means and the backward pass
of a max pool are slow beyond that. So a bias is added by another kernel, once for both expands of a
fire; activations are in place; pools keep their indices; and images go through in micro-batches
whose maps stay in the cache, in one thread a core.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

from .config import FIRES, STAGES, VERSIONS
from .model import SqueezeNet, _check_input

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
    return tail(network, front(network, x, STAGES[0], parameters), STAGES[0], keep, parameters)


def front(
    network: SqueezeNet,
    x: paddle.Tensor,
    first: str,
    parameters: Mapping[str, paddle.Tensor] | None = None,
) -> list[paddle.Tensor]:
    """`network.front(x, first)`; see `forward`."""
    _check_input(x, network.config)
    return _Pass(network, parameters).through([x], STAGES[: STAGES.index(first)])


def tail(
    network: SqueezeNet,
    tensors: list[paddle.Tensor],
    first: str,
    keep: paddle.Tensor | None = None,
    parameters: Mapping[str, paddle.Tensor] | None = None,
) -> paddle.Tensor:
    """`network.tail(tensors, first, keep)`; see `forward`."""
    return head(network, features(network, tensors, first, parameters), keep, parameters)


def features(
    network: SqueezeNet,
    tensors: list[paddle.Tensor],
    first: str,
    parameters: Mapping[str, paddle.Tensor] | None = None,
) -> paddle.Tensor:
    """What the head reads, from what `front` gave; see `forward`."""
    stages = STAGES[STAGES.index(first) : -1]
    [x] = _Pass(network, parameters).through(tensors, stages)
    return x


def head(
    network: SqueezeNet,
    x: paddle.Tensor,
    keep: paddle.Tensor | None = None,
    parameters: Mapping[str, paddle.Tensor] | None = None,
) -> paddle.Tensor:
    """`network.forward_head(x, keep)`; see `forward`."""
    return _Pass(network, parameters).head(x, keep)


class _Pass:
    """The network's operations on its parameters, or on others in their place."""

    def __init__(self, network: SqueezeNet, parameters: Mapping[str, paddle.Tensor] | None) -> None:
        self._network = network
        self._config = network.config
        self._p = dict(network.named_parameters()) if parameters is None else parameters
        self._version = VERSIONS[network.config.version]
        self._activation = _relu if network.config.activation == "relu" else F.elu

    def through(self, tensors: list[paddle.Tensor], stages: tuple[str, ...]) -> list[paddle.Tensor]:
        """What lies at the boundary behind some stages, from what lies at the one before them."""
        x, means = tensors[0], tensors[1:]
        for stage in stages:
            if stage == "conv1":
                # Bias and activation keep the order of values, so they may follow a pool, on a
                # quarter of them.
                x = _max_pool(self._conv(x, "conv1", stride=2))
                x = self._activation(self._biased(x, "conv1"))
            elif self._config.head == "multiscale":
                x = self._fire(x, stage)
                means = [*means, _means(x)]
                x = _max_pool(x) if stage in self._version.pools else x
            else:
                x = self._pooled_fire(x, stage)
        return [paddle.concat(means, 1)] if len(means) == len(FIRES) else [x, *means]

    def head(self, x: paddle.Tensor, keep: paddle.Tensor | None) -> paddle.Tensor:
        """Logits from the features that the head reads."""
        config, network = self._config, self._network
        if config.head == "multiscale":
            x = self._activation(self._linear(network.bn_pools(x), "fc10"))
            return self._linear(self._dropped(x, keep, network.drop10), "fc")
        if config.head == "conv_bn":
            x = network.bn9(x)
        else:
            x = self._dropped(x, keep, network.drop9)
        x = self._conv(x, "conv10", padding=self._version.conv10_pad)
        x = _means(self._activation(self._biased(x, "conv10")))
        return self._linear(x, "fc") if config.head == "conv_fc" else x

    def _pooled_fire(self, x: paddle.Tensor, name: str) -> paddle.Tensor:
        """A fire and the max pool behind it, if there is one, which comes first where it may."""
        if name not in self._version.pools:
            return self._fire(x, name)
        if getattr(self._network, name).bypass != "none":
            return _max_pool(self._fire(x, name))
        return self._activation(self._biased(_max_pool(self._expanded(x, name)), *_expands(name)))

    def _fire(self, x: paddle.Tensor, name: str) -> paddle.Tensor:
        bypass, bypass1x1 = getattr(self._network, name).bypass, f"{name}.bypass1x1"
        maps = self._activation(self._biased(self._expanded(x, name), *_expands(name)))
        if bypass == "none":
            return maps
        shortcut = x if bypass == "identity" else self._biased(self._conv(x, bypass1x1), bypass1x1)
        return maps + shortcut

    def _expanded(self, x: paddle.Tensor, name: str) -> paddle.Tensor:
        """Both expands of a fire, without bias."""
        squeeze = f"{name}.squeeze1x1"
        squeezed = self._activation(self._biased(self._conv(x, squeeze), squeeze))
        maps = [self._conv(squeezed, e, padding=i) for i, e in enumerate(_expands(name))]
        return paddle.concat(maps, 1)

    def _conv(
        self, x: paddle.Tensor, name: str, stride: int = 1, padding: int = 0
    ) -> paddle.Tensor:
        return F.conv2d(x, self._p[f"{name}.weight"], stride=stride, padding=padding)

    def _biased(self, maps: paddle.Tensor, *names: str) -> paddle.Tensor:
        return _AddBias.apply(maps, paddle.concat([self._p[f"{name}.bias"] for name in names]))

    def _linear(self, x: paddle.Tensor, name: str) -> paddle.Tensor:
        return F.linear(x, self._p[f"{name}.weight"], self._p[f"{name}.bias"])

    def _dropped(
        self, x: paddle.Tensor, keep: paddle.Tensor | None, layer: paddle.nn.Layer
    ) -> paddle.Tensor:
        if keep is None:
            return layer(x)
        return x * (keep.astype(x.dtype) / (1 - self._config.dropout))


def _expands(fire: str) -> tuple[str, str]:
    return f"{fire}.expand1x1", f"{fire}.expand3x3"


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


def _means(x: paddle.Tensor) -> paddle.Tensor:
    """[N, C, H, W] -> [N, C]."""
    return _sum_of_maps(x) / (x.shape[2] * x.shape[3])


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
