"""The layers that a network is made of where Paddle's own do not do, with their initialisations."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.nn.initializer import Constant, Initializer, Normal, XavierNormal, XavierUniform


class Concat(nn.Layer):
    """Concatenation of maps along their channels; a layer, so that it can be hooked by name."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, maps: list[paddle.Tensor]) -> paddle.Tensor:
        return paddle.concat(maps, axis=self.axis)


class BatchNorm(nn.BatchNorm1D):
    """Of [N, C]; while training, a single image goes by the running statistics.

    It has none of its own, and Paddle would leave it as it is.
    """

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return F.batch_norm(
            x,
            self._mean,
            self._variance,
            self.weight,
            self.bias,
            training=self.training and _are_several(x),
            momentum=self._momentum,
            epsilon=self._epsilon,
        )


def conv2d(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int = 0,
    init: str,
    bias: float = 0.0,
    data_format: str,
) -> nn.Layer:
    """A convolution with `init` as `weight_init` takes it; its bias is `bias` everywhere."""
    weight = weight_init(init, in_channels * kernel * kernel)
    return nn.Conv2D(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=padding,
        weight_attr=paddle.ParamAttr(initializer=weight),
        bias_attr=paddle.ParamAttr(initializer=Constant(bias)),
        data_format=data_format,
    )


def linear(in_channels: int, out_channels: int, init: str) -> nn.Layer:
    """A linear layer with `init` as `weight_init` takes it, and a bias of 0."""
    weight = weight_init(init, in_channels)
    return nn.Linear(
        in_channels,
        out_channels,
        weight_attr=paddle.ParamAttr(initializer=weight),
        bias_attr=paddle.ParamAttr(initializer=Constant(0.0)),
    )


def weight_init(name: str, fan_in: int) -> Initializer:
    """Caffe's for a layer ("caffe") or the last one ("classifier"), or "xavier_normal"."""
    return {
        # Caffe's "xavier" filler looks at the fan-in alone: U(+-sqrt(3 / fan_in)).
        "caffe": XavierUniform(fan_in=fan_in, fan_out=fan_in),
        "classifier": Normal(0.0, 0.01),
        "xavier_normal": XavierNormal(),
    }[name]


@paddle.jit.not_to_static
def _are_several(x: paddle.Tensor) -> bool:
    """Whether a batch has more than one image, or any number (-1)."""
    return x.shape[0] != 1
