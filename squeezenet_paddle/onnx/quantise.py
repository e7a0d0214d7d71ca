"""The constants of a network that computes on 8-bit integers, as its ONNX file holds them.

By name, for a tensor of the graph and for a layer's weight and bias:

    fire2/concat/scale             float32, the step of a tensor's 256 values
    fire2/concat/zero              uint8, which of them is 0
    data/scale, /zero              the same for each channel of the input; conv1 reads the integers
    conv1.weight/int8, /scale      int8 as the weight, and float32, the step of each output
    conv1.bias/int32               in steps of the weight's times the input's; convolutions only

`compression/int8.py` makes them. As a file holds all of them, engines take them from there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from ..errors import InputError
from ..network.config import ModelConfig, layers
from ..network.weights import key_of
from .schema import DATA_TYPES, ModelProto

CALIBRATION_IMAGES = 64
LARGEST_LINEAR_WEIGHT = 127  # 8 bits, as these layers are computed in float32
_LARGEST = 1e30  # a step

Constants = Mapping[str, np.ndarray]


def step_and_zero(
    low: float | np.ndarray, high: float | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The step of 256 values from `low` to `high`, float32, and which of them is 0, uint8."""
    low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
    step = np.asarray(np.maximum((high - low) / 255, 1e-30), "float32")
    return step, np.asarray(np.rint(-low / step), "uint8")


def step_of_outputs(
    weight: np.ndarray, bias: np.ndarray, input_step: np.ndarray, largest_weight: int
) -> np.ndarray:
    """The least steps, float32 [outputs], with which weight and bias of a convolution fit."""
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1) / np.float32(largest_weight)
    of_bias = np.maximum(np.abs(bias) / input_step, np.float32(1e-20)) / np.float32(2**30)
    return np.maximum(largest, of_bias).astype("float32")


def read_constants(model: bytes, config: ModelConfig, source: str) -> dict[str, np.ndarray]:
    """The constants of a network of 8 bits from its ONNX file.

    Args:
        model: the file.
        config: the network that it should be of.
        source: what errors call the file.

    Raises:
        InputError: it is damaged, of another network, or of an older version.
    """
    try:
        graph = ModelProto.FromString(model).graph
    except (DecodeError, ValueError) as error:  # protobuf 3: names that are no text
        raise InputError(f"{source}: no ONNX file ({error}).") from error
    found = {each.name: each for each in graph.initializer}
    return {
        name: _constant(found.get(name), kind, shape, f"{source}, {name}")
        for name, (kind, shape) in expected_constants(config).items()
    }


def expected_constants(config: ModelConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of each constant of a network, by its name."""
    maps = ["data", *(layer.name for layer in layers(config) if not layer.flat)]
    expected: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name in maps:
        size = (3,) if name == "data" else ()
        expected[f"{name}/scale"], expected[f"{name}/zero"] = ("float32", size), ("uint8", size)
    for layer in layers(config):
        if layer.weight_shape:
            key, is_linear = key_of(layer), layer.type == "InnerProduct"
            shape = layer.weight_shape[::-1] if is_linear else layer.weight_shape
            expected[f"{key}.weight/int8"] = "int8", shape
            expected[f"{key}.weight/scale"] = "float32", (layer.channels,)
            if not is_linear:
                expected[f"{key}.bias/int32"] = "int32", (layer.channels,)
    return expected


def _constant(found: Any, kind: str, shape: tuple[int, ...], where: str) -> np.ndarray:
    if found is None or found.data_type != DATA_TYPES[kind] or tuple(found.dims) != shape:
        size = "x".join(map(str, shape)) or "a single"
        raise InputError(f"{where}: {size} {kind} was expected; make the int8 export again.")
    form = np.dtype(kind).newbyteorder("<")
    if len(found.raw_data) != math.prod(shape) * form.itemsize:
        raise InputError(f"{where}: {math.prod(shape) * form.itemsize:,} bytes were expected.")
    values = np.frombuffer(found.raw_data, form).astype(kind).reshape(shape)
    if kind == "float32" and not ((values > 0) & (values < _LARGEST)).all():
        raise InputError(f"{where}: steps above 0 were expected, finite numbers.")
    return values
