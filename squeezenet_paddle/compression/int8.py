"""Fits 8-bit integers to a network, with some dozens of images and no training.

- The channels between a squeeze and its expands are scaled so that they, and the weights that read
  them, have about the same size; a ReLU lets that through (Nagel et al. 2019, arXiv:1906.04721).
- The range of a tensor is that of its values on the images, without the few far outside.
- Layers in order, their weights are those that reproduce the float outputs best from the inputs in
  the network rounded so far, rounded by least squares as for a small file (`rounding.py`); the bias
  takes what is left on average.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..network.config import FIRES, Layer, ModelConfig, layers
from ..network.numpy_forward import activations
from ..network.weights import key_of
from ..onnx.quantise import (
    LARGEST_LINEAR_WEIGHT,
    LARGEST_WEIGHT,
    step_and_zero,
    step_of_outputs,
)
from ..progress import Progress, track
from .rounding import Problem
from .walk import Walk, covariances

State = Mapping[str, np.ndarray]

_CLIPPED = 1e-5  # the share of an image's values at either end that 8 bits need not reach
_LEAST = 1e-3  # of the largest channel: what others count for in equalising


def quantise(
    config: ModelConfig,
    state: State,
    inputs: Sequence[np.ndarray] | np.ndarray,
    threads: int | None = None,
) -> dict[str, np.ndarray]:
    """The constants of `onnx/quantise.py`; progress goes to standard error.

    Args:
        config: which network.
        state: its float arrays by state-dict key.
        inputs: at least one image, each as `Preprocess` makes it.
        threads: None takes one per core that the process may use.
    """
    if config.activation == "relu":
        state = _equalised(state, _largest(config, state, inputs))
    result: dict[str, np.ndarray] = {}
    for name, limits in _ranges(config, state, inputs).items():
        result[f"{name}/scale"], result[f"{name}/zero"] = step_and_zero(*limits)
    for layer in layers(config):
        # These copy integers, which have to mean the same on both sides.
        same = layer.bottoms if layer.type == "Concat" and not layer.flat else ()
        for each in same:
            for part in ("scale", "zero"):
                result[f"{each}/{part}"] = result[f"{layer.name}/{part}"]
    for layer in layers(config):
        if layer.type == "Pooling" and layer.kernel:
            for part in ("scale", "zero"):
                result[f"{layer.name}/{part}"] = result[f"{layer.bottoms[0]}/{part}"]
    with_floats = Walk(config, inputs, threads)
    rounded = Walk(config, inputs, threads, lambda name, x: _rounded(name, x, result))
    now = dict(state)
    weighted = [layer for layer in layers(config) if layer.weight_shape]
    with Progress("rounding", len(weighted), "layers") as progress:
        for layer in weighted:
            key = key_of(layer)
            weight, bias = state[f"{key}.weight"], state[f"{key}.bias"]
            if layer.type == "InnerProduct":
                step = np.abs(weight).max(axis=0) / np.float32(LARGEST_LINEAR_WEIGHT)
                step = np.maximum(step, np.float32(1e-20))  # of an output whose weights are all 0
                result[f"{key}.weight/int8"] = np.rint(weight / step).astype("int8")
                result[f"{key}.weight/scale"] = step
            else:
                with_floats.advance(layer, state)
                rounded.advance(layer, now)
                problem = covariances(layer, rounded, with_floats)
                _fit(layer, weight, bias, problem, result)
                step = result[f"{key}.weight/scale"]
                of_bias = step * result[f"{layer.bottoms[0]}/scale"]
                now[f"{key}.weight"] = result[f"{key}.weight/int8"] * step[:, None, None, None]
                now[f"{key}.bias"] = (result[f"{key}.bias/int32"] * of_bias).astype("float32")
            progress.update()
    return result


def _fit(
    layer: Layer,
    weight: np.ndarray,
    bias: np.ndarray,
    moments: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    result: dict[str, np.ndarray],
) -> None:
    """Adds the integers of a convolution to `result`."""
    hessian, cross, mean, mean0 = moments
    flat = weight.reshape(len(weight), -1).astype("float64")
    problem = Problem(flat, cross, hessian)
    input_step = result[f"{layer.bottoms[0]}/scale"]
    step = step_of_outputs(problem.target, bias, input_step)
    q = problem.nearest(step.astype("float64"), LARGEST_WEIGHT)
    exact = bias + flat @ mean0 - step * (q @ mean)
    key = key_of(layer)
    result[f"{key}.weight/int8"] = q.astype("int8").reshape(weight.shape)
    result[f"{key}.weight/scale"] = step
    of_bias = (step * input_step).astype("float64")
    result[f"{key}.bias/int32"] = np.clip(np.rint(exact / of_bias), -(2**31), 2**31 - 1).astype(
        "int32"
    )


def _largest(
    config: ModelConfig, state: State, inputs: Sequence[np.ndarray] | np.ndarray
) -> dict[str, np.ndarray]:
    """The largest value of each channel of the squeezes, [C]."""
    result: dict[str, np.ndarray] = {}
    for x in inputs:
        values = activations(config, state, x.astype("float32"))
        for fire in FIRES:
            name = f"{fire}/squeeze1x1"
            now = values[name].max(axis=(1, 2))
            result[name] = np.maximum(result.get(name, now), now)
    return result


def _equalised(state: State, largest: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same network with other scales of the channels between squeezes and expands."""
    result = dict(state)
    for fire in FIRES:
        squeeze, expands = f"{fire}.squeeze1x1", [f"{fire}.expand1x1", f"{fire}.expand3x3"]
        read = [np.abs(state[f"{each}.weight"]).max(axis=(0, 2, 3)) for each in expands]
        weights, values = (
            np.maximum(each, max(_LEAST * each.max(), 1e-20))
            for each in (np.maximum(*read), largest[f"{fire}/squeeze1x1"])
        )
        scale = np.sqrt(values / weights)
        scale = (scale / np.exp(np.log(scale).mean())).astype("float32")
        result[f"{squeeze}.weight"] = state[f"{squeeze}.weight"] / scale[:, None, None, None]
        result[f"{squeeze}.bias"] = state[f"{squeeze}.bias"] / scale
        for each in expands:
            result[f"{each}.weight"] = state[f"{each}.weight"] * scale[:, None, None]
    return result


def _ranges(
    config: ModelConfig, state: State, inputs: Sequence[np.ndarray] | np.ndarray
) -> dict[str, tuple[float, float]]:
    """The range of "data" and of every map, without the few values far outside the others."""
    ranges: dict[str, list[np.ndarray]] = {}
    maps = {layer.name for layer in layers(config) if not layer.flat} | {"data"}
    for x in track(inputs, "calibrating"):
        for name, values in activations(config, state, x.astype("float32")).items():
            if name in maps:
                ranges.setdefault(name, []).append(np.quantile(values, [_CLIPPED, 1 - _CLIPPED]))
    return {
        name: (float(np.min(each, axis=0)[0]), float(np.max(each, axis=0)[1]))
        for name, each in ranges.items()
    }


def _rounded(name: str, x: np.ndarray, constants: Mapping[str, np.ndarray]) -> np.ndarray:
    step = constants.get(f"{name}/scale")
    return x if step is None else _to_grid(x.astype("float32"), step, constants[f"{name}/zero"])


def _to_grid(x: np.ndarray, step: np.ndarray, zero: np.ndarray) -> np.ndarray:
    z = np.float32(zero)
    return (np.clip(np.rint(x / step), -z, 255 - z) * step).astype("float32")
