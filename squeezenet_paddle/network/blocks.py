"""Layers that Paddle lacks, and Caffe's initialisation."""

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


class Dropout(nn.Dropout):
    """Dropout whose caller may decide which values are kept."""

    def forward(self, x: paddle.Tensor, mask: paddle.Tensor | None = None) -> paddle.Tensor:
        if mask is None:
            return F.dropout(x, self.p, training=self.training, mode=self.mode)
        return x * (mask.astype(x.dtype) / (1 - self.p))


class BatchNorm(nn.BatchNorm2D):
    """Batch normalisation of maps. (Paddle's layer also warns on each pass.)"""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return F.batch_norm(
            x,
            self._mean,
            self._variance,
            self.weight,
            self.bias,
            training=self.training,
            momentum=self._momentum,
            epsilon=self._epsilon,
            data_format=self._data_format,
        )


class Standardisation(BatchNorm):
    """(x - mean) / deviation * weight + bias with the mean and deviation of the training data.

    They are buffers, set before training, so that no image depends on the others of its batch. The
    layer is saved, exported and read as a batch normalisation.
    """

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return standardised(x, self, self.weight, self.bias)


def standardised(
    x: paddle.Tensor, layer: Standardisation, weight: paddle.Tensor, bias: paddle.Tensor
) -> paddle.Tensor:
    """The output of a `Standardisation` of [N, C] with another weight and bias."""
    mean, variance, epsilon = layer._mean, layer._variance, layer._epsilon
    return F.batch_norm(x, mean, variance, weight, bias, epsilon=epsilon, data_format="NC")


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
    """A convolution whose weights start as `weight_init` says, and all its biases at `bias`."""
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
    """A linear layer whose weights start as `weight_init` says, and its biases at 0."""
    weight = weight_init(init, in_channels)
    return nn.Linear(
        in_channels,
        out_channels,
        weight_attr=paddle.ParamAttr(initializer=weight),
        bias_attr=paddle.ParamAttr(initializer=Constant(0.0)),
    )


def weight_init(name: str, fan_in: int) -> Initializer:
    """Caffe's for a layer ("caffe") or for the last one ("classifier"), or "xavier_normal"."""
    return {
        # Caffe's "xavier" filler looks at the fan-in alone: U(+-sqrt(3 / fan_in)).
        "caffe": XavierUniform(fan_in=fan_in, fan_out=fan_in),
        "classifier": Normal(0.0, 0.01),
        "xavier_normal": XavierNormal(),
    }[name]
