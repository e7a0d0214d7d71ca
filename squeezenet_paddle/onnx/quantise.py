"""The constants of a network that computes on 8-bit integers, as its ONNX file holds them.

By name, for a tensor of the graph and for a layer's weight and bias:

    data/scale, fire2/concat/scale    float32, the step of a tensor's 256 values
    data/zero, fire2/concat/zero      uint8, which of them is 0
    conv1.weight/int8, /scale         int8 as the weight, and float32, the step of each output
    conv1.bias/int32                  in steps of the weight's times the input's; convolutions only

`compression/int8.py` makes them. As a file holds all of them, engines take them from there.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .schema import DATA_TYPES, ModelProto

CALIBRATION_IMAGES = 64
LARGEST_WEIGHT = 63  # 7 bits: sums of two products with a uint8 then fit 16 bits, as AVX2 has them
LARGEST_LINEAR_WEIGHT = 127  # 8 bits, as these layers are computed in float32

Constants = Mapping[str, np.ndarray]


def step_and_zero(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """The step of 256 values from `low` to `high`, float32, and which of them is 0, uint8."""
    low, high = min(low, 0.0), max(high, 0.0)
    step = np.array(max((high - low) / 255, 1e-30), "float32")
    return step, np.array(np.rint(-low / step), "uint8")


def step_of_outputs(weight: np.ndarray, bias: np.ndarray, input_step: np.ndarray) -> np.ndarray:
    """The least steps, float32 [outputs], with which weight and bias of a convolution fit."""
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1) / np.float32(LARGEST_WEIGHT)
    of_bias = np.maximum(np.abs(bias) / input_step, np.float32(1e-20)) / np.float32(2**30)
    return np.maximum(largest, of_bias).astype("float32")


def constants_of(model: bytes) -> dict[str, np.ndarray]:
    """All constants of an ONNX file by name."""
    types = {number: np.dtype(name) for name, number in DATA_TYPES.items()}
    graph = ModelProto.FromString(model).graph
    return {
        each.name: np.frombuffer(each.raw_data, types[each.data_type].newbyteorder("<"))
        .astype(types[each.data_type])
        .reshape(tuple(each.dims))
        for each in graph.initializer
    }
