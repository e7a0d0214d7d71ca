"""Fits 8-bit integers to a network, with some dozens of images and no training.

- Each channel of the input has a step and a zero, so that pixels are what they were.
- The channels of a map are scaled to the same range where a ReLU lets that through
  (`equalise.py`).
- The range of a map is the one that loses least on the images: by rounding, and by cutting off.
- Layers in order, their weights are those that reproduce the float outputs best from the inputs in
  the network rounded so far, rounded by least squares as for a small file (`rounding.py`); the bias
  takes what is left on average.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ..network.config import Layer, ModelConfig, layers
from ..network.numpy_forward import activations
from ..network.weights import key_of
from ..onnx.quantise import LARGEST_LINEAR_WEIGHT, step_and_zero, step_of_outputs
from ..progress import Progress, track
from .equalise import equalised, readers
from .rounding import LARGEST_PAIR, Problem
from .walk import Moments, Walk, moments_of

State = Mapping[str, np.ndarray]

_BINS = 4096  # of a histogram of a map's values
_SHARES = np.linspace(0.5, 1, 26)  # of a map's range, to choose from
# What is cut off adds up in what an image gives, and roundings do not. Of 1, 10 and all, 10 loses
# least of v1.1 on photographs.
_COST_OF_CUTTING = 10
# How far to go from the float weights to those that make up best for what 8 bits have changed
# before, as some dozens of images tell it. The divergence of v1.1 on 636 other photographs: 0.0047
# at 0, 0.0036 at 0.5, 0.0043 at 1.
_COMPENSATION = 0.5
# Of the weights of an output, to choose from. With the last, all pairs are small enough.
_LARGEST_WEIGHTS = (127, LARGEST_PAIR // 2)


def quantise(
    config: ModelConfig,
    state: State,
    inputs: Sequence[np.ndarray] | np.ndarray,
    threads: int | None = None,
    limits: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """The constants of `onnx/quantise.py`; progress goes to standard error.

    Args:
        config: which network.
        state: its float arrays by state-dict key.
        inputs: at least one image, each as `Preprocess` makes it.
        threads: None takes one per core that the process may use.
        limits: the least and the largest value that each channel of an input can have, [3]; None
            for those of the images.
    """
    if config.data_format == "NHWC":
        config = dataclasses.replace(config, data_format="NCHW")
        inputs = [x.transpose(2, 0, 1) for x in inputs]
    low, high = limits or (
        np.min([x.min(axis=(1, 2)) for x in inputs], axis=0),
        np.max([x.max(axis=(1, 2)) for x in inputs], axis=0),
    )
    step, zero = step_and_zero(low, high)
    result = {"data/scale": step, "data/zero": zero}
    # From here on, images are in these steps.
    inputs = [(x / step[:, None, None]).astype("float32") for x in inputs]
    state = {**state, "conv1.weight": state["conv1.weight"] * step[:, None, None]}
    least, largest = _extremes(config, state, inputs)
    if config.activation == "relu":
        state, scales = equalised(config, state, largest)
        for name, scale in scales.items():
            least[name], largest[name] = least[name] / scale, largest[name] / scale
    for name, ends in _ranges(config, state, inputs, least, largest).items():
        result[f"{name}/scale"], result[f"{name}/zero"] = step_and_zero(*ends)
    _copy_ranges(config, result)
    on_grid = {**result, "data/scale": np.ones((), "float32"), "data/zero": zero[:, None, None]}
    with_floats = Walk(config, inputs, threads)
    rounded = Walk(config, inputs, threads, lambda name, x: _rounded(name, x, on_grid))
    now = dict(state)
    weighted = [layer for layer in layers(config) if layer.weight_shape]
    with Progress("rounding", len(weighted), "layers") as progress:
        for layer in weighted:
            key = key_of(layer)
            weight = state[f"{key}.weight"]
            if layer.type == "InnerProduct":
                q, steps = _linear(weight)
            else:
                with_floats.advance(layer, state)
                rounded.advance(layer, now)
                input_step = on_grid[f"{layer.bottoms[0]}/scale"]
                moments = moments_of(layer, rounded, with_floats)
                q, steps, bias = _fit(layer, weight, state[f"{key}.bias"], input_step, moments)
                now[f"{key}.weight"] = q * steps[:, None, None, None]
                now[f"{key}.bias"] = (bias * (steps * input_step)).astype("float32")
                if layer.bottoms[0] == "data":  # whose integers, in the file, start at 0
                    bias = bias - np.einsum("oihw,i->o", q.astype("int64"), zero.astype("int64"))
                most = 2**31 - 1
                result[f"{key}.bias/int32"] = np.clip(bias, -most, most).astype("int32")
            result[f"{key}.weight/int8"], result[f"{key}.weight/scale"] = q, steps
            progress.update()
    return result


def _copy_ranges(config: ModelConfig, result: dict[str, np.ndarray]) -> None:
    """Gives layers that copy integers the ranges of where they come from, or go to."""
    for layer in layers(config):
        same: dict[str, str] = {}
        if layer.type == "Concat" and not layer.flat:
            same = dict.fromkeys(layer.bottoms, layer.name)
        elif layer.type == "Pooling" and layer.kernel:
            same = {layer.name: layer.bottoms[0]}
        for name, other in same.items():
            for part in ("scale", "zero"):
                result[f"{name}/{part}"] = result[f"{other}/{part}"]


def _linear(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of a linear layer, int8, and the step of each output."""
    steps = np.abs(weight).max(axis=0) / np.float32(LARGEST_LINEAR_WEIGHT)
    steps = np.maximum(steps, np.float32(1e-20))  # of an output whose weights are all 0
    return np.rint(weight / steps).astype("int8"), steps


def _fit(
    layer: Layer,
    weight: np.ndarray,
    bias: np.ndarray,
    input_step: np.ndarray,
    moments: Moments,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights of a convolution, int8, the step of each output, and biases, int64."""
    hessian, cross = moments.hessian, moments.cross
    flat = weight.reshape(len(weight), -1).astype("float64")
    problem = Problem(flat, hessian + _COMPENSATION * (cross - hessian), hessian)
    pairs = _pairs(layer)
    largest = _LARGEST_WEIGHTS[-1:] if pairs is None else _LARGEST_WEIGHTS
    choices = [step_of_outputs(problem.target, bias, input_step, each) for each in largest]
    q, step = problem.nearest(np.stack(choices), np.array(largest), pairs)
    exact = bias + flat @ moments.mean0 - step * (q @ moments.mean)
    new_bias = np.rint(exact / (step * input_step)).astype("int64")
    return q.astype("int8").reshape(weight.shape), step, new_bias


def _pairs(layer: Layer) -> np.ndarray | None:
    """The other of each two inputs whose products processors add in 16 bits.

    These are two channels next to each other, for all that is known of engines; with an odd number
    of channels there is no such rule.
    """
    if layer.in_channels % 2:
        return None
    window = layer.kernel**2
    inputs = np.arange(layer.in_channels * window)
    return inputs + np.where(inputs // window % 2, -window, window)


def _extremes(
    config: ModelConfig, state: State, inputs: Sequence[np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The least and the largest value of each channel of a map, [C], by its name."""
    least: dict[str, np.ndarray] = {}
    largest: dict[str, np.ndarray] = {}
    for x in track(inputs, "calibrating"):
        values = activations(config, state, x)
        for name in _own_ranges(config):
            low, high = values[name].min(axis=(1, 2)), values[name].max(axis=(1, 2))
            least[name] = np.minimum(least.get(name, 0), low)
            largest[name] = np.maximum(largest.get(name, 0), high)
    return least, largest


def _own_ranges(config: ModelConfig) -> list[str]:
    """The maps whose range is not that of another one."""
    chain = layers(config)
    halves = {name for each in chain if each.type == "Concat" for name in each.bottoms}
    return [
        each.name
        for each in chain
        if not each.flat and each.type != "Pooling" and each.name not in halves
    ]


def _ranges(
    config: ModelConfig,
    state: State,
    inputs: Sequence[np.ndarray],
    least: Mapping[str, np.ndarray],
    largest: Mapping[str, np.ndarray],
) -> dict[str, tuple[float, float]]:
    """The range of each map with which its readers lose the least.

    An error in a channel counts as much as the squares of the weights that read it.
    """
    maps = _own_ranges(config)
    bounds = {name: (float(least[name].min()), float(largest[name].max())) for name in maps}
    weights = {name: _influence(config, state, name) for name in maps}
    counts = {name: np.zeros(_BINS) for name in maps}
    for x in track(inputs, "choosing ranges"):
        values = activations(config, state, x)
        for name in maps:
            low, high = bounds[name]
            y, weight = values[name], weights[name]
            bins = ((y - low) * np.float32((_BINS - 1) / max(high - low, 1e-30))).astype("int32")
            each = np.broadcast_to(weight[:, None, None], y.shape) * (y != 0)
            counts[name] += np.bincount(bins.ravel(), each.ravel(), _BINS)
    return {name: _best_range(*bounds[name], counts[name]) for name in maps}


def _influence(config: ModelConfig, state: State, name: str) -> np.ndarray:
    """What an error in a channel of a map counts, [C]."""
    [layer] = [each for each in layers(config) if each.name == name]
    read = [
        np.square(state[f"{key_of(each)}.weight"]).sum(axis=(0, 2, 3))
        for each in readers(config, name)
        if each.type == "Convolution"
    ]
    return np.sum(read, axis=0) if read else np.ones(layer.channels)


def _best_range(low: float, high: float, counts: np.ndarray) -> tuple[float, float]:
    """A share of the range from `low` to `high`, from a histogram of its values but 0."""
    values = np.linspace(low, high, _BINS)
    costs = []
    for share in _SHARES:
        step = share * (high - low) / 255
        outside = np.maximum(np.maximum(values - share * high, share * low - values), 0)
        rounding = (outside == 0) * step**2 / 12
        costs.append(counts @ (_COST_OF_CUTTING * np.square(outside) + rounding))
    share = float(_SHARES[int(np.argmin(costs))])
    return share * low, share * high


def _rounded(name: str, x: np.ndarray, constants: Mapping[str, np.ndarray]) -> np.ndarray:
    step = constants.get(f"{name}/scale")
    return x if step is None else _to_grid(x.astype("float32"), step, constants[f"{name}/zero"])


def _to_grid(x: np.ndarray, step: np.ndarray, zero: np.ndarray) -> np.ndarray:
    z = zero.astype("float32")
    return (np.clip(np.rint(x / step), -z, 255 - z) * step).astype("float32")
