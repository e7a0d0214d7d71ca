"""SqueezeNet as data: every layer of every variant, under its Caffe name. Knows nothing of Paddle.

The facts follow the authors' deploy.prototxt files of v1.0 and v1.1, and for the bypass variants
section 6 and figure 2 of the paper (Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x
fewer parameters and <0.5MB model size", arXiv:1602.07360).
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any

from ..errors import InputError

# fire: (filters of squeeze1x1, filters of expand1x1 and of expand3x3); the same in both versions
FIRES = {
    "fire2": (16, 64),
    "fire3": (16, 64),
    "fire4": (32, 128),
    "fire5": (32, 128),
    "fire6": (48, 192),
    "fire7": (48, 192),
    "fire8": (64, 256),
    "fire9": (64, 256),
}
STAGES = ("conv1", *FIRES, "head")  # parts of the network from its input to the logits
IDENTITY_BYPASS = ("fire3", "fire5", "fire7", "fire9")  # input and output have as many channels
CONV_BYPASS = ("fire2", "fire4", "fire6", "fire8")  # a 1x1 convolution makes them equal


@dataclass(frozen=True)
class Version:
    """What differs between the published versions."""

    conv1_channels: int
    conv1_kernel: int
    pools: dict[str, str]  # the layer that a max pool follows -> the name of that pool
    conv10_pad: int


VERSIONS = {
    "1.0": Version(96, 7, {"conv1": "pool1", "fire4": "pool4", "fire8": "pool8"}, conv10_pad=1),
    "1.1": Version(64, 3, {"conv1": "pool1", "fire3": "pool3", "fire5": "pool5"}, conv10_pad=0),
    # torchvision's squeezenet1_0, and Caffe files of v1.0 whose conv10 was written without its pad.
    "1.0-nopad": Version(
        96, 7, {"conv1": "pool1", "fire4": "pool4", "fire8": "pool8"}, conv10_pad=0
    ),
}
IMAGENET_CLASSES = 1000  # the maps of the original conv10, which the head `conv_fc` keeps
POOLED = sum(2 * expand for _, expand in FIRES.values())  # 2,560 numbers, of all fires' channels
HIDDEN = 1024  # units of the head `multiscale`

CHOICES = {
    "version": tuple(VERSIONS),
    "bypass": ("none", "simple", "complex"),
    "activation": ("relu", "elu"),
    "head": ("conv", "conv_bn", "conv_fc", "multiscale"),
    "data_format": ("NCHW", "NHWC"),
}


@dataclass(frozen=True)
class ModelConfig:
    """Which SqueezeNet it is.

    Attributes:
        version: "1.0", "1.1", or "1.0-nopad", which is 1.0 without the pad of conv10.
        num_classes: length of the logits.
        bypass: "none"; "simple", sums round fires 3, 5, 7 and 9; "complex", also a 1x1
            convolution round fires 2, 4, 6 and 8.
        activation: "relu" or "elu", after every convolution but those of the complex bypass.
        dropout: share set to zero while training: of fire9's output for the heads `conv` and
            `conv_fc`, of the hidden units for `multiscale`.
        head: "conv", dropout and conv10 with `num_classes` maps; "conv_bn", batch normalisation
            in place of the dropout; "conv_fc", the original conv10 with 1000 maps and a linear
            layer `fc` after the pool; "multiscale", no conv10: the means of all fires' outputs,
            batch normalisation, a linear layer of 1,024 units, dropout, and a linear layer `fc`.
        data_format: layout of the input and of all maps, "NCHW" or "NHWC"; the weights are the
            same for both.
    """

    version: str = "1.1"
    num_classes: int = 1000
    bypass: str = "none"
    activation: str = "relu"
    dropout: float = 0.5
    head: str = "conv"
    data_format: str = "NCHW"

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"{name} must be one of {', '.join(allowed)}; found {getattr(self, name)!r}."
                )
        if type(self.num_classes) is not int or self.num_classes < 1:
            raise InputError(
                f"num_classes must be a whole number of at least 1; found {self.num_classes!r}."
            )
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, (int, float)):
            raise InputError(f"dropout must be a number; found {self.dropout!r}.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout must be at least 0 and below 1; found {self.dropout!r}.")


@dataclass(frozen=True)
class Layer:
    """One layer of the network.

    Attributes:
        name: Caffe's name of it, e.g. "fire2/squeeze1x1".
        type: Caffe's type: Convolution, Pooling, Concat, Eltwise, BatchNorm or InnerProduct.
        bottoms: names of the layers whose (activated) output it reads.
        in_channels, channels: of its input (the sum over the bottoms of a Concat) and its output.
        kernel, stride, pad: of a square window; `kernel` 0 is a window over the whole map.
        activated: an activation follows.
        flat: the output has channels alone, no height and width.
        stage: which of `STAGES` it is a part of.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    in_channels: int
    channels: int
    kernel: int = 1
    stride: int = 1
    pad: int = 0
    activated: bool = False
    flat: bool = False
    stage: str = "head"

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the first blob, in Caffe's order; () where there is none."""
        if self.type == "Convolution":
            return (self.channels, self.in_channels, self.kernel, self.kernel)
        return (self.channels, self.in_channels) if self.type == "InnerProduct" else ()

    @property
    def parameters(self) -> int:
        """Number of trained values."""
        if self.type == "BatchNorm":
            return 2 * self.channels
        return math.prod(self.weight_shape) + self.channels if self.weight_shape else 0

    def output_size(self, size: int) -> int:
        """Height (or width) of the output for an input of `size`; below 1 if that is too small.

        Convolutions round down, pools round up, as Caffe does.
        """
        if self.flat:
            return 1
        if self.type not in ("Convolution", "Pooling"):
            return size
        span = size + 2 * self.pad - self.kernel
        return (-(-span // self.stride) if self.type == "Pooling" else span // self.stride) + 1


def layers(config: ModelConfig) -> list[Layer]:
    """The layers of the network in the order of computation, from conv1 to the logits."""
    version = VERSIONS[config.version]
    result: list[Layer] = []
    stage = "conv1"

    def add(name: str, kind: str, bottoms: list[Layer], channels: int, **options: Any) -> Layer:
        inputs = sum(b.channels for b in bottoms) if bottoms else 3
        if kind == "Eltwise":
            inputs = channels
        names = tuple(b.name for b in bottoms) or ("data",)
        flat = kind == "InnerProduct" or options.get("kernel") == 0 or any(b.flat for b in bottoms)
        options = {"stage": stage, "flat": flat, **options}
        result.append(Layer(name, kind, names, inputs, channels, **options))
        return result[-1]

    def pool_after(x: Layer, name: str) -> Layer:
        if name not in version.pools:
            return x
        return add(version.pools[name], "Pooling", [x], x.channels, kernel=3, stride=2)

    x = add(
        "conv1",
        "Convolution",
        [],
        version.conv1_channels,
        kernel=version.conv1_kernel,
        stride=2,
        activated=True,
    )
    x = pool_after(x, "conv1")
    outputs: dict[str, Layer] = {}
    for fire, (squeeze, expand) in FIRES.items():
        stage, shortcut = fire, x
        s = add(f"{fire}/squeeze1x1", "Convolution", [x], squeeze, activated=True)
        e1 = add(f"{fire}/expand1x1", "Convolution", [s], expand, activated=True)
        e3 = add(f"{fire}/expand3x3", "Convolution", [s], expand, kernel=3, pad=1, activated=True)
        x = add(f"{fire}/concat", "Concat", [e1, e3], 2 * expand)
        if config.bypass == "complex" and fire in CONV_BYPASS:
            shortcut = add(f"{fire}/bypass1x1", "Convolution", [shortcut], x.channels)
            x = add(f"{fire}/sum", "Eltwise", [x, shortcut], x.channels)
        elif config.bypass != "none" and fire in IDENTITY_BYPASS:
            x = add(f"{fire}/sum", "Eltwise", [x, shortcut], x.channels)
        outputs[fire] = x
        x = pool_after(x, fire)
    if config.head == "multiscale":
        pools = [
            add(f"{fire}/pool", "Pooling", [x], x.channels, kernel=0, stage=fire)
            for fire, x in outputs.items()
        ]
        x = add("pools", "Concat", pools, POOLED, stage="fire9")
        stage = "head"
        x = add("bn_pools", "BatchNorm", [x], POOLED)
        x = add("fc10", "InnerProduct", [x], HIDDEN, activated=True)
        add("fc", "InnerProduct", [x], config.num_classes)
        return result
    stage = "head"
    if config.head == "conv_bn":
        x = add("bn9", "BatchNorm", [x], x.channels)
    maps = IMAGENET_CLASSES if config.head == "conv_fc" else config.num_classes
    x = add("conv10", "Convolution", [x], maps, pad=version.conv10_pad, activated=True)
    x = add("pool10", "Pooling", [x], maps, kernel=0)
    if config.head == "conv_fc":
        add("fc", "InnerProduct", [x], config.num_classes)
    return result


def classifier_name(config: ModelConfig) -> str:
    """The layer whose outputs are the classes."""
    return "fc" if config.head in ("conv_fc", "multiscale") else "conv10"


def dropped_name(config: ModelConfig) -> str | None:
    """A layer with an output of the shape that dropout works on; None where there is none."""
    if config.head == "conv_bn":
        return None
    return "fc10" if config.head == "multiscale" else "fire9/concat"


def normalises_batches(config: ModelConfig) -> bool:
    """Whether the logits of an image depend, while training, on the others of its batch."""
    return config.head in ("conv_bn", "multiscale")


def first_trained(text: str) -> str:
    """The first stage that is trained, of "head", "fire9", "fire8+" and so on, or "all".

    All that follows it is trained too, with the plus or without.

    Raises:
        InputError: there is no such stage.
    """
    stage = "conv1" if text == "all" else text[:-1] if text.endswith("+") else text
    if stage not in STAGES:
        raise InputError(
            f"--trainable {text}: head, fire9, fire8+, ..., fire2+ or all was expected."
        )
    return stage


def is_trained(stage: str, first: str) -> bool:
    """Whether a stage is trained where `first` is the first one that is."""
    return STAGES.index(stage) >= STAGES.index(first)


def boundary(config: ModelConfig, first: str) -> list[str]:
    """The frozen layers whose outputs the stage `first` and those after it read, in order.

    For the head `multiscale` these are the last frozen map and the means of the frozen fires, or
    all means at once; else that map alone. Where nothing is frozen it is "data".
    """
    chain = layers(config)
    read = {name for each in chain if is_trained(each.stage, first) for name in each.bottoms}
    frozen = [each.name for each in chain if not is_trained(each.stage, first)]
    return [name for name in ("data", *frozen) if name in read]


def boundary_shapes(config: ModelConfig, first: str, size: int) -> list[tuple[int, ...]]:
    """The shape of each output at the boundary, in NCHW, for an image of size x size pixels."""
    shapes = output_shapes(config, size, size)
    return [shapes[name] for name in boundary(config, first)]


def output_shapes(config: ModelConfig, height: int, width: int) -> dict[str, tuple[int, ...]]:
    """The shape of each layer's output in NCHW, without the batch, and of the input as "data"."""
    chain = layers(config)
    heights, widths = output_sizes(chain, height), output_sizes(chain, width)
    shapes: dict[str, tuple[int, ...]] = {"data": (3, height, width)}
    for each in chain:
        map_size = () if each.flat else (heights[each.name], widths[each.name])
        shapes[each.name] = (each.channels, *map_size)
    return shapes


@dataclass(frozen=True)
class Row:
    """A layer at a given input size: its output height and width, and its multiply-adds."""

    layer: Layer
    height: int
    width: int
    multiply_adds: int


def layer_table(config: ModelConfig, height: int, width: int) -> list[Row]:
    """Every layer with its output size for an image of `height` x `width` pixels.

    Raises:
        InputError: the image is smaller than the pools allow.
    """
    minimum = minimum_input_size(config.version)
    if height < minimum or width < minimum:
        raise InputError(
            f"SqueezeNet v{config.version} needs an input of at least {minimum}x{minimum} pixels; "
            f"found {height}x{width}."
        )
    chain = layers(config)
    heights, widths = output_sizes(chain, height), output_sizes(chain, width)
    rows = []
    for layer in chain:
        h, w = heights[layer.name], widths[layer.name]
        rows.append(Row(layer, h, w, math.prod(layer.weight_shape or (0,)) * h * w))
    return rows


def output_sizes(chain: list[Layer], size: int) -> dict[str, int]:
    """Height (or width) of every layer's output by name, for an input of `size` pixels."""
    sizes = {"data": size}
    for layer in chain:
        sizes[layer.name] = layer.output_size(sizes[layer.bottoms[0]])
    return sizes


@functools.cache
def minimum_input_size(version: str) -> int:
    """The smallest height and width at which every map has at least one pixel.

    17 for v1.1 and 21 for v1.0: every pool then sees at least 2 pixels, its third lying outside.
    """
    chain = layers(ModelConfig(version=version))
    return next(n for n in itertools.count(1) if min(output_sizes(chain, n).values()) >= 1)
