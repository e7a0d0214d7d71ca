"""SqueezeNet as data: every layer of every variant, under its Caffe name. No Paddle here.

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
from .heads import HEADS

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
FIRE9_CHANNELS = 2 * FIRES["fire9"][1]
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
LARGEST_NUM_CLASSES = 100_000  # whose classifier has 0.2 GB of weights
CHOICES = {
    "version": tuple(VERSIONS),
    "bypass": ("none", "simple", "complex"),
    "activation": ("relu", "elu"),
    "head": tuple(HEADS),
    "data_format": ("NCHW", "NHWC"),
}


@dataclass(frozen=True)
class ModelConfig:
    """Which SqueezeNet a network is.

    Attributes:
        version: "1.0", "1.1", or "1.0-nopad", which is 1.0 without the pad of conv10.
        num_classes: length of the logits.
        bypass: "none"; "simple", sums round fires 3, 5, 7 and 9; "complex", also a 1x1
            convolution round fires 2, 4, 6 and 8.
        activation: "relu" or "elu", after every convolution but those of the complex bypass.
        dropout: share set to zero while training: of fire9's output for the heads `conv` and
            `conv_fc`, of the hidden units for `multiscale`
            and `compact`.
        head: what follows the fires, a key of `heads.HEADS`.
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
        if type(self.num_classes) is not int or not 1 <= self.num_classes <= LARGEST_NUM_CLASSES:
            raise InputError(
                f"num_classes must be a whole number of 1 to {LARGEST_NUM_CLASSES:,}; found "
                f"{self.num_classes!r}."
            )
        if isinstance(self.dropout, bool) or not isinstance(self.dropout, (int, float)):
            raise InputError(f"dropout must be a number; found {self.dropout!r}.")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout must be at least 0 and below 1; found {self.dropout!r}.")

    @property
    def facts(self) -> Version:
        """What its version fixes."""
        return VERSIONS[self.version]


@dataclass(frozen=True)
class Layer:
    """One layer of the network.

    Attributes:
        stage: conv1, a fire, or head: the part of the network that it belongs to.
        name: Caffe's name of it, e.g. "fire2/squeeze1x1".
        type: Caffe's type: Convolution, Pooling, Concat, Eltwise, BatchNorm or InnerProduct.
        bottoms: names of the layers whose (activated) output it reads.
        in_channels, channels: of its input (the sum over the bottoms of a Concat) and its output.
        kernel, stride, pad: of a square window; `kernel` 0 is a window over the whole map.
        activated: an activation follows.
        flat: the output has channels alone, no height and width.
    """

    stage: str
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
    facts = config.facts
    chain: list[Layer] = []

    def add(
        stage: str,
        name: str,
        kind: str,
        bottoms: list[Layer],
        channels: int | None = None,
        **window: Any,
    ) -> Layer:
        inputs = sum(b.channels for b in bottoms[: 1 if kind == "Eltwise" else None]) or 3
        channels = inputs if channels is None else channels
        names = tuple(b.name for b in bottoms) or ("data",)
        flat = kind == "InnerProduct" or window.get("kernel") == 0 or any(b.flat for b in bottoms)
        chain.append(Layer(stage, name, kind, names, inputs, channels, flat=flat, **window))
        return chain[-1]

    def convolution(name: str, bottoms: list[Layer], channels: int, **window: Any) -> Layer:
        stage = name.partition("/")[0]
        return add(stage, name, "Convolution", bottoms, channels, activated=True, **window)

    def pooled(stage: str, x: Layer) -> Layer:
        if stage not in facts.pools:
            return x
        return add(stage, facts.pools[stage], "Pooling", [x], kernel=3, stride=2)

    x = convolution("conv1", [], facts.conv1_channels, kernel=facts.conv1_kernel, stride=2)
    x = pooled("conv1", x)
    outputs: dict[str, Layer] = {}
    for fire, (squeeze, expand) in FIRES.items():
        shortcut = x
        s = convolution(f"{fire}/squeeze1x1", [x], squeeze)
        e1 = convolution(f"{fire}/expand1x1", [s], expand)
        e3 = convolution(f"{fire}/expand3x3", [s], expand, kernel=3, pad=1)
        x = add(fire, f"{fire}/concat", "Concat", [e1, e3])
        bypass = bypass_of(fire, config)
        if bypass == "conv":
            shortcut = add(fire, f"{fire}/bypass1x1", "Convolution", [shortcut], x.channels)
        if bypass is not None:
            x = add(fire, f"{fire}/sum", "Eltwise", [x, shortcut])
        outputs[fire] = x
        x = pooled(fire, x)
    HEADS[config.head].add_layers(add, config, outputs)
    return chain


def bypass_of(fire: str, config: ModelConfig) -> str | None:
    """What is added to a fire's output: its input ("identity"), a convolution of it ("conv")."""
    if config.bypass != "none" and fire in IDENTITY_BYPASS:
        return "identity"
    return "conv" if config.bypass == "complex" and fire in CONV_BYPASS else None


def output_shapes(config: ModelConfig, height: int, width: int) -> dict[str, tuple[int, ...]]:
    """The shape of each layer's output in NCHW, without the batch, and of the input as "data"."""
    chain = layers(config)
    heights, widths = output_sizes(chain, height), output_sizes(chain, width)
    shapes: dict[str, tuple[int, ...]] = {"data": (3, height, width)}
    for each in chain:
        map_size = () if each.flat else (heights[each.name], widths[each.name])
        shapes[each.name] = (each.channels, *map_size)
    return shapes


def dropout_shape(config: ModelConfig, height: int, width: int) -> tuple[int, ...] | None:
    """The shape of what the dropout works on, in NCHW, without the batch; None without dropout."""
    head = HEADS[config.head]
    if head.dropout is None or config.dropout == 0:
        return None
    [reader] = [layer for layer in layers(config) if layer.name == head.dropout_before]
    return output_shapes(config, height, width)[reader.bottoms[0]]


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
