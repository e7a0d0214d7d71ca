"""A Caffe file as one of our networks: read, checked, filled."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..files import read_bytes, sha256
from ..network.config import ModelConfig, classifier_name
from .convert import check_agreement, convert, read_config
from .reader import parse_caffemodel, read_prototxt
from .topology import check_topology

if TYPE_CHECKING:
    import numpy as np

    from ..network.model import SqueezeNet


@dataclasses.dataclass(frozen=True)
class CaffeWeights:
    """A Caffe file that has passed every check.

    Attributes:
        config: the network that it fills.
        state: float32 arrays by state-dict key; without the classifier if that is to be new.
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
    """Reads a .caffemodel and checks it, against its prototxt too if that is given.

    Needs no Paddle.

    Args:
        caffemodel: the file of weights.
        prototxt: the network's description.
        version, bypass, num_classes: what the user expects; None takes what the file holds.
        ignore_classifier: leave the file's classifier out; `num_classes` is that of the new one.

    Raises:
        InputError: a file cannot be read, is no SqueezeNet, or is not what the user expects.
    """
    if ignore_classifier and num_classes is None:
        raise InputError("--ignore_classifier needs --num_classes, the size of the new one.")
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
    """The network with these weights, in evaluation mode; `seed` makes a new classifier.

    It lives on the CPU: a GPU may compute with fewer bits than --verify asks for.
    """
    import paddle

    from ..network.model import SqueezeNet, load_state

    paddle.set_device("cpu")
    paddle.seed(seed)
    network = SqueezeNet(weights.config)
    state = dict(weights.state)
    if weights.source["classifier"] == "new":
        prefix = f"{classifier_name(weights.config)}."
        for key, value in network.state_dict().items():
            if key.startswith(prefix):
                state[key] = value.numpy()
    load_state(network, state, weights.source["file"])
    network.eval()
    return network
