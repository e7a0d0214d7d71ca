"""The graph of a network for VisualDL's page of dynamic graphs; its fires are groups that unfold.

VisualDL's own `add_graph` traces the network and reads Paddle's `.pdmodel`, which Paddle 3 no
longer writes. Here the layers are known as data, so nothing has to be traced.
"""

from __future__ import annotations

import json
from itertools import chain
from typing import Any

from ...network.config import Layer, ModelConfig, Row, layer_table

FILE = "vdlgraph.log"  # VisualDL looks for "vdlgraph" in the name

_OPERATORS = {  # Caffe's layer type: Paddle's operator, for which VisualDL has colours
    "Convolution": "conv2d",
    "Pooling": "pool2d",
    "Concat": "concat",
    "Eltwise": "elementwise_add",
    "BatchNorm": "batch_norm",
    "InnerProduct": "linear",
}
_Named = dict[str, dict[str, Any]]


def graph(config: ModelConfig, size: int) -> str:
    """The JSON text of a vdlgraph file.

    Args:
        config: the network.
        size: height and width of its input, in pixels.
    """
    tensors = {"data": _tensor(_map_shape(config, 3, size, size))}
    nodes = {"/data": _node("feed", {}, {"Out": ["data"]})}
    table = layer_table(config, size, size)
    for row in table:
        layer = row.layer
        inputs = {"Input": list(layer.bottoms)}
        for kind, shape in _weights(layer).items():
            name = f"{layer.name.replace('/', '.')}.{kind}"  # its state-dict key
            tensors[name] = _tensor(shape, weight=True)
            inputs[kind] = [name]
        tensors[layer.name] = _tensor(_map_shape(config, layer.channels, row.height, row.width))
        nodes[f"/{layer.name}"] = _node(
            _OPERATORS[layer.type], inputs, {"Output": [layer.name]}, _attributes(config, row)
        )
    nodes["/logits"] = _node("fetch", {"X": [table[-1].layer.name]}, {})
    for path, node in nodes.items():
        for name in chain.from_iterable(node["output_vars"].values()):
            tensors[name]["from_node"] = path
        for name in chain.from_iterable(node["input_vars"].values()):
            tensors[name]["to_nodes"].append(path)
    _add_groups(nodes, tensors)
    return json.dumps(
        {
            "version": "1.0.0",
            "nodes": [{"name": path, "show_name": path, **node} for path, node in nodes.items()],
            "vars": [{"name": name, **tensor} for name, tensor in tensors.items()],
            "edges": [],  # the board takes them from the tensors
        }
    )


def _node(
    kind: str,
    inputs: dict[str, list[str]],
    outputs: dict[str, list[str]],
    attributes: dict[str, Any] | None = None,
) -> dict[str, Any]:
    attributes = attributes or {}
    types = {int: "INT", str: "STRING", list: "INTS", bool: "BOOL"}
    return {
        "type": kind,
        "attrs": attributes,
        "attr_types": {key: types[type(value)] for key, value in attributes.items()},
        "input_vars": inputs,
        "output_vars": outputs,
        "is_leaf_node": True,
        "children_node": [],
        "parent_node": "",
    }


def _tensor(shape: tuple[int, ...], weight: bool = False) -> dict[str, Any]:
    return {
        "shape": list(shape),
        "dtype": "float32",
        "persistable": weight,
        "from_node": "",
        "to_nodes": [],
    }


def _map_shape(config: ModelConfig, channels: int, height: int, width: int) -> tuple[int, ...]:
    if config.data_format == "NHWC":
        return (-1, height, width, channels)
    return (-1, channels, height, width)


def _weights(layer: Layer) -> dict[str, tuple[int, ...]]:
    """Shapes of a layer's weights as Paddle stores them."""
    if layer.type == "BatchNorm":
        return dict.fromkeys(("weight", "bias", "_mean", "_variance"), (layer.channels,))
    if layer.type == "InnerProduct":
        return {"weight": layer.weight_shape[::-1], "bias": (layer.channels,)}
    if layer.weight_shape:
        return {"weight": layer.weight_shape, "bias": (layer.channels,)}
    return {}


def _attributes(config: ModelConfig, row: Row) -> dict[str, Any]:
    """What the board shows of a layer when it is clicked on."""
    layer = row.layer
    attributes: dict[str, Any] = {}
    if layer.type == "Pooling":
        attributes["pooling_type"] = "max" if layer.kernel else "avg"
        attributes["ceil_mode"] = True
    if layer.type in ("Convolution", "Pooling") and layer.kernel:
        attributes["kernel_size"] = [layer.kernel] * 2
        attributes["strides"] = [layer.stride] * 2
        attributes["paddings"] = [layer.pad] * 2
    if layer.activated:
        attributes["activation"] = config.activation
    if layer.parameters:
        attributes["parameters"] = layer.parameters
        attributes["multiply_adds"] = row.multiply_adds
    return attributes


def _add_groups(nodes: _Named, tensors: _Named) -> None:
    """Adds a group for each fire, with the nodes named after it, and the root, with everything."""
    inside: dict[str, list[str]] = {}
    for path in nodes:
        if fire := path.rpartition("/")[0]:
            inside.setdefault(fire, []).append(path)
    inside["/"] = list(dict.fromkeys("/" + path.split("/")[1] for path in nodes))
    for group, paths in inside.items():
        within = group.rstrip("/") + "/"
        inputs, outputs = [], []
        for name, tensor in tensors.items():
            made = tensor["from_node"].startswith(within)
            taken = [path.startswith(within) for path in tensor["to_nodes"]]
            if any(taken) and not made and not tensor["persistable"]:
                inputs.append(name)
            if made and not all(taken):
                outputs.append(name)
        for path in paths:
            nodes[path]["parent_node"] = group
        nodes[group] = {
            **_node(group.strip("/"), {"X": inputs}, {"Y": outputs}),
            "is_leaf_node": False,
            "children_node": paths,
        }
