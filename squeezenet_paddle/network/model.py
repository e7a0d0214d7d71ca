"""The network. Sublayers carry their Caffe names, so that a state-dict key is a Caffe blob's name.

`fire2.squeeze1x1.weight` is the first blob of the layer `fire2/squeeze1x1`. Sizes and variants are
in `architecture.py`; the authors' deploy.prototxt of v1.0 and v1.1 are the source of both.

`paddle.vision.models.SqueezeNet` is another network: it pads conv1, and its pools round down.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Callable

import numpy as np
import paddle
from paddle import nn

from ..errors import InputError
from .blocks import BatchNorm, Concat, conv2d, linear
from .config import (
    CONV_BYPASS,
    FIRES,
    HIDDEN,
    IDENTITY_BYPASS,
    IMAGENET_CLASSES,
    POOLED,
    STAGES,
    VERSIONS,
    ModelConfig,
    boundary_shapes,
    is_trained,
    minimum_input_size,
)
from .weights import check_state, state_stages

ACTIVATIONS = {"relu": nn.ReLU, "elu": nn.ELU}


class Fire(nn.Layer):
    """squeeze1x1, then expand1x1 and expand3x3 side by side (section 3.2 of the paper).

    Args:
        in_channels: channels of the input.
        squeeze: filters of squeeze1x1.
        expand: filters of expand1x1, and of expand3x3.
        bypass: what is added to the output: "none", "identity" (the input), or "conv" (a 1x1
            convolution of the input, `bypass1x1`). No activation follows the sum.
        conv: makes a convolution from (in_channels, out_channels, kernel size).
        activation: class of the activation layer.
        channel_axis: 1 for NCHW, 3 for NHWC.
    """

    def __init__(
        self,
        in_channels: int,
        squeeze: int,
        expand: int,
        bypass: str,
        conv: Callable[..., nn.Layer],
        activation: Callable[[], nn.Layer],
        channel_axis: int,
    ) -> None:
        super().__init__()
        self.squeeze1x1 = conv(in_channels, squeeze, 1)
        self.expand1x1 = conv(squeeze, expand, 1)
        self.expand3x3 = conv(squeeze, expand, 3, padding=1)
        self.concat = Concat(channel_axis)
        self.activation = activation()
        self.bypass = bypass
        if bypass == "conv":
            self.bypass1x1 = conv(in_channels, 2 * expand, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        squeezed = self.activation(self.squeeze1x1(x))
        expanded = self.concat(
            [
                self.activation(self.expand1x1(squeezed)),
                self.activation(self.expand3x3(squeezed)),
            ]
        )
        if self.bypass == "conv":
            return expanded + self.bypass1x1(x)
        if self.bypass == "identity":
            return expanded + x
        return expanded


class SqueezeNet(nn.Layer):
    """SqueezeNet v1.0 or v1.1, exactly as in Caffe.

    Input: float32 [N, 3, H, W] (or [N, H, W, 3] with `data_format="NHWC"`), H and W at least 17
    for v1.1 and 21 for v1.0. Output: logits, float32 [N, num_classes]; with the heads `conv` and
    `conv_bn` they are means of activated maps, as in the original.

    Args:
        config: which variant.
        init: "caffe", the authors' initialisation: uniform in +-sqrt(3 / fan_in), the classifier
            normal with deviation 0.01, biases 0; "xavier_normal", normal with variance
            2 / (fan_in + fan_out).
        classifier_bias: initial bias of a new conv10. Its activation makes the logits positive,
            and where they all fall to 0 they get no gradient any more; from a bias of 3 a network
            of few classes learns several times faster than from Caffe's 0.

    Raises:
        InputError: `init` is not one of these; or, in `forward`, the input is too small.
    """

    def __init__(
        self,
        config: ModelConfig | None = None,
        init: str = "caffe",
        classifier_bias: float = 0.0,
    ) -> None:
        super().__init__()
        if init not in ("caffe", "xavier_normal"):
            raise InputError(f"init must be one of caffe, xavier_normal; found {init!r}.")
        self.config = config = config or ModelConfig()
        self._init, self._classifier_bias = init, classifier_bias
        version = VERSIONS[config.version]
        activation = ACTIVATIONS[config.activation]
        conv = partial(conv2d, init=init, data_format=config.data_format)
        pool = partial(nn.MaxPool2D, 3, 2, ceil_mode=True, data_format=config.data_format)

        self.conv1 = conv(3, version.conv1_channels, version.conv1_kernel, stride=2)
        self.relu_conv1 = activation()
        self.pool1 = pool()
        self._stages = {
            "conv1": ["conv1", "relu_conv1", "pool1"]
        }  # sublayers up to fire9, in order
        channels = version.conv1_channels
        for name, (squeeze, expand) in FIRES.items():
            fire = Fire(
                channels,
                squeeze,
                expand,
                _bypass_of(name, config.bypass),
                conv,
                activation,
                self._channel_axis,
            )
            self.add_sublayer(name, fire)
            self._stages[name] = [name]
            channels = 2 * expand
            if name in version.pools:
                self.add_sublayer(version.pools[name], pool())
                self._stages[name].append(version.pools[name])

        if config.head == "multiscale":
            self.pool_fires = nn.AdaptiveAvgPool2D(1, data_format=config.data_format)
            self.pools = Concat(1)
            self.bn_pools = BatchNorm(POOLED)
            self.fc10 = linear(POOLED, HIDDEN, init)
            self.relu_fc10 = activation()
            self.drop10 = nn.Dropout(config.dropout)
        else:
            if config.head == "conv_bn":
                self.bn9 = nn.BatchNorm2D(channels, data_format=config.data_format)
            else:
                self.drop9 = nn.Dropout(config.dropout)
            self.relu_conv10 = activation()
            self.pool10 = nn.AdaptiveAvgPool2D(1, data_format=config.data_format)
            if config.head == "conv_fc":
                self.conv10 = self._new_conv10(IMAGENET_CLASSES)
        self.reset_classifier(config.num_classes)

    @property
    def _channel_axis(self) -> int:
        return 1 if self.config.data_format == "NCHW" else 3

    def _new_conv10(self, maps: int) -> nn.Layer:
        channels = 2 * FIRES["fire9"][1]
        return conv2d(
            channels,
            maps,
            1,
            padding=VERSIONS[self.config.version].conv10_pad,
            init="classifier" if self._init == "caffe" else self._init,
            bias=self._classifier_bias,
            data_format=self.config.data_format,
        )

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the layer that gives the classes by a new one for `num_classes`."""
        self.config = dataclasses.replace(self.config, num_classes=num_classes)
        classifier = "classifier" if self._init == "caffe" else self._init
        if self.config.head == "multiscale":
            self.fc = linear(HIDDEN, num_classes, classifier)
        elif self.config.head == "conv_fc":
            self.fc = linear(IMAGENET_CLASSES, num_classes, classifier)
        else:
            self.conv10 = self._new_conv10(num_classes)

    def freeze(self, first: str) -> None:
        """Lets the parameters of the stages before `first` get no gradient any more."""
        stages = state_stages(self.config)
        for name, parameter in self.named_parameters():
            if not is_trained(stages[name], first):
                parameter.stop_gradient = True

    def front(self, x: paddle.Tensor, first: str) -> list[paddle.Tensor]:
        """The frozen part of the network, where the stage `first` is the first one trained.

        Returns:
            The outputs of the layers that `architecture.boundary` names.
        """
        _check_input(x, self.config)
        return self._through([x], STAGES[: STAGES.index(first)])

    def tail(
        self, tensors: list[paddle.Tensor], first: str, keep: paddle.Tensor | None = None
    ) -> paddle.Tensor:
        """Logits [N, num_classes] from what `front` gave; `keep` is that of `forward`."""
        [x] = self._through(tensors, STAGES[STAGES.index(first) : -1])
        return self.forward_head(x, keep)

    def _through(
        self, tensors: list[paddle.Tensor], stages: tuple[str, ...]
    ) -> list[paddle.Tensor]:
        """What lies at the boundary behind some stages, from what lies at the one before them."""
        x, means = tensors[0], tensors[1:]
        for stage in stages:
            for name in self._stages[stage]:
                x = getattr(self, name)(x)
                if name in FIRES and self.config.head == "multiscale":
                    means = [*means, paddle.flatten(self.pool_fires(x), 1)]
        return [self.pools(means)] if len(means) == len(FIRES) else [x, *means]

    def forward_features(self, x: paddle.Tensor) -> paddle.Tensor:
        """The output of fire9 with its bypass, [N, 512, h, w] or [N, h, w, 512].

        For the head `multiscale`, the means of the outputs of all fires, [N, 2560].
        """
        return self.front(x, "head")[0]

    def forward_head(self, x: paddle.Tensor, keep: paddle.Tensor | None = None) -> paddle.Tensor:
        """Logits [N, num_classes] from the output of `forward_features`."""
        if self.config.head == "multiscale":
            x = self.relu_fc10(self.fc10(self.bn_pools(x)))
            if keep is not None:
                return self.fc(x * (keep.astype(x.dtype) / (1 - self.config.dropout)))
            return self.fc(self.drop10(x))
        if self.config.head == "conv_bn":
            x = self.bn9(x)
        elif keep is not None:
            x = x * (keep.astype(x.dtype) / (1 - self.config.dropout))
        else:
            x = self.drop9(x)
        x = self.pool10(self.relu_conv10(self.conv10(x)))
        x = paddle.flatten(x, 1)
        return self.fc(x) if self.config.head == "conv_fc" else x

    def forward(self, x: paddle.Tensor, keep: paddle.Tensor | None = None) -> paddle.Tensor:
        """Logits [N, num_classes].

        Args:
            x: the input.
            keep: bool, which values the dropout keeps, for a caller who decides that; in the shape
                of fire9's output, or [N, 1024] for the head `multiscale`. None: while training,
                Paddle's generator does.
        """
        return self.forward_head(self.forward_features(x), keep)


def squeezenet1_0(num_classes: int = 1000, init: str = "caffe", **variant: Any) -> SqueezeNet:
    """SqueezeNet v1.0: 1,248,424 parameters at 1000 classes. `variant`: see `ModelConfig`."""
    return SqueezeNet(ModelConfig(version="1.0", num_classes=num_classes, **variant), init)


def squeezenet1_1(num_classes: int = 1000, init: str = "caffe", **variant: Any) -> SqueezeNet:
    """SqueezeNet v1.1: 1,235,496 parameters at 1000 classes, 2.4x less computation than v1.0."""
    return SqueezeNet(ModelConfig(version="1.1", num_classes=num_classes, **variant), init)


def unpacked(
    config: ModelConfig, features: paddle.Tensor, first: str, size: int
) -> list[paddle.Tensor]:
    """What `SqueezeNet.front` gives, from rows that have it flattened in NCHW, one after another.

    Args:
        config: which network.
        features: float32 or float16 [N, F].
        first: the first stage that is trained.
        size: height and width of the images.
    """
    shapes = boundary_shapes(config, first, size)
    features = features.astype("float32")
    parts = paddle.split(features, [math.prod(shape) for shape in shapes], axis=1)
    tensors = [part.reshape([-1, *shape]) for part, shape in zip(parts, shapes)]
    if config.data_format == "NHWC":
        tensors = [x.transpose([0, 2, 3, 1]) if x.ndim == 4 else x for x in tensors]
    return tensors


def load_state(network: nn.Layer, state: Mapping[str, np.ndarray], source: str) -> None:
    """Fills every parameter and buffer of `network` from `state`, exactly once, or changes nothing.

    Paddle's own `set_state_dict` only warns of a missing key or a wrong shape and leaves the layer
    random.

    Args:
        network: the layer to fill.
        state: arrays by state-dict key.
        source: what the arrays come from, for the error.

    Raises:
        InputError: keys are missing, unexpected or mis-shaped, or values are not finite; all of
            them are listed.
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    check_state(shapes, state, source)
    network.set_state_dict({key: np.asarray(value, "float32") for key, value in state.items()})


def _bypass_of(fire: str, bypass: str) -> str:
    if bypass != "none" and fire in IDENTITY_BYPASS:
        return "identity"
    return "conv" if bypass == "complex" and fire in CONV_BYPASS else "none"


@paddle.jit.not_to_static
def _check_input(x: paddle.Tensor, config: ModelConfig) -> None:
    """Refuses an input that the network would not define; unknown extents (-1) pass."""
    form = ["N", 3, "H", "W"] if config.data_format == "NCHW" else ["N", "H", "W", 3]
    shape = list(x.shape)
    channels_at = form.index(3)
    if len(shape) != 4 or shape[channels_at] not in (3, -1):
        raise InputError(f"an input of shape {form} was expected; found {shape}.")
    minimum = minimum_input_size(config.version)
    for axis in (form.index("H"), form.index("W")):
        if 0 <= shape[axis] < minimum:
            raise InputError(
                f"SqueezeNet v{config.version} needs an input of at least {minimum}x{minimum} "
                f"pixels; found shape {shape}."
            )
