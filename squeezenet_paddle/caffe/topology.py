"""Compares the graph of a Caffe file with ours: connections, kernels, strides, pads, activations.

A wrong stride, or a pool after the wrong fire, gives wrong predictions without any error, since the
weights fit all the same. Both networks are written as text, one line per convolution, which says
what it reads back to the nearest convolutions; pools, sums and concatenations have no weights and
may have any name. Then the lines are compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError, describe_problems
from ..network.config import ModelConfig, layers, output_sizes
from .reader import CaffeLayer

_LONGEST = 500  # our texts are far shorter; a chain of sums of itself would double at each step
_PASSING = ("Split", "Flatten", "Reshape")  # layers that change no value
_ENDING = ("Accuracy", "Silence")  # and all losses: layers whose output is no network's
_ACTIVATIONS = {"relu": "ReLU", "elu": "ELU"}


def check_topology(
    caffe_layers: Sequence[CaffeLayer],
    config: ModelConfig,
    source: str,
    ignore_classifier: bool = False,
    input_sizes: Collection[int] = (227, 224),
) -> int | None:
    """Compares a file's graph with the network `config`.

    A caffemodel may hold only names and connections; then only these are compared.

    Args:
        caffe_layers: of a prototxt, or of a caffemodel that holds its graph, under our names.
        config: our network.
        source: what to call the file in errors.
        ignore_classifier: conv10 and what follows may be any, or missing.
        input_sizes: those that the file may be for. An average pool over as many pixels as conv10
            gives for one of them is the global one.

    Returns:
        The input size that such a pool is for; None where the pool is a global one.

    Raises:
        InputError: the graphs differ; it lists every layer that does.
    """
    geometry = any(
        layer.type == "Convolution" and layer.message.HasField("convolution_param")
        for layer in caffe_layers
    )
    covering: dict[int, int] = {}
    for size in input_sizes:
        covering.setdefault(output_sizes(layers(config), size)["conv10"], size)
    expected, found = Graph(geometry), Graph(geometry, covering)
    output = describe_ours(config, expected)
    describe_caffe(caffe_layers, found)
    if ignore_classifier:
        ours = {layer.name for layer in layers(config) if layer.stage != "head"}
        for graph in (expected, found):
            graph.lines = {name: line for name, line in graph.lines.items() if name in ours}
    problems = list(found.problems)
    for name in {**expected.lines, **found.lines}:
        ours_line, theirs = expected.lines.get(name), found.lines.get(name)
        if theirs is None:
            problems.append(f"layer {name!r} is missing")
        elif ours_line is None:
            problems.append(f"layer {name!r} is unexpected")
        elif ours_line != theirs:
            problems.append(f"layer {name!r}: expected {ours_line}, found {theirs}")
    if not (problems or ignore_classifier or output in found.values):
        problems.append(f"the output {output} is missing, found {found.last_value()}")
    if not ignore_classifier:
        problems += _after_output(found, output)
    if problems:
        raise InputError(
            f"{source}: not SqueezeNet v{config.version} with bypass {config.bypass}: "
            f"{describe_problems(problems)}."
        )
    return None if ignore_classifier else found.input_size


def _after_output(graph: Graph, output: str) -> list[str]:
    """What is wrong with the layers that follow the output: one changes the logits."""
    problems, pending = [], [(output, False)]
    while pending:
        text, is_softmax = pending.pop()
        for layer, result in graph.readers.get(text, ()):
            if layer.type in _PASSING or (layer.type == "Softmax" and not is_softmax):
                pending += [(result, is_softmax or layer.type == "Softmax")] * (result != text)
            elif not (layer.type in _ENDING or layer.type.endswith("Loss") or result == text):
                problems.append(
                    f"layer {layer.name!r} ({layer.type}) follows the output, where softmax, loss "
                    "and accuracy alone were expected"
                )
    return problems


@dataclass
class Graph:
    """A network as text.

    Attributes:
        geometry: whether kernels, strides and pads are known, and written.
        covering: kernels of an average pool that covers the map -> the size of the input then.
        input_size: that of the pool which was taken for a global one for it.
        reads: convolution -> what it reads.
        texts: layer of ours -> what it computes.
        layers: what is computed -> the first layer of a file that does.
        readers: what is computed -> the layers of a file that read it, and what they compute.
        lines: convolution -> what it is and what it reads.
        values: everything that is computed.
        problems: what no network may have.
    """

    geometry: bool
    covering: dict[int, int] = field(default_factory=dict)
    input_size: int | None = None
    reads: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    layers: dict[str, str] = field(default_factory=dict)
    readers: dict[str, list[tuple[CaffeLayer, str]]] = field(default_factory=dict)
    lines: dict[str, str] = field(default_factory=dict)
    values: dict[str, None] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def convolution(self, name: str, geometry: str, x: str) -> str:
        if name in self.lines:
            self.problems.append(f"two convolutions are called {name!r}")
        self.reads[name] = x
        self.lines[name] = f"{geometry} on {x}" if self.geometry else x
        return name

    def last_value(self) -> str:
        """What is computed last of all that is told apart by its text."""
        told = [text for text in self.values if not re.match(r"\w+ '", text)]
        return told[-1] if told else "nothing"

    def pool(self, geometry: str, x: str) -> str:
        return f"{geometry}({x})" if self.geometry else f"pool({x})"


def _window(kernel: Any, stride: Any, pad: Any) -> str:
    return f"{kernel}x{kernel} stride {stride} pad {pad}"


def _concat(inputs: list[str]) -> str:
    return f"concat({', '.join(inputs)})"


def _sum(inputs: list[str]) -> str:
    return f"sum({', '.join(sorted(inputs))})"


def input_texts(config: ModelConfig, geometry: bool) -> dict[str, str]:
    """What each of our convolutions reads."""
    graph = Graph(geometry)
    describe_ours(config, graph)
    return graph.reads


def describe_ours(config: ModelConfig, graph: Graph) -> str:
    """Writes our network into `graph`; returns the text of pool10's output."""
    value = {"data": "data"}  # the text of each layer's output
    for layer in layers(config):
        inputs = [value[name] for name in layer.bottoms]
        window = _window(layer.kernel, layer.stride, layer.pad)
        if layer.type == "Convolution":
            text = graph.convolution(layer.name, f"{layer.channels}@{window}", inputs[0])
            if layer.activated:
                text = f"{_ACTIVATIONS[config.activation]}({text})"
        elif layer.type == "Pooling":
            text = graph.pool("global AVE" if layer.kernel == 0 else f"MAX {window}", inputs[0])
        elif layer.type == "Concat":
            text = _concat(inputs)
        else:
            text = _sum(inputs)
        value[layer.name] = graph.texts[layer.name] = text
    return value["pool10"]


def describe_caffe(
    caffe_layers: Sequence[CaffeLayer],
    graph: Graph,
    rename: Callable[[CaffeLayer, str], str] = lambda layer, x: layer.name,
) -> None:
    """Writes the network of a Caffe file into `graph`.

    Args:
        caffe_layers: of the file.
        graph: to write into.
        rename: (a convolution, what it reads) -> the name to write it under.
    """
    value: dict[str, str] = {}  # the text of what each blob holds at this point of the file
    for layer in caffe_layers:
        # A blob that nothing has written is an input of the net, whatever its name.
        inputs = [value.get(name, "data") for name in layer.bottoms]
        text = _apply(layer, inputs, graph, rename)
        if len(text) > _LONGEST:
            text = f"{layer.type} {layer.name!r}"
        graph.values[text] = None
        graph.layers.setdefault(text, layer.name)
        for each in dict.fromkeys(inputs):
            graph.readers.setdefault(each, []).append((layer, text))
        for top in layer.tops:
            value[top] = text


def _apply(
    layer: CaffeLayer,
    inputs: list[str],
    graph: Graph,
    rename: Callable[[CaffeLayer, str], str],
) -> str:
    """The text of what a layer of a file gives."""
    if not inputs:
        return "data"
    message, x = layer.message, inputs[0]
    if layer.type == "Convolution":
        geometry = _conv_geometry(message.convolution_param)
        return graph.convolution(rename(layer, x), geometry, x)
    if layer.type == "Pooling":
        param = message.pooling_param
        side = _extent(param, "kernel", 0)
        covers = param.pool == param.AVE and not param.global_pooling
        if covers and _extent(param, "pad", 0) == 0 and side in graph.covering:
            graph.input_size = graph.covering[side]
            return graph.pool("global AVE", x)
        return graph.pool(_pool_geometry(param), x)
    if layer.type == "Split" or "Dropout" in layer.type:
        return x
    if layer.type == "Python" and x == "data":  # augmentation: it only trains
        return x
    if layer.type == "ReLU":
        slope = message.relu_param.negative_slope
        return f"ReLU({x})" if slope == 0 else f"leaky ReLU {slope:g}({x})"
    if layer.type == "ELU":
        alpha = message.elu_param.alpha
        return f"ELU({x})" if alpha == 1 else f"ELU {alpha:g}({x})"
    if layer.type == "Concat":
        param = message.concat_param
        axis = param.concat_dim if param.HasField("concat_dim") else param.axis
        return _concat(inputs) if axis in (1, -3) else f"axis {axis} {_concat(inputs)}"
    if layer.type == "Eltwise":
        param = message.eltwise_param
        if param.operation == param.SUM and all(c == 1 for c in param.coeff):
            return _sum(inputs)
    return f"{layer.type} {layer.name!r}({', '.join(inputs)})"


def _conv_geometry(param: Any) -> str:
    window = _window(
        _extent(param, "kernel", 0), _extent(param, "stride", 1), _extent(param, "pad", 0)
    )
    text = f"{param.num_output}@{window}"
    dilations = set(param.dilation) - {1}
    text += f" dilation {min(dilations)}" if dilations else ""
    text += f" group {param.group}" if param.group != 1 else ""
    return text if param.bias_term else f"{text} without bias"


def _pool_geometry(param: Any) -> str:
    method = param.DESCRIPTOR.fields_by_name["pool"].enum_type.values_by_number[param.pool].name
    if param.round_mode == param.FLOOR:
        method += " rounding down"
    if param.global_pooling:
        return f"global {method}"
    window = _window(
        _extent(param, "kernel", 0), _extent(param, "stride", 1), _extent(param, "pad", 0)
    )
    return f"{method} {window}"


def _extent(param: Any, name: str, default: int) -> Any:
    """A window's kernel, stride or pad: one number where it is square, else e.g. "3x5"."""
    if param.HasField(f"{name}_h") or param.HasField(f"{name}_w"):
        values = [getattr(param, f"{name}_h"), getattr(param, f"{name}_w")]
    else:
        value = getattr(param, "kernel_size" if name == "kernel" else name)
        values = [value] if isinstance(value, int) else list(value) or [default]
    return values[0] if len(set(values)) == 1 else "x".join(map(str, values))
