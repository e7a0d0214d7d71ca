"""From a Caffe file to one of our networks: read, checked, each parameter filled exactly once."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError, describe_problems
from ..files import read_bytes, sha256
from ..network.config import FIRES, VERSIONS, ModelConfig, layers
from ..network.heads import HEADS
from ..network.weights import key_of
from .reader import CaffeLayer, parse_caffemodel, read_prototxt
from .topology import check_topology

if TYPE_CHECKING:
    from ..network.model import SqueezeNet


@dataclasses.dataclass(frozen=True)
class CaffeWeights:
    """A Caffe file that has passed every check.

    Attributes:
        config: the network that it fills.
        state: float32 arrays by state-dict key, without the classifier if that will be new.
        source: file name, SHA-256 and whether the classifier is the file's, for config.json.
    """

    config: ModelConfig
    state: dict[str, np.ndarray]
    source: dict[str, str]


def read_weights(
    caffemodel: Path,
    prototxt: Path | None = None,
    version: str | None = None,
    bypass: str | None = None,
    num_classes: int | None = None,
    ignore_classifier: bool = False,
) -> CaffeWeights:
    """Reads and checks a .caffemodel, also against its prototxt if there is one.

    Needs no Paddle.

    Args:
        caffemodel: the file of weights.
        prototxt: the network's description.
        version, bypass, num_classes: what the user expects; None accepts what the file holds.
        ignore_classifier: leave the file's classifier out, for a new one of `num_classes`.

    Raises:
        InputError: a file cannot be read, is no SqueezeNet, or is not what the user expects.
    """
    if ignore_classifier and num_classes is None:
        raise InputError("`ignore_classifier` needs `num_classes`, the size of the new one.")
    name = str(caffemodel)
    data = read_bytes(caffemodel, "caffemodel")
    caffe_layers = parse_caffemodel(data, name)
    config = read_config(caffe_layers, name, ignore_classifier)
    check_agreement(config, name, version=version, bypass=bypass)
    if not ignore_classifier:
        check_agreement(config, name, num_classes=num_classes)
    state = convert(caffe_layers, name, config, ignore_classifier)
    if prototxt is not None:
        check_topology(read_prototxt(prototxt), config, str(prototxt), ignore_classifier)
    if ignore_classifier:
        assert num_classes is not None
        config = dataclasses.replace(config, num_classes=num_classes)
    source = {
        "format": "caffemodel",
        "file": caffemodel.name,
        "sha256": sha256(data),
        "classifier": "new" if ignore_classifier else "converted",
    }
    return CaffeWeights(config, state, source)


def build_network(weights: CaffeWeights, seed: int = 0) -> SqueezeNet:
    """The network with these weights, in evaluation mode; `seed` is that of a new classifier.

    It lives on the CPU: a GPU may compute with fewer bits than `verify` allows.
    """
    import paddle

    from ..network.model import SqueezeNet, load_state

    paddle.set_device("cpu")
    paddle.seed(seed)
    network = SqueezeNet(weights.config)
    state = dict(weights.state)
    if weights.source["classifier"] == "new":
        prefix = f"{HEADS[weights.config.head].classifier}."
        for key, value in network.state_dict().items():
            if key.startswith(prefix):
                state[key] = value.numpy()
    load_state(network, state, weights.source["file"])
    network.eval()
    return network


def read_config(
    caffe_layers: Sequence[CaffeLayer], source: str, ignore_classifier: bool = False
) -> ModelConfig:
    """Recognises the SqueezeNet in a Caffe file: version, bypass, activation, number of classes.

    With `ignore_classifier` the classifier may be missing; the number of classes is then 1000.

    Raises:
        InputError: conv1 or conv10 is missing, or conv1 is of neither version.
    """
    with_weights = {layer.name: layer for layer in caffe_layers if layer.blobs}
    needed = ("conv1",) if ignore_classifier else ("conv1", "conv10")
    missing = [name for name in needed if name not in with_weights]
    if missing:
        named = ", ".join(list(with_weights)[:5]) or "none"
        raise InputError(
            f"{source}: not a SqueezeNet: no weights for {' and '.join(missing)}; "
            f"its layers with weights: {named}{', ...' if len(with_weights) > 5 else ''}."
        )
    shape = with_weights["conv1"].blobs[0].shape
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
    if any(f"{fire}/bypass1x1" in with_weights for fire in FIRES):
        bypass = "complex"
    else:
        bypass = "simple" if "Eltwise" in types else "none"
    config = ModelConfig(
        version=version, bypass=bypass, activation="elu" if "ELU" in types else "relu"
    )
    if "conv10" not in with_weights:
        return config
    # A wrong shape is reported with those of the other layers; its first extent will do here.
    conv10 = with_weights["conv10"].blobs[0].shape
    return dataclasses.replace(config, num_classes=max(conv10[0], 1) if conv10 else 1)


def convert(
    caffe_layers: Sequence[CaffeLayer],
    source: str,
    config: ModelConfig,
    ignore_classifier: bool = False,
) -> dict[str, np.ndarray]:
    """The state dict of the network `config` from the layers of a Caffe file.

    Layers without weights (data, loss, split) are skipped. If the file describes its graph, as
    those saved by Caffe do, kernels, strides, pads and connections are compared with ours.

    Args:
        caffe_layers: as the reader returns them.
        source: what to call the file in errors.
        config: the network to fill, as `read_config` returns it.
        ignore_classifier: leave conv10 out, whatever its size.

    Returns:
        float32 arrays by state-dict key, e.g. "fire2.squeeze1x1.weight".

    Raises:
        InputError: layers are missing, unexpected, given twice, mis-shaped or not finite, all
            listed together; or the graph is another one.
    """
    ignored = HEADS[config.head].classifier if ignore_classifier else None
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


def check_agreement(config: ModelConfig, source: str, **expected: object) -> None:
    """Compares the settings that the user expects with those of a file; None expects nothing.

    Raises:
        InputError: they disagree.
    """
    for name, value in expected.items():
        actual = getattr(config, name)
        if value is not None and value != actual:
            raise InputError(f"`{name}` {value}: {source} holds a network with {name} {actual}.")


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
        key = key_of(layer.name)
        state[f"{key}.weight"] = weight
        state[f"{key}.bias"] = bias.reshape(channels)
    return problems


def _extents(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "scalar"
