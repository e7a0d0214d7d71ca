"""From a state dict of torchvision's squeezenet1_0 or squeezenet1_1 to our parameters.

torchvision numbers its layers: `features.0` is conv1, the fires follow in order, with pools between
them, and `classifier.1` is conv10, which has no pad in either version. The layers are those of
torchvision/models/squeezenet.py; our version "1.0-nopad" is its squeezenet1_0.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..conversion import (
    ConvertedWeights,
    blob_problems,
    check_agreement,
    check_new_classifier,
    extents,
    source_record,
)
from ..data.preprocess import Preprocess
from ..errors import InputError, describe_problems
from ..files import read_bytes, sha256
from ..network.config import VERSIONS, ModelConfig, layers
from ..network.weights import key_of
from .checkpoint import Tensor, damage_named, read_checkpoint

# torchvision's evaluation of its ImageNet weights: 0..1, normalised by mean and deviation of RGB.
# It resizes with Pillow, which averages over more pixels than OpenCV's "linear": "area" is nearest.
TORCHVISION = Preprocess(
    resize="short_side",
    resize_size=256,
    interpolation="area",
    crop_size=224,
    channel_order="RGB",
    scale=1 / 255,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
# torchvision's number of each fire, fire2 first; the numbers between are pools.
FIRES = {"1.0-nopad": (3, 4, 5, 7, 8, 9, 10, 12), "1.1": (3, 4, 6, 7, 9, 10, 11, 12)}
# Where checkpoints hold their state dict, the usual names first.
_ENTRIES = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights")
_FIRST = "features.0.weight"


def read_weights(
    path: Path,
    version: str | None = None,
    num_classes: int | None = None,
    ignore_classifier: bool = False,
) -> ConvertedWeights:
    """Reads a .pth, .pt or .safetensors file of a SqueezeNet and checks it. Needs no Paddle.

    Args:
        path: the file.
        version, num_classes: what the user expects; None takes what the file holds.
        ignore_classifier: leave the file's classifier out; `num_classes` is that of the new one.

    Raises:
        InputError: the file cannot be read, is no SqueezeNet of torchvision, or is not what the
            user expects.
    """
    check_new_classifier(ignore_classifier, num_classes)
    name = str(path)
    data = read_bytes(path, "PyTorch checkpoint")
    kind, content = read_checkpoint(data, name)
    entry, prefix, tensors = _state_dict(content, name)
    config = _config(tensors, name)
    check_agreement(config, name, version="1.0-nopad" if version == "1.0" else version)
    if not ignore_classifier:
        check_agreement(config, name, num_classes=num_classes)
    state = _convert(tensors, config, name, ignore_classifier)
    if num_classes is not None:
        config = dataclasses.replace(config, num_classes=num_classes)
    notes = []
    if entry:
        notes.append(f"the weights are its entry {entry!r}")
    if prefix:
        notes.append(f"its keys start with {prefix!r}")
    source = source_record(kind, path, sha256(data), ignore_classifier)
    return ConvertedWeights(config, state, source, tuple(notes))


def _state_dict(content: Mapping[Any, Any], name: str) -> tuple[str, str, dict[str, Tensor]]:
    """The entry of a checkpoint that holds the network, the prefix of its keys, and its tensors."""
    candidates = {"": content}
    candidates.update(
        {key: value for key, value in content.items() if key and isinstance(value, dict)}
    )
    holding = [
        key
        for key, value in candidates.items()
        if any(isinstance(k, str) and _ends_with(k, _FIRST) for k in value)
    ]
    if not holding:
        keys = [str(key) for key in content][:5]
        raise InputError(
            f"{name}: not a SqueezeNet of torchvision: no {_FIRST} in it; found "
            f"{', '.join(map(ascii, keys)) or 'nothing'}."
        )
    usual = [key for key in ("", *_ENTRIES) if key in holding]
    if len(holding) > 1 and not usual:
        raise InputError(f"{name}: several networks in it: {', '.join(map(ascii, holding))}.")
    entry = usual[0] if usual else holding[0]
    tensors = candidates[entry]
    firsts = [key for key in tensors if isinstance(key, str) and _ends_with(key, _FIRST)]
    if len(firsts) > 1:
        raise InputError(f"{name}: several networks in it: {', '.join(map(ascii, firsts))}.")
    prefix = firsts[0][: -len(_FIRST)]
    found = {
        key[len(prefix) :]: value
        for key, value in tensors.items()
        if isinstance(key, str) and key.startswith(prefix) and isinstance(value, Tensor)
    }
    return str(entry), prefix, found


def _ends_with(key: str, end: str) -> bool:
    return key == end or key.endswith(f".{end}")


def _config(tensors: Mapping[str, Tensor], name: str) -> ModelConfig:
    """Version and number of classes."""
    shape = tensors[_FIRST].shape if _FIRST in tensors else ()
    if len(shape) == 4 and shape[1] != 3:
        raise InputError(
            f"{name}: a network of images of {shape[1]} channels; only 3 (colour) are supported."
        )
    shapes = {
        version: (facts.conv1_channels, 3, facts.conv1_kernel, facts.conv1_kernel)
        for version, facts in VERSIONS.items()
        if version in FIRES
    }
    versions = [version for version, expected in shapes.items() if expected == shape]
    if not versions:
        expected = " or ".join(f"{extents(s)} (v{v})" for v, s in shapes.items())
        raise InputError(f"{name}: {_FIRST} is {extents(shape)}; {expected} was expected.")
    classifier = tensors.get("classifier.1.weight")
    classes = classifier.shape[0] if classifier is not None and classifier.shape else 1000
    return ModelConfig(version=versions[0], num_classes=max(classes, 1))


def _convert(
    tensors: Mapping[str, Tensor], config: ModelConfig, name: str, ignore_classifier: bool
) -> dict[str, np.ndarray]:
    problems: list[str] = []
    state: dict[str, np.ndarray] = {}
    expected = set()
    for layer in layers(config):
        if not layer.weight_shape or (ignore_classifier and layer.stage == "head"):
            continue
        theirs = _torch_name(layer.name, config.version)
        keys = [f"{theirs}.weight", f"{theirs}.bias"]
        expected.update(keys)
        missing = [key for key in keys if key not in tensors]
        problems += [f"{key} ({layer.name}) is missing" for key in missing]
        if missing:
            continue
        with damage_named(f"{name}, {theirs}"):
            weight, bias = (tensors[key].values() for key in keys)
        faults = blob_problems(theirs, weight, bias, layer.weight_shape)
        problems += faults
        if not faults:
            key = key_of(layer.name)
            state[f"{key}.weight"], state[f"{key}.bias"] = weight, bias.reshape(-1)
    problems += [
        f"{key} is unexpected"
        for key in tensors
        if key not in expected and not (ignore_classifier and not re.match(r"features\.\d", key))
    ]
    if problems:
        raise InputError(
            f"{name}: its weights do not fit torchvision's SqueezeNet v{config.version[:3]}: "
            f"{describe_problems([ascii(p)[1:-1] for p in problems])}."
        )
    return state


def _torch_name(name: str, version: str) -> str:
    """torchvision's name of one of our layers: `features.3.squeeze` for `fire2/squeeze1x1`."""
    fixed = {"conv1": "features.0", "conv10": "classifier.1"}
    if name in fixed:
        return fixed[name]
    fire, _, part = name.partition("/")
    number = FIRES[version][int(fire[len("fire") :]) - 2]
    return f"features.{number}.{'squeeze' if part == 'squeeze1x1' else part}"
