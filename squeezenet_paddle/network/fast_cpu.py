"""The network in NCHW as Paddle's CPU kernels run it fastest: other operations, the same numbers.

Those kernels are limited by memory traffic, and broadcasting additions, means and the backward pass
of a max pool are slow beyond that. So a bias is added by another kernel, once for both expands of a
fire; activations are in place; pools keep their indices; and images go through in micro-batches
whose maps stay in the cache, in one thread per core.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

from .blocks import standardised
from .config import FIRES
from .heads import HEADS
from .model import SqueezeNet, check_input
from .stages import STAGES

# In place, except on PaddlePaddle 2.6, where that takes ten times as long.
_relu = F.relu if paddle.__version__.startswith("2.") else F.relu_

MICRO_PIXELS = 8 * 227 * 227  # of a micro-batch for `forward`, measured
PLAIN_PIXELS = 227 * 227  # of a micro-batch for the network's own forward, measured

Parameters = Mapping[str, paddle.Tensor]


def forward(
    network: SqueezeNet,
    x: paddle.Tensor,
    dropout_mask: paddle.Tensor | None = None,
    parameters: Parameters | None = None,
) -> paddle.Tensor:
    """`network(x, dropout_mask)` to float tolerance, and so are the gradients.

    Args:
        network: of `data_format="NCHW"`, on the CPU. Hooks of its sublayers are not called.
        x: float32 [N, 3, H, W].
        dropout_mask: as for `SqueezeNet.forward`.
        parameters: by state-dict key, to be used instead of the network's own.
    """
    tensors = front(network, x, STAGES[0], parameters)
    return tail(network, tensors, STAGES[0], dropout_mask, parameters)


def front(
    network: SqueezeNet, x: paddle.Tensor, trained_from: str, parameters: Parameters | None = None
) -> list[paddle.Tensor]:
    """`network.front(x, trained_from)`; see `forward`."""
    check_input(x, network.config)
    stages = STAGES[: STAGES.index(trained_from)]
    return _Pass(network, parameters).through([x], stages)


def tail(
    network: SqueezeNet,
    tensors: list[paddle.Tensor],
    trained_from: str,
    dropout_mask: paddle.Tensor | None = None,
    parameters: Parameters | None = None,
) -> paddle.Tensor:
    """`network.tail(tensors, trained_from, dropout_mask)`; see `forward`."""
    x = features(network, tensors, trained_from, parameters)
    return head(network, x, dropout_mask, parameters)


def features(
    network: SqueezeNet,
    tensors: list[paddle.Tensor],
    trained_from: str,
    parameters: Parameters | None = None,
) -> paddle.Tensor:
    """`network.forward_features` from what `front` returned; see `forward`."""
    stages = STAGES[STAGES.index(trained_from) : -1]
    [x] = _Pass(network, parameters).through(tensors, stages)
    return x


def head(
    network: SqueezeNet,
    x: paddle.Tensor,
    dropout_mask: paddle.Tensor | None = None,
    parameters: Parameters | None = None,
) -> paddle.Tensor:
    """`network.forward_head(x, dropout_mask)`; see `forward`."""
    net = _Pass(network, parameters)
    return HEADS[network.config.head].logits(net, x, dropout_mask)


class _Pass:
    """The network's operations on its parameters, or on others in their place.

    The layers of the head are attributes, as `heads.py` calls them; the network's own where there
    is no faster way.
    """

    def __init__(self, network: SqueezeNet, parameters: Parameters | None) -> None:
        self._network = network
        self._head = HEADS[network.config.head]
        self._p = dict(network.named_parameters()) if parameters is None else parameters
        self._facts = network.config.facts
        self._activation = _relu if network.config.activation == "relu" else F.elu
        self.relu_conv10 = self.relu_fc10 = self._activation
        self.pool10 = _means

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)

    def conv10(self, x: paddle.Tensor) -> paddle.Tensor:
        return self._biased(self._conv(x, "conv10", padding=self._facts.conv10_pad), "conv10")

    def bn_pools(self, x: paddle.Tensor) -> paddle.Tensor:
        weight, bias = self._p["bn_pools.weight"], self._p["bn_pools.bias"]
        return standardised(x, self._network.bn_pools, weight, bias)

    def fc10(self, x: paddle.Tensor) -> paddle.Tensor:
        return self._linear(x, "fc10")

    def fc(self, x: paddle.Tensor) -> paddle.Tensor:
        return self._linear(x, "fc")

    def through(self, tensors: list[paddle.Tensor], stages: tuple[str, ...]) -> list[paddle.Tensor]:
        """Runs some stages: the outputs at the boundary after them from those before them."""
        x, means = tensors[0], tensors[1:]
        for stage in stages:
            if stage == "conv1":
                # Bias and activation keep the order of values, so they may follow a pool, on a
                # quarter of them.
                x = _max_pool(self._conv(x, "conv1", stride=2))
                x = self._activation(self._biased(x, "conv1"))
            elif self._head.pools_fires:
                x = self._fire(x, stage)
                means = [*means, _means(x)]
                x = _max_pool(x) if stage in self._facts.pools else x
            else:
                x = self._pooled_fire(x, stage)
        return [paddle.concat(means, 1)] if len(means) == len(FIRES) else [x, *means]

    def _pooled_fire(self, x: paddle.Tensor, name: str) -> paddle.Tensor:
        """A fire and its max pool, which without a bypass runs before bias and activation."""
        if name not in self._facts.pools:
            return self._fire(x, name)
        if getattr(self._network, name).bypass is not None:
            return _max_pool(self._fire(x, name))
        return self._activation(self._biased(_max_pool(self._expanded(x, name)), *_expands(name)))

    def _fire(self, x: paddle.Tensor, name: str) -> paddle.Tensor:
        bypass, bypass1x1 = getattr(self._network, name).bypass, f"{name}.bypass1x1"
        maps = self._activation(self._biased(self._expanded(x, name), *_expands(name)))
        if bypass is None:
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


def _expands(fire: str) -> tuple[str, str]:
    return f"{fire}.expand1x1", f"{fire}.expand3x3"


class _AddBias(PyLayer):
    """x [N, C, H, W] + bias [C]; the broadcasting addition takes ten times as long."""

    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, bias: paddle.Tensor) -> paddle.Tensor:
        ctx.needs_gradient = not x.stop_gradient, not bias.stop_gradient
        zeros, ones = paddle.zeros_like(bias), paddle.ones_like(bias)
        return F.batch_norm(x, zeros, ones, ones, bias, training=False, epsilon=0.0)

    @staticmethod
    def backward(ctx: Any, grad: paddle.Tensor) -> tuple[paddle.Tensor | None, ...]:
        of_x, of_bias = ctx.needs_gradient
        return grad if of_x else None, _sum_of_maps(grad).sum(0) if of_bias else None


def _means(x: paddle.Tensor) -> paddle.Tensor:
    """The mean of each map: [N, C, H, W] -> [N, C]."""
    return _sum_of_maps(x) / (x.shape[2] * x.shape[3])


def _sum_of_maps(x: paddle.Tensor) -> paddle.Tensor:
    """[N, C, H, W] -> [N, C], as a matrix product, which is faster than a reduction."""
    n, c, h, w = x.shape
    return paddle.matmul(x.reshape([n * c, h * w]), paddle.ones([h * w, 1])).reshape([n, c])


def _max_pool(x: paddle.Tensor) -> paddle.Tensor:
    """3x3, stride 2, rounding up; with indices, the backward pass takes a fifth of the time."""
    indices = _indices_round_up() or (x.shape[2] % 2 and x.shape[3] % 2)
    pooled = F.max_pool2d(x, 3, 2, ceil_mode=True, return_mask=bool(indices))
    return pooled[0] if indices else pooled


@functools.cache
def _indices_round_up() -> bool:
    """Whether ceil_mode works together with indices; PaddlePaddle 2.6 then rounds down."""
    pooled, _ = F.max_pool2d(paddle.zeros([1, 1, 4, 4]), 3, 2, ceil_mode=True, return_mask=True)
    return pooled.shape[2] == 2
