"""From the layers of a Caffe file to the parameters of our network, each filled exactly once."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..errors import InputError, describe_problems
from ..network.config import (
    FIRES,
    VERSIONS,
    ModelConfig,
    classifier_name,
    layers,
)
from .reader import CaffeLayer
from .topology import check_topology


def read_config(
    caffe_layers: Sequence[CaffeLayer], source: str, ignore_classifier: bool = False
) -> ModelConfig:
    """Which SqueezeNet a Caffe file holds: version, bypass, activation and number of classes.

    With `ignore_classifier` the classifier may be missing; the number of classes is then 1000.

    Raises:
        InputError: conv1 or conv10 is missing, or conv1 is of neither version.
    """
    found = {layer.name: layer for layer in caffe_layers if layer.blobs}
    needed = ("conv1",) if ignore_classifier else ("conv1", "conv10")
    missing = [name for name in needed if name not in found]
    if missing:
        named = ", ".join(list(found)[:5]) or "none"
        raise InputError(
            f"{source}: not a SqueezeNet: no weights for {' and '.join(missing)}; "
            f"its layers with weights: {named}{', ...' if len(found) > 5 else ''}."
        )
    shape = found["conv1"].blobs[0].shape
    shapes = {
        name: (v.conv1_channels, 3, v.conv1_kernel, v.conv1_kernel) for name, v in VERSIONS.items()
    }
    version = next((name for name, expected in shapes.items() if expected == shape), None)
    if version is None:
        expected = " or ".join(f"{_extents(s)} (v{name})" for name, s in shapes.items())
        raise InputError(
            f"{source}: not a SqueezeNet: layer 'conv1' has weights {_extents(shape)}, "
            f"{expected} was expected."
        )
    types = {layer.type for layer in caffe_layers}
    if any(f"{fire}/bypass1x1" in found for fire in FIRES):
        bypass = "complex"
    else:
        bypass = "simple" if "Eltwise" in types else "none"
    config = ModelConfig(
        version=version, bypass=bypass, activation="elu" if "ELU" in types else "relu"
    )
    if "conv10" not in found:
        return config
    # A wrong shape is reported with those of the other layers; its first extent will do here.
    conv10 = found["conv10"].blobs[0].shape
    return dataclasses.replace(config, num_classes=max(conv10[0], 1) if conv10 else 1)


def convert(
    caffe_layers: Sequence[CaffeLayer],
    source: str,
    config: ModelConfig,
    ignore_classifier: bool = False,
) -> dict[str, np.ndarray]:
    """The state dict of the network `config` from the layers of a Caffe file.

    Layers without weights (data, loss, split) are passed over. Where the file describes its graph,
    as files saved by Caffe do, kernels, strides, pads and connections are compared with ours.

    Args:
        caffe_layers: as the reader gives them.
        source: what to call the file in errors.
        config: the network to fill, as `read_config` finds it.
        ignore_classifier: leave conv10 out, of whatever size it is.

    Returns:
        float32 arrays by state-dict key, e.g. "fire2.squeeze1x1.weight".

    Raises:
        InputError: layers are missing, unexpected, given twice, mis-shaped or not finite, all
            listed together; or the graph is another one.
    """
    ignored = classifier_name(config) if ignore_classifier else None
    expected = {layer.name: layer for layer in layers(config) if layer.weight_shape}
    with_blobs = [layer for layer in caffe_layers if layer.blobs]
    counts = Counter(layer.name for layer in with_blobs)
    problems = [f"{name} is missing" for name in expected if not counts[name] and name != ignored]
    problems += [f"{name} is given {n} times" for name, n in counts.items() if n > 1]
    problems += [f"{name} is unexpected" for name in counts if name not in expected]
    state: dict[str, np.ndarray] = {}
    for layer in with_blobs:
        if layer.name in expected and layer.name != ignored:
            problems += _fill(state, layer, expected[layer.name].weight_shape)
    if problems:
        raise InputError(
            f"{source}: its weights do not fit SqueezeNet v{config.version} with bypass "
            f"{config.bypass} and {config.num_classes} classes: {describe_problems(problems)}."
        )
    if any(layer.bottoms for layer in with_blobs):
        check_topology(caffe_layers, config, source, ignore_classifier)
    return state


def check_agreement(config: ModelConfig, source: str, **flags: object) -> None:
    """Checks what the user says of a file against what it holds; None says nothing.

    Raises:
        InputError: they disagree.
    """
    for name, value in flags.items():
        found = getattr(config, name)
        if value is not None and value != found:
            raise InputError(f"--{name} {value}: {source} holds a network with {name} {found}.")


def _fill(
    state: dict[str, np.ndarray], layer: CaffeLayer, weight_shape: tuple[int, ...]
) -> list[str]:
    """Adds the weight and the bias of a layer to `state`; returns what is wrong with them."""
    if len(layer.blobs) != 2:
        return [f"{layer.name} has {len(layer.blobs)} blobs, a weight and a bias were expected"]
    weight, bias = layer.blobs
    channels = weight_shape[0]
    problems = []
    if weight.shape != weight_shape:
        problems.append(
            f"{layer.name} has weights {_extents(weight.shape)}, "
            f"{_extents(weight_shape)} was expected"
        )
    if bias.shape not in ((channels,), (1, 1, 1, channels)):
        problems.append(f"{layer.name} has a bias {_extents(bias.shape)}, {channels} was expected")
    problems += [
        f"{layer.name} has NaN or infinite values in its {what}"
        for what, values in (("weights", weight), ("bias", bias))
        if not np.isfinite(values).all()
    ]
    if not problems:
        key = layer.name.replace("/", ".")
        state[f"{key}.weight"] = weight
        state[f"{key}.bias"] = bias.reshape(channels)
    return problems


def _extents(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
