"""The network. Sublayers carry their Caffe names, so that a state-dict key is a Caffe blob's name.

`fire2.squeeze1x1.weight` is the first blob of the layer `fire2/squeeze1x1`. The layers up to fire9
stand here as in the authors' deploy.prototxt of v1.0 and v1.1; what follows is in `heads.py`.

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
from .blocks import BatchNorm, Concat, Dropout, Standardisation, conv2d, linear
from .config import FIRES, Layer, ModelConfig, bypass_of, layers, minimum_input_size
from .heads import HEADS
from .stages import STAGES, boundary_shapes, is_trained, state_stages
from .weights import check_state

ACTIVATIONS = {"relu": nn.ReLU, "elu": nn.ELU}

# Each class has a map of its own in conv10, behind a ReLU that can die, and where all of them have
# died no gradient flows and the loss stays at ln(classes). That is common with ten classes, and the
# chance of it falls exponentially with their number: the authors' 1000 train from a bias of 0.
FEW_CLASSES = 100
BIAS_OF_FEW_CLASSES = 3.0  # 13 deviations of conv10's values away from 0, at fire9 outputs of 1


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
        classifier_bias: initial bias of a new conv10. None is 3 for up to 100 maps behind a ReLU,
            which else often leaves a network of few classes without a gradient, and Caffe's 0
            for more.

    Raises:
        InputError: `init` is not one of these; or, in `forward`, the input is too small.
    """

    def __init__(
        self,
        config: ModelConfig | None = None,
        init: str = "caffe",
        classifier_bias: float | None = None,
    ) -> None:
        super().__init__()
        if init not in ("caffe", "xavier_normal"):
            raise InputError(f"`init` must be one of caffe, xavier_normal; found {init!r}.")
        self.config = config = config or ModelConfig()
        self._init, self._classifier_bias = init, classifier_bias
        self._head = HEADS[config.head]
        conv = partial(conv2d, init=init, data_format=config.data_format)
        pool = partial(nn.MaxPool2D, 3, 2, ceil_mode=True, data_format=config.data_format)
        fire = partial(self._fire, conv=conv)

        if config.version != "1.1":  # 1.0-nopad differs in conv10 alone
            self.conv1 = conv(3, 96, 7, stride=2)
            self.relu_conv1 = self._activation()
            self.pool1 = pool()
            self.fire2 = fire("fire2", 96, 16, 64)
            self.fire3 = fire("fire3", 128, 16, 64)
            self.fire4 = fire("fire4", 128, 32, 128)
            self.pool4 = pool()
            self.fire5 = fire("fire5", 256, 32, 128)
            self.fire6 = fire("fire6", 256, 48, 192)
            self.fire7 = fire("fire7", 384, 48, 192)
            self.fire8 = fire("fire8", 384, 64, 256)
            self.pool8 = pool()
            self.fire9 = fire("fire9", 512, 64, 256)
        else:
            self.conv1 = conv(3, 64, 3, stride=2)
            self.relu_conv1 = self._activation()
            self.pool1 = pool()
            self.fire2 = fire("fire2", 64, 16, 64)
            self.fire3 = fire("fire3", 128, 16, 64)
            self.pool3 = pool()
            self.fire4 = fire("fire4", 128, 32, 128)
            self.fire5 = fire("fire5", 256, 32, 128)
            self.pool5 = pool()
            self.fire6 = fire("fire6", 256, 48, 192)
            self.fire7 = fire("fire7", 384, 48, 192)
            self.fire8 = fire("fire8", 384, 64, 256)
            self.fire9 = fire("fire9", 512, 64, 256)

        self._stages: dict[str, list[str]] = {}  # the sublayers of each stage, in order
        for name, _ in self.named_children():
            if name in STAGES:
                stage = self._stages[name] = []
            stage.append(name)
        if self._head.pools_fires:
            self.pool_fires = nn.AdaptiveAvgPool2D(1, data_format=config.data_format)
            self.pools = Concat(1)
        if self._head.dropout is not None:
            self.add_sublayer(self._head.dropout, Dropout(config.dropout))
        for layer in layers(config):
            if layer.stage == "head":
                self.add_sublayer(layer.name, self._head_layer(layer))
                if layer.activated:
                    self.add_sublayer(f"relu_{layer.name}", self._activation())

    def _activation(self) -> nn.Layer:
        return ACTIVATIONS[self.config.activation]()

    def _fire(
        self, name: str, in_channels: int, squeeze: int, expand: int, conv: Callable[..., nn.Layer]
    ) -> Fire:
        axis = 1 if self.config.data_format == "NCHW" else 3
        bypass = bypass_of(name, self.config)
        return Fire(in_channels, squeeze, expand, bypass, conv, self._activation, axis)

    def _head_layer(self, layer: Layer) -> nn.Layer:
        is_classifier = layer.name in ("conv10", "fc")
        init = "classifier" if is_classifier and self._init == "caffe" else self._init
        if layer.name == self._head.standardised:
            return Standardisation(layer.channels)
        if layer.type == "BatchNorm":
            return BatchNorm(layer.channels, data_format=self.config.data_format)
        if layer.type == "InnerProduct":
            return linear(layer.in_channels, layer.channels, init)
        if layer.type == "Pooling":
            return nn.AdaptiveAvgPool2D(1, data_format=self.config.data_format)
        bias = self._classifier_bias
        if bias is None:
            can_die = self.config.activation == "relu" and layer.channels <= FEW_CLASSES
            bias = BIAS_OF_FEW_CLASSES if can_die else 0.0
        return conv2d(
            layer.in_channels,
            layer.channels,
            layer.kernel,
            padding=layer.pad,
            init=init,
            bias=bias,
            data_format=self.config.data_format,
        )

    def reset_classifier(self, num_classes: int) -> None:
        """Replaces the layer that gives the classes by a new one for `num_classes`."""
        self.config = dataclasses.replace(self.config, num_classes=num_classes)
        name = self._head.classifier
        [layer] = [each for each in layers(self.config) if each.name == name]
        self.add_sublayer(name, self._head_layer(layer))

    def freeze(self, trained_from: str) -> None:
        """Stops the gradients of all parameters in the stages before `trained_from`."""
        stages = state_stages(self.config)
        for name, parameter in self.named_parameters():
            if not is_trained(stages[name], trained_from):
                parameter.stop_gradient = True

    def front(self, x: paddle.Tensor, trained_from: str) -> list[paddle.Tensor]:
        """Runs the stages before `trained_from`.

        Returns:
            The outputs of the layers that `stages.boundary` names.
        """
        check_input(x, self.config)
        return self._through([x], STAGES[: STAGES.index(trained_from)])

    def tail(
        self,
        tensors: list[paddle.Tensor],
        trained_from: str,
        dropout_mask: paddle.Tensor | None = None,
    ) -> paddle.Tensor:
        """Logits [N, num_classes] from what `front` returned; `dropout_mask` as for `forward`."""
        return self.forward_head(self.features(tensors, trained_from), dropout_mask)

    def features(self, tensors: list[paddle.Tensor], trained_from: str) -> paddle.Tensor:
        """The output of `forward_features` from what `front` returned."""
        [x] = self._through(tensors, STAGES[STAGES.index(trained_from) : -1])
        return x

    def _through(
        self, tensors: list[paddle.Tensor], stages: tuple[str, ...]
    ) -> list[paddle.Tensor]:
        """Runs some stages: the outputs at the boundary after them from those before them."""
        x, means = tensors[0], tensors[1:]
        for stage in stages:
            for name in self._stages[stage]:
                x = getattr(self, name)(x)
                if name in FIRES and self._head.pools_fires:
                    means = [*means, paddle.flatten(self.pool_fires(x), 1)]
        return [self.pools(means)] if len(means) == len(FIRES) else [x, *means]

    def forward_features(self, x: paddle.Tensor) -> paddle.Tensor:
        """The output of fire9 with its bypass, [N, 512, h, w] or [N, h, w, 512].

        For the heads `multiscale` and `compact`, the means of the outputs of all fires, [N, 2560].
        """
        return self.front(x, "head")[0]

    def forward_head(
        self, x: paddle.Tensor, dropout_mask: paddle.Tensor | None = None
    ) -> paddle.Tensor:
        """Logits [N, num_classes] from the output of `forward_features`."""
        return self._head.logits(self, x, dropout_mask)

    def forward(self, x: paddle.Tensor, dropout_mask: paddle.Tensor | None = None) -> paddle.Tensor:
        """Logits [N, num_classes].

        Args:
            x: the input.
            dropout_mask: bool, which values the dropout keeps while training; in the shape of
                fire9's output, or of the hidden units, [N, 1024] for the head `multiscale`. None:
                Paddle's random numbers decide.
        """
        return self.forward_head(self.forward_features(x), dropout_mask)


def squeezenet1_0(num_classes: int = 1000, init: str = "caffe", **variant: Any) -> SqueezeNet:
    """SqueezeNet v1.0: 1,248,424 parameters at 1000 classes. `variant`: see `ModelConfig`."""
    return SqueezeNet(ModelConfig(version="1.0", num_classes=num_classes, **variant), init)


def squeezenet1_1(num_classes: int = 1000, init: str = "caffe", **variant: Any) -> SqueezeNet:
    """SqueezeNet v1.1: 1,235,496 parameters at 1000 classes, 2.4x less computation than v1.0."""
    return SqueezeNet(ModelConfig(version="1.1", num_classes=num_classes, **variant), init)


class Fire(nn.Layer):
    """squeeze1x1, then expand1x1 and expand3x3 side by side (section 3.2 of the paper).

    Args:
        in_channels: channels of the input.
        squeeze: filters of squeeze1x1.
        expand: filters of expand1x1, and of expand3x3.
        bypass: what is added to the output, without an activation after the sum: "identity", the
            input; "conv", a 1x1 convolution of it, `bypass1x1`; None, nothing.
        conv: makes a convolution from (in_channels, out_channels, kernel size).
        activation: makes the activation.
        channel_axis: 1 for NCHW, 3 for NHWC.
    """

    def __init__(
        self,
        in_channels: int,
        squeeze: int,
        expand: int,
        bypass: str | None,
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


def unpacked(
    config: ModelConfig, features: paddle.Tensor, trained_from: str, size: int
) -> list[paddle.Tensor]:
    """What `SqueezeNet.front` returned, from rows in which it is flattened and concatenated.

    Args:
        config: which network.
        features: float32 or float16 [N, F], in NCHW.
        trained_from: the first stage that is trained.
        size: height and width of the images.
    """
    shapes = boundary_shapes(config, trained_from, size)
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


@paddle.jit.not_to_static
def check_input(x: paddle.Tensor, config: ModelConfig) -> None:
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
