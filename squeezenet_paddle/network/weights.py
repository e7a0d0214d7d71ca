"""The arrays of a network: their keys and shapes, and how they are read from a file. No Paddle.

Keys and shapes are those of Paddle's state dict: `fire2.squeeze1x1.weight` is the first blob of the
layer `fire2/squeeze1x1`, and the weight of a linear layer is transposed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import InputError, describe_problems
from ..safe_pickle import PickledArray, load_dict
from .config import Layer, ModelConfig, layers

BATCH_NORM_EPSILON = 1e-5  # Paddle's default, and Caffe's
_PARAMETER_NAMES = "StructuredToParameterName@@"  # paddle.save adds it to a state dict


def key_of(layer: Layer | str) -> str:
    """What the state-dict keys of a layer start with, by the layer or its Caffe name."""
    name = layer if isinstance(layer, str) else layer.name
    return name.replace("/", ".")


def state_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every array of a network by its state-dict key."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in layers(config):
        key = key_of(layer)
        if layer.type == "BatchNorm":
            for name in ("weight", "bias", "_mean", "_variance"):
                shapes[f"{key}.{name}"] = (layer.channels,)
        elif layer.weight_shape:
            transposed = layer.type == "InnerProduct"
            shapes[f"{key}.weight"] = layer.weight_shape[:: -1 if transposed else 1]
            shapes[f"{key}.bias"] = (layer.channels,)
    return shapes


def check_state(
    shapes: Mapping[str, tuple[int, ...]], state: Mapping[str, np.ndarray], source: str
) -> None:
    """Refuses arrays that are not exactly those of a network.

    Args:
        shapes: of the network's arrays, by state-dict key.
        state: arrays by state-dict key.
        source: what they come from, for the error.

    Raises:
        InputError: keys are missing, unexpected or mis-shaped, or values are not finite; all of
            them are listed.
    """
    problems = [f"{key} is missing" for key in shapes if key not in state]
    problems += [f"{key} is unexpected" for key in state if key not in shapes]
    for key, expected in shapes.items():
        if key not in state:
            continue
        shape = state[key].shape
        if shape != expected:
            problems.append(f"{key} has shape {list(shape)} where {list(expected)} is expected")
        elif state[key].dtype.kind != "f":
            problems.append(f"{key} holds {state[key].dtype} where float32 is expected")
        elif not _fit_float32(state[key]):
            problems.append(f"{key} holds NaN or infinite values")
    if problems:
        raise InputError(
            f"{source}: the weights do not fit the network: {describe_problems(problems)}."
        )


def _fit_float32(values: np.ndarray) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.isfinite(values.astype("float32")).all())


def read_state(data: bytes, source: str) -> dict[str, np.ndarray]:
    """The arrays of a state dict that paddle.save wrote; no code in it is run.

    Args:
        data: the file.
        source: its name, for errors.

    Raises:
        InputError: it is damaged, or holds anything other than arrays of numbers.
    """
    content = load_dict(data, source)
    content.pop(_PARAMETER_NAMES, None)
    state = {}
    for key, array in content.items():
        if not isinstance(key, str) or not isinstance(array, PickledArray):
            raise InputError(f"{source}: a state dict of arrays was expected.")
        if array.values is None:
            raise InputError(f"{source}: {key} holds something other than floating-point numbers.")
        state[key] = array.values
    return state
