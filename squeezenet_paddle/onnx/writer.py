"""Writes a network as an ONNX file, straight from its list of layers.

paddle2onnx would convert a static graph, but needs Paddle 3 for that, has no package for Python
3.13, ends the process on a network of NHWC, and writes five times as many nodes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np

from .. import __version__
from ..data.preprocess import Preprocess
from ..familiarity import Familiarity
from ..network.config import Layer, ModelConfig, layers, output_shapes
from ..network.numpy_forward import batch_norm
from ..network.stages import logits_and_fire9
from ..network.weights import BATCH_NORM_EPSILON, key_of
from .familiarity import add_familiarity
from .quantise import Constants
from .schema import (
    DATA_TYPES,
    FLOAT_ATTRIBUTE,
    INT_ATTRIBUTE,
    INTS_ATTRIBUTE,
    GraphProto,
    ModelProto,
)

OPSET = 13  # the first in which weights are quantised by channel
_IR_VERSION = 7  # of ONNX 1.8, which brought that opset
_OPERATORS = {"relu": "Relu", "elu": "Elu"}


@dataclass(frozen=True)
class GraphInput:
    """What a graph takes.

    Attributes:
        height, width: of the images.
        batch: number of images; None for any.
        preprocess: becomes a part of the graph, which then takes uint8 [N, H, W, 3] "pixels" in
            the channel order of this; None: the graph takes "data", as `Preprocess` makes it.
    """

    height: int
    width: int
    batch: int | None = None
    preprocess: Preprocess | None = None


def onnx_model(
    config: ModelConfig,
    state: Mapping[str, np.ndarray],
    graph_input: GraphInput,
    concat: bool = True,
    quantised: Constants | None = None,
    outputs: Sequence[str] | None = None,
    metadata: Mapping[str, Any] | None = None,
    familiarity: Familiarity | None = None,
) -> bytes:
    """The file, from the input to "logits", float32 [N, num_classes].

    Args:
        config: which network.
        state: arrays by state-dict key.
        graph_input: what the graph takes.
        concat: write the concatenations of the fires; if not, their readers read both halves,
            as the sum of two convolutions or as two pools, which copies less and is faster.
        quantised: what `quantise.py` describes, to write 8-bit integers; None writes float32.
        outputs: names of the layers that are the graph's outputs, in NCHW, float32 [N, C, h, w]
            or [N, C]; nothing else is written than what they need. None for the logits.
        metadata: what the file says of itself, JSON values by key.
        familiarity: becomes the output "familiarity", float32 [N, 1], beside the logits.
    """
    if quantised is None:
        writer = _Writer(config, state, concat)
    else:
        writer = _QuantisingWriter(config, state, quantised)
    model = ModelProto(
        ir_version=_IR_VERSION, producer_name="squeezenet_paddle", producer_version=__version__
    )
    model.opset_import.add(domain="", version=OPSET)
    model.graph.CopyFrom(writer.graph_of(graph_input, outputs, familiarity))
    _add_metadata(model, metadata or {})
    return model.SerializeToString()


def with_metadata(data: bytes, metadata: Mapping[str, Any]) -> bytes:
    """An ONNX file with the same graph and other metadata, JSON values by key."""
    model = ModelProto.FromString(data)
    del model.metadata_props[:]
    _add_metadata(model, metadata)
    return model.SerializeToString()


def _add_metadata(model: Any, metadata: Mapping[str, Any]) -> None:
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=json.dumps(value))


class _Writer:
    """Adds layers to a graph one by one.

    A layer's output is a list of tensors: one, or the two halves of its channels.
    """

    def __init__(
        self, config: ModelConfig, state: Mapping[str, np.ndarray], concat: bool = True
    ) -> None:
        self._config = config
        self._state = state
        self._concat = concat
        self._graph = GraphProto(name=f"SqueezeNet v{config.version}")
        self._kinds: dict[str, Callable[[Layer, list[list[str]]], list[str]]] = {
            "Convolution": self._convolution,
            "Pooling": self._pooling,
            "Concat": self._concatenation,
            "Eltwise": self._sum,
            "BatchNorm": self._batch_norm,
            "InnerProduct": self._linear,
        }

    def graph_of(
        self,
        graph_input: GraphInput,
        outputs: Sequence[str] | None = None,
        familiarity: Familiarity | None = None,
    ) -> Any:
        tensors = {"data": self._input(graph_input)}
        for layer in _needed(self._config, outputs):
            inputs = [tensors[bottom] for bottom in layer.bottoms]
            tensors[layer.name] = self._kinds[layer.type](layer, inputs)
        if outputs is None:
            classes = self._config.num_classes
            _declare(self._graph.output, "logits", "float32", [graph_input.batch, classes])
            if familiarity is not None:
                means = self._fire9_means(tensors)
                add_familiarity(familiarity, "logits", means, self._node, self._constant)
                _declare(self._graph.output, "familiarity", "float32", [graph_input.batch, 1])
            return self._graph
        shapes = output_shapes(self._config, graph_input.height, graph_input.width)
        for name in outputs:
            x = self._whole(tensors[name], name)
            _declare(self._graph.output, x, "float32", [graph_input.batch, *shapes[name]])
        return self._graph

    def _fire9_means(self, tensors: Mapping[str, list[str]]) -> str:
        """The means of fire9's maps, [N, 512]."""
        name = logits_and_fire9(self._config)[1]
        x = self._whole(tensors[name], f"{name}/whole")
        if name == "fire9/pool":
            return x
        pooled = self._node("GlobalAveragePool", [x], "familiarity/pool")
        return self._node("Flatten", [pooled], "familiarity/means")

    def _input(self, graph_input: GraphInput) -> list[str]:
        n, size = graph_input.batch, (graph_input.height, graph_input.width)
        if graph_input.preprocess is not None:
            _declare(self._graph.input, "pixels", "uint8", [n, *size, 3])
            x = self._normalise("pixels", graph_input.preprocess)
        elif self._config.data_format == "NHWC":
            _declare(self._graph.input, "data", "float32", [n, *size, 3])
            x = "data"
        else:
            _declare(self._graph.input, "data", "float32", [n, 3, *size])
            return ["data"]
        return [self._node("Transpose", [x], "data/nchw", perm=[0, 3, 1, 2])]

    def _normalise(self, x: str, preprocess: Preprocess) -> str:
        """The arithmetic of `Preprocess.normalise`, in the same order."""
        x = self._node("Cast", [x], "pixels/float", to=DATA_TYPES["float32"])
        if preprocess.scale != 1.0:
            scale = self._constant("scale", np.array(preprocess.scale, "float32"))
            x = self._node("Mul", [x, scale], "pixels/scaled")
        mean = self._constant("mean", preprocess.mean_of_pixels)
        x = self._node("Sub", [x, mean], "pixels/centered")
        if preprocess.std != (1.0, 1.0, 1.0):
            std = self._constant("std", np.array(preprocess.std, "float32"))
            x = self._node("Div", [x, std], "pixels/normalised")
        return x

    def _convolution(self, layer: Layer, inputs: list[list[str]]) -> list[str]:
        [halves] = inputs
        key, last = key_of(layer), len(halves) - 1
        weights = np.split(self._state[f"{key}.weight"], len(halves), axis=1)
        terms = []
        for i, (x, weight) in enumerate(zip(halves, weights)):
            suffix = f"/{i}" if last else ""
            tensors = [x, self._constant(f"{key}.weight{suffix}", weight)]
            if i == last:
                tensors.append(self._constant(f"{key}.bias", self._state[f"{key}.bias"]))
            terms.append(self._conv_node(layer, tensors, f"{layer.name}/linear{suffix}"))
        y = self._node("Add", terms, f"{layer.name}/linear") if last else terms[0]
        return [self._activated(layer, y)]

    def _conv_node(self, layer: Layer, tensors: list[str], output: str) -> str:
        return self._node(
            "Conv",
            tensors,
            output,
            kernel_shape=[layer.kernel] * 2,
            strides=[layer.stride] * 2,
            pads=[layer.pad] * 4,
        )

    def _activated(self, layer: Layer, y: str) -> str:
        if not layer.activated:
            return y
        return self._node(_OPERATORS[self._config.activation], [y], layer.name)

    def _pooling(self, layer: Layer, inputs: list[list[str]]) -> list[str]:
        [halves] = inputs
        if layer.kernel:
            window = {"kernel_shape": [layer.kernel] * 2, "strides": [layer.stride] * 2}
            names = _names(layer, halves)
            return [
                self._node("MaxPool", [x], name, **window, ceil_mode=1)
                for x, name in zip(halves, names)
            ]
        means = []
        for x, name in zip(halves, _names(layer, halves)):
            pooled = self._node("GlobalAveragePool", [x], f"{name}/map")
            means.append(self._node("Flatten", [pooled], self._flat_name(layer, name)))
        return means

    def _flat_name(self, layer: Layer, name: str) -> str:
        is_last = layer.name == layers(self._config)[-1].name
        return "logits" if is_last else name

    def _concatenation(self, layer: Layer, inputs: list[list[str]]) -> list[str]:
        parts = [x for halves in inputs for x in halves]
        if self._concat or layer.flat:
            return [self._node("Concat", parts, layer.name, axis=1)]
        return parts

    def _sum(self, layer: Layer, inputs: list[list[str]]) -> list[str]:
        if len(inputs[0]) != len(inputs[1]):  # a convolution round a fire has one output
            inputs = [[self._whole(halves)] for halves in inputs]
        names = _names(layer, inputs[0])
        return [self._node("Add", list(pair), name) for *pair, name in zip(*inputs, names)]

    def _batch_norm(self, layer: Layer, inputs: list[list[str]]) -> list[str]:
        tensors = [self._whole(inputs[0])]
        tensors += self._constants(layer, "weight", "bias", "_mean", "_variance")
        return [self._node("BatchNormalization", tensors, layer.name, epsilon=BATCH_NORM_EPSILON)]

    def _linear(self, layer: Layer, inputs: list[list[str]]) -> list[str]:
        tensors = [*inputs[0], *self._constants(layer, "weight", "bias")]
        if not layer.activated:
            return [self._node("Gemm", tensors, "logits")]
        return [self._activated(layer, self._node("Gemm", tensors, f"{layer.name}/linear"))]

    def _whole(self, halves: list[str], name: str | None = None) -> str:
        """One tensor of all channels."""
        if len(halves) == 1:
            return halves[0]
        return self._node("Concat", halves, name or f"{halves[0]}/whole", axis=1)

    def _constants(self, layer: Layer, *names: str) -> list[str]:
        keys = [f"{key_of(layer)}.{name}" for name in names]
        return [self._constant(key, self._state[key]) for key in keys]

    def _constant(self, name: str, values: np.ndarray) -> str:
        self._graph.initializer.add(
            name=name,
            dims=values.shape,
            data_type=DATA_TYPES[values.dtype.name],
            raw_data=values.astype(values.dtype.newbyteorder("<")).tobytes(),
        )
        return name

    def _node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        node = self._graph.node.add(op_type=operator, name=output, input=inputs, output=[output])
        for name, value in attributes.items():
            attribute = node.attribute.add(name=name)
            if isinstance(value, list):
                attribute.type = INTS_ATTRIBUTE
                attribute.ints.extend(value)
            elif isinstance(value, float):
                attribute.type, attribute.f = FLOAT_ATTRIBUTE, value
            else:
                attribute.type, attribute.i = INT_ATTRIBUTE, value
        return output


class _QuantisingWriter(_Writer):
    """Adds layers that compute on 8-bit integers.

    Each map is followed by its quantisation to uint8 and back, and the weights of a convolution are
    int8 with one scale per channel; an engine folds these into its integer kernels.

    Linear layers have int8 weights too, with one scale per output, and compute in float32: they are
    a share of 1/500 of the network's work, and no engine's rounding of their inputs, whose ranges
    differ from channel to channel, can change the result. So the scale stands behind the product,
    where no engine takes it for a reason to compute on integers.
    """

    def __init__(
        self, config: ModelConfig, state: Mapping[str, np.ndarray], quantised: Constants
    ) -> None:
        super().__init__(config, state)
        self._quantised = quantised

    def _input(self, graph_input: GraphInput) -> list[str]:
        """The input's integers as they are: step and zero of a channel are in conv1."""
        [x] = super()._input(graph_input)
        constants = [
            self._constant(each, self._quantised[each]) for each in ("data/scale", "data/zero")
        ]
        integers = self._node("QuantizeLinear", [x, *constants], f"{x}/uint8", axis=1)
        one = self._constant("data/one", np.ones((), "float32"))
        none = self._constant("data/none", np.zeros((), "uint8"))
        return [self._node("DequantizeLinear", [integers, one, none], f"{x}/rounded")]

    def _convolution(self, layer: Layer, inputs: list[list[str]]) -> list[str]:
        [[x]] = inputs
        key = key_of(layer)
        scale = self._quantised[f"{key}.weight/scale"]
        bottom = layer.bottoms[0]
        input_scale = 1 if bottom == "data" else self._quantised[f"{bottom}/scale"]
        tensors = [
            x,
            self._restored(f"{key}.weight", "int8", scale),
            self._restored(f"{key}.bias", "int32", scale * input_scale),
        ]
        y = self._activated(layer, self._conv_node(layer, tensors, f"{layer.name}/linear"))
        return [self._rounded(y, layer.name)]

    def _pooling(self, layer: Layer, inputs: list[list[str]]) -> list[str]:
        [y] = super()._pooling(layer, inputs)
        return [self._rounded(y, layer.name)] if layer.kernel else [y]

    def _concatenation(self, layer: Layer, inputs: list[list[str]]) -> list[str]:
        [y] = super()._concatenation(layer, inputs)
        return [y] if layer.flat else [self._rounded(y, layer.name)]

    def _sum(self, layer: Layer, inputs: list[list[str]]) -> list[str]:
        [y] = super()._sum(layer, inputs)
        return [self._rounded(y, layer.name)]

    def _batch_norm(self, layer: Layer, inputs: list[list[str]]) -> list[str]:
        if not layer.flat:
            [y] = super()._batch_norm(layer, inputs)
            return [self._rounded(y, layer.name)]
        scale, shift = batch_norm(self._state, key_of(layer))
        y = self._scaled(inputs[0][0], f"{layer.name}/scale", scale, f"{layer.name}/scaled")
        return [self._shifted(y, f"{layer.name}/shift", shift, layer.name)]

    def _linear(self, layer: Layer, inputs: list[list[str]]) -> list[str]:
        [[x]] = inputs
        key = key_of(layer)
        scale, bias = self._quantised[f"{key}.weight/scale"], self._state[f"{key}.bias"]
        rounded = self._constant(f"{key}.weight/int8", self._quantised[f"{key}.weight/int8"])
        rounded = self._node("Cast", [rounded], f"{key}.weight", to=DATA_TYPES["float32"])
        y = self._node("MatMul", [x, rounded], f"{layer.name}/product")
        y = self._scaled(y, f"{key}.weight/scale", scale, f"{layer.name}/scaled")
        last = "logits" if not layer.activated else f"{layer.name}/linear"
        return [self._activated(layer, self._shifted(y, f"{key}.bias", bias, last))]

    def _scaled(self, x: str, name: str, scale: np.ndarray, output: str) -> str:
        return self._node("Mul", [x, self._constant(name, scale)], output)

    def _shifted(self, x: str, name: str, shift: np.ndarray, output: str) -> str:
        return self._node("Add", [x, self._constant(name, shift)], output)

    def _rounded(self, x: str, name: str) -> str:
        """The tensor rounded to 256 steps, one of which is 0; `name` is the layer's."""
        constants = [
            self._constant(each, self._quantised[each])
            for each in (f"{name}/scale", f"{name}/zero")
        ]
        rounded = self._node("QuantizeLinear", [x, *constants], f"{x}/uint8")
        return self._node("DequantizeLinear", [rounded, *constants], f"{x}/rounded")

    def _restored(self, name: str, kind: str, scale: np.ndarray) -> str:
        """A constant as integers, and its dequantisation with one scale per channel."""
        constants = [
            self._constant(f"{name}/{kind}", self._quantised[f"{name}/{kind}"]),
            self._constant(f"{name}/scale", scale),
            self._constant(f"{name}/zero", np.zeros(scale.shape, kind)),
        ]
        return self._node("DequantizeLinear", constants, name, axis=0)


def _needed(config: ModelConfig, outputs: Sequence[str] | None) -> list[Layer]:
    """The layers that the outputs depend on, in order; None for all."""
    if outputs is None:
        return layers(config)
    needed, names = [], set(outputs)
    for layer in reversed(layers(config)):
        if layer.name in names:
            needed.append(layer)
            names.update(layer.bottoms)
    return needed[::-1]


def _names(layer: Layer, halves: list[str]) -> list[str]:
    return [layer.name] if len(halves) == 1 else [f"{layer.name}/{i}" for i in range(len(halves))]


def _declare(values: Any, name: str, data_type: str, shape: Sequence[int | None]) -> None:
    """Adds an input or output of the graph; an extent of None is a batch of any size."""
    tensor = values.add(name=name).type.tensor_type
    tensor.elem_type = DATA_TYPES[data_type]
    for extent in shape:
        if extent is None:
            tensor.shape.dim.add(dim_param="batch")
        else:
            tensor.shape.dim.add(dim_value=extent)
