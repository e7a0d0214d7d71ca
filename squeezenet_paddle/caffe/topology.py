"""Compares the graph of a Caffe file with ours: connections, kernels, strides, pads, activations.

A wrong stride, or a pool after the wrong fire, gives wrong predictions without any error, since the
weights fit all the same. Both networks are written as text, one line per convolution, which says
what it reads back to the nearest convolutions; pools, sums and concatenations have no weights and
may have any name. Then the lines are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError, describe_problems
from ..network.config import ModelConfig, layers
from ..network.heads import HEADS
from .reader import CaffeLayer

_LONGEST = 500  # our texts are far shorter; a chain of sums of itself would double at each step
_ACTIVATIONS = {"relu": "ReLU", "elu": "ELU"}


def check_topology(
    caffe_layers: Sequence[CaffeLayer],
    config: ModelConfig,
    source: str,
    ignore_classifier: bool = False,
) -> None:
    """Compares a file's graph with the network `config`.

    A caffemodel may hold only names and connections; then only these are compared.

    Args:
        caffe_layers: of a prototxt, or of a caffemodel that holds its graph.
        config: our network.
        source: what to call the file in errors.
        ignore_classifier: conv10 and what follows may be anything, or missing.

    Raises:
        InputError: the graphs differ; it lists every layer that does.
    """
    geometry = any(
        layer.type == "Convolution" and layer.message.HasField("convolution_param")
        for layer in caffe_layers
    )
    expected, found = _Graph(geometry), _Graph(geometry)
    output = _describe_ours(config, expected)
    _describe_caffe(caffe_layers, found)
    if ignore_classifier:
        for graph in (expected, found):
            graph.lines.pop(HEADS[config.head].classifier, None)
    problems = list(found.problems)
    for name in {**expected.lines, **found.lines}:
        ours, theirs = expected.lines.get(name), found.lines.get(name)
        if theirs is None:
            problems.append(f"layer {name!r} is missing")
        elif ours is None:
            problems.append(f"layer {name!r} is unexpected")
        elif ours != theirs:
            problems.append(f"layer {name!r}: expected {ours}, found {theirs}")
    if not (problems or ignore_classifier or output in found.values):
        problems.append(f"the output {output} is missing")
    if problems:
        raise InputError(
            f"{source}: not SqueezeNet v{config.version} with bypass {config.bypass}: "
            f"{describe_problems(problems)}."
        )


@dataclass
class _Graph:
    """A network as text.

    Attributes:
        geometry: whether kernels, strides and pads are known, and written.
        lines: convolution -> what it is and what it reads.
        values: everything that is computed.
        problems: what no network may have.
    """

    geometry: bool
    lines: dict[str, str] = field(default_factory=dict)
    values: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def convolution(self, name: str, geometry: str, x: str) -> str:
        if name in self.lines:
            self.problems.append(f"two convolutions are called {name!r}")
        self.lines[name] = f"{geometry} on {x}" if self.geometry else x
        return name

    def pool(self, geometry: str, x: str) -> str:
        return f"{geometry}({x})" if self.geometry else f"pool({x})"


def _window(kernel: Any, stride: Any, pad: Any) -> str:
    return f"{kernel}x{kernel} stride {stride} pad {pad}"


def _concat(inputs: list[str]) -> str:
    return f"concat({', '.join(inputs)})"


def _sum(inputs: list[str]) -> str:
    return f"sum({', '.join(sorted(inputs))})"


def _describe_ours(config: ModelConfig, graph: _Graph) -> str:
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
        value[layer.name] = text
    return value["pool10"]


def _describe_caffe(caffe_layers: Sequence[CaffeLayer], graph: _Graph) -> None:
    """Writes the network of a Caffe file into `graph`."""
    value: dict[str, str] = {}  # the text of what each blob holds at this point of the file
    for layer in caffe_layers:
        # A blob that nothing has written is an input of the net, whatever its name.
        text = _apply(layer, [value.get(name, "data") for name in layer.bottoms], graph)
        if len(text) > _LONGEST:
            text = f"{layer.type} {layer.name!r}"
        graph.values.add(text)
        for top in layer.tops:
            value[top] = text


def _apply(layer: CaffeLayer, inputs: list[str], graph: _Graph) -> str:
    """The text of the output of a layer of a file."""
    if not inputs:
        return "data"
    message, x = layer.message, inputs[0]
    if layer.type == "Convolution":
        return graph.convolution(layer.name, _conv_geometry(message.convolution_param), x)
    if layer.type == "Pooling":
        return graph.pool(_pool_geometry(message.pooling_param), x)
    if layer.type in ("Split", "Dropout"):
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
