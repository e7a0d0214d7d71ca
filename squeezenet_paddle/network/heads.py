"""The heads of the network: what makes logits of the outputs of the fires. No Paddle here.

A head adds its layers to the list of the network's, and spells its forward pass with the names of
these layers, so that whoever has them as callables (`SqueezeNet`, `fast_cpu`) runs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from .config import Layer, ModelConfig

IMAGENET_CLASSES = 1000  # maps of the authors' conv10

AddLayer = Callable[..., "Layer"]  # see `config.layers`


class Head:
    """What all heads have.

    Attributes:
        classifier: the layer whose outputs are the classes.
        dropout: name of the dropout; None where there is none.
        dropout_before: the layer that reads what the dropout lets through.
        normalises_batches: whether the logits of an image depend, while training, on the other
            images of its batch.
        standardised: the normalisation whose mean and variance are those of the training data from
            the start and stay as they are; None where there is none.
        pools_fires: whether it reads the means of all fires, [N, 2560], instead of fire9's maps.
        has_conv10: whether it has conv10, whose maps show where in the image a class is seen.
    """

    classifier = "conv10"
    dropout: str | None = "drop9"
    dropout_before = "conv10"
    normalises_batches = False
    standardised: str | None = None
    pools_fires = False
    has_conv10 = True

    def add_layers(self, add: AddLayer, config: ModelConfig, fires: Mapping[str, Layer]) -> None:
        """Adds the layers after the fires, whose outputs are `fires`, with `add` of `layers`."""
        raise NotImplementedError

    def logits(self, net: Any, x: Any, dropout_mask: Any) -> Any:
        """Logits [N, num_classes] from the features, with the layers that are attributes of `net`.

        Args:
            net: the layers by name.
            x: fire9's output, or the means of all fires.
            dropout_mask: bool, which values the dropout keeps; None leaves that to the dropout.
        """
        raise NotImplementedError


def _add_conv10(add: AddLayer, config: ModelConfig, x: Layer, maps: int) -> Layer:
    pad = config.facts.conv10_pad
    x = add("head", "conv10", "Convolution", [x], maps, pad=pad, activated=True)
    return add("head", "pool10", "Pooling", [x], maps, kernel=0)


class ConvHead(Head):
    """The authors': dropout, conv10 with a map for each class, ReLU, and the mean of each map."""

    def add_layers(self, add: AddLayer, config: ModelConfig, fires: Mapping[str, Layer]) -> None:
        _add_conv10(add, config, fires["fire9"], config.num_classes)

    def logits(self, net: Any, x: Any, dropout_mask: Any) -> Any:
        x = net.drop9(x, dropout_mask)
        return net.pool10(net.relu_conv10(net.conv10(x))).flatten(1)


class ConvBnHead(Head):
    """The authors' head with a batch normalisation in place of the dropout."""

    dropout = None
    normalises_batches = True

    def add_layers(self, add: AddLayer, config: ModelConfig, fires: Mapping[str, Layer]) -> None:
        x = add("head", "bn9", "BatchNorm", [fires["fire9"]])
        _add_conv10(add, config, x, config.num_classes)

    def logits(self, net: Any, x: Any, dropout_mask: Any) -> Any:
        return net.pool10(net.relu_conv10(net.conv10(net.bn9(x)))).flatten(1)


class ConvFcHead(Head):
    """The authors' head with its 1000 maps, and a linear layer from their means to the classes."""

    classifier = "fc"

    def add_layers(self, add: AddLayer, config: ModelConfig, fires: Mapping[str, Layer]) -> None:
        x = _add_conv10(add, config, fires["fire9"], IMAGENET_CLASSES)
        add("head", "fc", "InnerProduct", [x], config.num_classes)

    def logits(self, net: Any, x: Any, dropout_mask: Any) -> Any:
        x = net.drop9(x, dropout_mask)
        return net.fc(net.pool10(net.relu_conv10(net.conv10(x))).flatten(1))


class MultiscaleHead(Head):
    """Means of all fires' outputs, standardised, a hidden layer, dropout, a linear layer.

    Args:
        units: of the hidden layer.
    """

    classifier = "fc"
    dropout = "drop10"
    dropout_before = "fc"
    standardised = "bn_pools"
    pools_fires = True
    has_conv10 = False

    def __init__(self, units: int) -> None:
        self.units = units

    def add_layers(self, add: AddLayer, config: ModelConfig, fires: Mapping[str, Layer]) -> None:
        means = [
            add(fire, f"{fire}/pool", "Pooling", [x], x.channels, kernel=0)
            for fire, x in fires.items()
        ]
        x = add("fire9", "pools", "Concat", means)
        x = add("head", "bn_pools", "BatchNorm", [x])
        x = add("head", "fc10", "InnerProduct", [x], self.units, activated=True)
        add("head", "fc", "InnerProduct", [x], config.num_classes)

    def logits(self, net: Any, x: Any, dropout_mask: Any) -> Any:
        x = net.relu_fc10(net.fc10(net.bn_pools(x)))
        return net.fc(net.drop10(x, dropout_mask))


HEADS: dict[str, Head] = {
    "conv": ConvHead(),
    "conv_bn": ConvBnHead(),
    "conv_fc": ConvFcHead(),
    "multiscale": MultiscaleHead(1024),
    "compact": MultiscaleHead(128),  # with ten classes, 1.06 million parameters in all
}
