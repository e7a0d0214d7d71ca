"""Networks for the tests: weights in which every layer counts, and judges of what is computed.

The judge of gradients is the network itself in float64, which finite differences judge in turn.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from numpy.lib.stride_tricks import sliding_window_view

from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.familiarity import Calibration, Familiarity
from squeezenet_paddle.model_dir import ModelInfo, load_network, read_info, write_model_dir
from squeezenet_paddle.network.config import (
    FIRES,
    VERSIONS,
    ModelConfig,
    layers,
)
from squeezenet_paddle.network.heads import HEADS
from squeezenet_paddle.network.model import SqueezeNet, load_state
from squeezenet_paddle.network.weights import key_of

State = dict[str, np.ndarray]

VARIANTS = [
    ModelConfig("1.1", 5),
    ModelConfig("1.0", 5),
    ModelConfig("1.1", 5, head="conv_fc"),
    ModelConfig("1.1", 5, head="conv_bn", activation="elu"),
    ModelConfig("1.0", 5, bypass="simple", data_format="NHWC"),
    ModelConfig("1.1", 5, bypass="complex", head="conv_fc"),
    ModelConfig("1.0", 5, bypass="complex", activation="elu"),
]


def name_of(config: ModelConfig) -> str:
    """The id of a test."""
    return "-".join(str(v) for v in (config.version, config.bypass, config.head, config.activation))


# --- networks of random weights


def random_state(config: ModelConfig, seed: int = 0) -> State:
    """Every array of a network; maps keep their size from layer to layer."""
    rng = np.random.default_rng(seed)
    state = {}
    for layer in layers(config):
        key = key_of(layer)
        if layer.weight_shape:
            fan_in = np.prod(layer.weight_shape[1:])
            weight = rng.normal(0, np.sqrt(2 / fan_in), layer.weight_shape)
            state[f"{key}.weight"] = weight.T if layer.type == "InnerProduct" else weight
        elif layer.type == "BatchNorm":
            for name in ("weight", "_variance"):
                state[f"{key}.{name}"] = rng.uniform(0.5, 2, layer.channels)
            state[f"{key}._mean"] = rng.normal(0, 0.1, layer.channels)
        else:
            continue
        state[f"{key}.bias"] = rng.normal(0, 0.1, layer.channels)
    return {key: np.ascontiguousarray(value, "float32") for key, value in state.items()}


def network_of(config: ModelConfig, state: State | None = None) -> SqueezeNet:
    """A network in evaluation mode with given weights, or random ones."""
    network = SqueezeNet(config)
    load_state(network, random_state(config) if state is None else state, "weights of a test")
    network.eval()
    return network


def build(num_classes: int = 5, seed: int = 0, **variant: Any) -> SqueezeNet:
    """A network of random weights in evaluation mode."""
    config = ModelConfig(num_classes=num_classes, **variant)
    return network_of(config, random_state(config, seed))


def state_of(network: SqueezeNet) -> State:
    """Arrays by state-dict key."""
    return {key: tensor.numpy() for key, tensor in network.state_dict().items()}


def small_model_dir(path: Path, config: ModelConfig, crop_size: int = 40, seed: int = 0) -> Path:
    """A model directory of a random network, whose images are small."""
    preprocess = Preprocess(
        resize_size=crop_size + 8,
        crop_size=crop_size,
        scale=1 / 64,
        mean=(1.5, 1.75, 2.0),
        data_format=config.data_format,
    )
    names = [f"class {i}" for i in range(config.num_classes)]
    write_model_dir(path, ModelInfo(config, preprocess, names), random_state(config, seed))
    return path


def small_calibration(
    classes: int, groups: int = 4, threshold: float = 0.0, axes: int = 3
) -> Calibration:
    """A calibration of random numbers; without `axes` one of an earlier version."""
    rng = np.random.default_rng(classes)
    known = groups if axes else 0
    terms = 2 + sum(count > 0 for count in (groups, axes, known))
    familiarity = Familiarity(
        rng.integers(0, 256, (classes, 2, 512)).astype("uint8"),
        rng.integers(-127, 128, (groups, 512)).astype("int8"),
        np.array(1e-3, "float32"),
        rng.integers(1, 9, groups).astype("int32"),
        rng.uniform(0, 1, (classes, groups)).astype("float32"),
        rng.normal(0, 1, (axes, 512)).astype("float32"),
        rng.normal(0, 1, (classes, axes)).astype("float32"),
        rng.normal(0, 1, axes).astype("float32"),
        rng.uniform(0, 1, axes).astype("float32"),
        rng.uniform(0, 1, known).astype("float32"),
        rng.normal(0, 1, (classes, terms)).astype("float32"),
        rng.uniform(0.5, 2, (classes, terms)).astype("float32"),
    )
    return Calibration(2.0, threshold, familiarity, 40, 0.05, (0.1, 0.05))


def calibrate_dir(path: Path, threshold: float = 0.0) -> Path:
    """Gives a model directory a calibration of random numbers."""
    info = read_info(path)
    calibration = small_calibration(info.network.num_classes, threshold=threshold)
    state = load_network(path, info).state_dict()
    write_model_dir(path, dataclasses.replace(info, calibration=calibration), state)
    return path


# --- inputs and logits


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    """Inputs in the range of Caffe's preprocessing, float32."""
    return np.random.default_rng(seed).uniform(-120, 150, shape).astype("float32")


def pixels(config: ModelConfig, count: int, size: int) -> np.ndarray:
    """Small inputs of a network, float32 in its layout."""
    shape = (count, 3, size, size) if config.data_format == "NCHW" else (count, size, size, 3)
    return np.random.default_rng(count).uniform(-2, 2, shape).astype("float32")


def logits_of(network: SqueezeNet, inputs: np.ndarray) -> np.ndarray:
    """By the network itself, as `model.py` spells it."""
    with paddle.no_grad():
        return network(paddle.to_tensor(inputs)).numpy()


def assert_same(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    """Equal to a share of the largest value."""
    assert found.shape == expected.shape
    assert np.ptp(expected) > 1e-3  # else anything would do
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


# --- gradients


def take_gradients(network: SqueezeNet) -> State:
    """The gradients of all parameters that have one; they are cleared."""
    gradients = {}
    for key, parameter in network.named_parameters():
        if parameter.grad is not None:
            gradients[key] = parameter.grad.numpy()
        parameter.clear_gradient(False)
    return gradients


def in_double(network: SqueezeNet) -> SqueezeNet:
    """The same network in float64, an exact judge of float32."""
    double = SqueezeNet(network.config)
    load_state(double, state_of(network), "weights of a test")
    double.train() if network.training else double.eval()
    return double.to(dtype="float64")


def clear_cut_state(config: ModelConfig, inputs: np.ndarray) -> State:
    """Weights whose gradients for these inputs do not depend on how a processor rounds.

    A ReLU has a kink at 0, and a max pool where two values of a window are equal. A value nearer to
    a kink than float32 resolves falls on either side of it, depending on the order of a sum, and
    entries of the gradient jump. So the bias of every channel is moved until 0 lies in the middle
    of a gap between its values, and filters whose maps have nearly equal maxima are drawn again.

    Args:
        config: which network.
        inputs: float32, in the network's layout.
    """
    rng = np.random.default_rng(0)
    state = random_state(config)
    # A batch normalisation enlarges the errors of a channel in which few values are active.
    move_bias = functools.partial(_move_bias, 4 if HEADS[config.head].normalises_batches else 8)
    convolution_before = {pool: name for name, pool in VERSIONS[config.version].pools.items()}
    for _ in range(50):
        double = in_double(network_of(config, state))
        sublayers = dict(double.named_sublayers())
        for layer in layers(config):
            if layer.activated:
                sublayers[key_of(layer)].register_forward_post_hook(move_bias)
        maps_before: dict[str, np.ndarray] = {}
        for pool in convolution_before:
            sublayers[pool].register_forward_pre_hook(functools.partial(_record, maps_before, pool))
        double.train()
        with paddle.no_grad():
            double(paddle.to_tensor(inputs.astype("float64")))
        biases = {key: value for key, value in state_of(double).items() if key.endswith(".bias")}
        state.update({key: value.astype("float32") for key, value in biases.items()})
        redrawn = False
        for pool, maps in maps_before.items():
            for channel in _tied_channels(maps, config, pool):
                redrawn = True
                name = convolution_before[pool]
                if name in FIRES:
                    expand, channel = divmod(channel, FIRES[name][1])
                    name += (".expand1x1", ".expand3x3")[expand]
                weight = state[f"{name}.weight"][channel]
                weight[:] = rng.normal(0, np.sqrt(2 / weight.size), weight.shape)
        if not redrawn:
            return state
    raise AssertionError("no weights were found that are clear of all kinks")


def _move_bias(
    least: int, layer: paddle.nn.Layer, inputs: tuple[paddle.Tensor], outputs: paddle.Tensor
) -> paddle.Tensor:
    """Moves the bias a little, so that 0 lies in a wide gap between the values of a channel.

    At least one in `least` values comes to lie on either side of 0.
    """
    channels = len(layer.bias)
    is_nchw = outputs.ndim == 4 and outputs.shape[1] == channels
    values = np.moveaxis(outputs.numpy(), 1 if is_nchw else -1, 0).reshape(channels, -1)
    values.sort(axis=1)
    gaps = np.diff(values, axis=1)
    count = values.shape[1]
    share = count // least
    rank = (values < 0).sum(axis=1).clip(share, count - share).clip(1, count - 1)
    new_rank = np.arange(1, count)
    is_near = (np.abs(new_rank - rank[:, None]) <= count // 8) & (
        np.abs(2 * new_rank - count) <= count - 2 * share
    )
    rows, at = np.arange(channels), np.where(is_near, gaps, gaps / 1000).argmax(axis=1)
    at = np.where(4 * gaps[rows, rank - 1] > gaps[rows, at], rank - 1, at)  # may stay there
    shift = paddle.to_tensor(-(values[rows, at] + values[rows, at + 1]) / 2)
    layer.bias.set_value(layer.bias + shift)
    return outputs + (shift.reshape([-1, 1, 1]) if is_nchw else shift)


def _record(
    values: dict[str, np.ndarray], name: str, layer: paddle.nn.Layer, inputs: tuple[paddle.Tensor]
) -> None:
    values[name] = inputs[0].numpy()


def _tied_channels(values: np.ndarray, config: ModelConfig, pool: str) -> np.ndarray:
    """The channels in which the two largest values of a window that gets a gradient are close."""
    if config.data_format == "NHWC":
        values = values.transpose(0, 3, 1, 2)
    largest = _two_largest(values)
    flat_below = {"relu": 0, "elu": -0.95}[config.activation]
    gets_gradient = largest[..., 1] > flat_below
    if config.bypass == "complex" and pool != "pool1":  # not all goes through an activation
        gets_gradient[:] = True
    close = largest[..., 1] - largest[..., 0] < 5e-5 * values.std()
    return np.flatnonzero((gets_gradient & close).any(axis=(0, 2, 3)))


def _two_largest(values: np.ndarray) -> np.ndarray:
    """The two largest values of each window of a pool, [N, C, H, W, 2], of maps in NCHW."""
    odd = [(0, 1 - n % 2) for n in values.shape[2:]]
    padded = np.pad(values, [(0, 0), (0, 0), *odd], constant_values=-1e9)
    windows = sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    return np.partition(windows.reshape(*windows.shape[:4], 9), (7, 8))[..., 7:]


def clearest(network: SqueezeNet, inputs: np.ndarray, mask: paddle.Tensor | None) -> np.ndarray:
    """The order of images by how far they lie from kinks of the network, the clearest first.

    For weights that cannot be chosen as `clear_cut_state` does; ReLU and NCHW only.
    """
    double = in_double(network)
    sublayers = dict(double.named_sublayers())
    margins = np.full(len(inputs), np.inf)

    def add(distances: np.ndarray, values: np.ndarray) -> None:
        nearest = distances.reshape(len(margins), -1).min(axis=1)
        np.minimum(margins, nearest / values.std(), out=margins)

    def at_activation(layer: paddle.nn.Layer, _: object, outputs: paddle.Tensor) -> None:
        add(np.abs(outputs.numpy()), outputs.numpy())

    def at_pool(layer: paddle.nn.Layer, inputs: tuple[paddle.Tensor]) -> None:
        second, largest = np.moveaxis(_two_largest(inputs[0].numpy()), -1, 0)
        add(np.where(largest > 0, largest - second, np.inf), inputs[0].numpy())

    for layer in layers(network.config):
        if layer.activated:
            sublayers[key_of(layer)].register_forward_post_hook(at_activation)
    for pool in VERSIONS[network.config.version].pools:
        sublayers[pool].register_forward_pre_hook(at_pool)
    with paddle.no_grad():
        double(paddle.to_tensor(inputs.astype("float64")), mask)
    return np.argsort(-margins)
