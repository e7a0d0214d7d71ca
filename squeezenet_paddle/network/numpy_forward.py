"""The network in plain numpy, straight from the list of layers: slow, and easy to check.

When an engine is loaded, its outputs are compared with these.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .config import Layer, ModelConfig, layers
from .weights import BATCH_NORM_EPSILON, key_of


def activations(
    config: ModelConfig, state: Mapping[str, np.ndarray], x: np.ndarray
) -> dict[str, np.ndarray]:
    """The output of every layer for one image, after its activation.

    Args:
        config: which network.
        state: arrays by state-dict key.
        x: float32 [3, H, W], or [H, W, 3] for a network of NHWC.

    Returns:
        float32 [C, h, w], or [C] of flat layers, by the layer's name, and the input as "data". The
        last output, [num_classes], holds the logits.
    """
    values = {"data": x.transpose(2, 0, 1) if config.data_format == "NHWC" else x}
    for layer in layers(config):
        inputs = [values[name] for name in layer.bottoms]
        values[layer.name] = activated(layer, config, linear_output(layer, inputs, state))
    return values


def logits(config: ModelConfig, state: Mapping[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """The logits of one image, float32 [num_classes]; see `activations`."""
    values = activations(config, state, x)
    return values[layers(config)[-1].name]


def activated(layer: Layer, config: ModelConfig, y: np.ndarray) -> np.ndarray:
    """The output of a layer after its activation, if it has one."""
    if not layer.activated:
        return y
    return np.maximum(y, 0) if config.activation == "relu" else _elu(y)


def linear_output(
    layer: Layer, inputs: list[np.ndarray], state: Mapping[str, np.ndarray]
) -> np.ndarray:
    """The output of a layer for one image, before its activation."""
    key, x = key_of(layer), inputs[0]
    if layer.type == "Convolution":
        return _convolution(x, state[f"{key}.weight"], state[f"{key}.bias"], layer)
    if layer.type == "Pooling":
        return _max_pool(x) if layer.kernel else x.mean(axis=(1, 2))
    if layer.type == "Concat":
        return np.concatenate(inputs)
    if layer.type == "Eltwise":
        return inputs[0] + inputs[1]
    if layer.type == "InnerProduct":
        return x @ state[f"{key}.weight"] + state[f"{key}.bias"]
    scale, shift = (each if layer.flat else each[:, None, None] for each in batch_norm(state, key))
    return x * scale + shift


def batch_norm(state: Mapping[str, np.ndarray], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Scale and shift of each channel that equal a batch normalisation in evaluation mode."""
    scale = state[f"{key}.weight"] / np.sqrt(state[f"{key}._variance"] + BATCH_NORM_EPSILON)
    return scale, state[f"{key}.bias"] - scale * state[f"{key}._mean"]


def _convolution(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, layer: Layer) -> np.ndarray:
    product = weight.reshape(len(weight), -1) @ columns(x, layer) + bias[:, None]
    return product.reshape(-1, *(layer.output_size(n) for n in x.shape[1:]))


def columns(x: np.ndarray, layer: Layer) -> np.ndarray:
    """The windows that a convolution reads, one a column: [C, H, W] -> [C * kernel ** 2, h * w]."""
    pad, step, k = layer.pad, layer.stride, layer.kernel
    if pad:
        x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    if (step, k) == (1, 1):
        return x.reshape(len(x), -1)
    windows = sliding_window_view(x, (k, k), axis=(1, 2))[:, ::step, ::step]
    height, width = windows.shape[1:3]
    return windows.transpose(0, 3, 4, 1, 2).reshape(-1, height * width)


def _max_pool(x: np.ndarray) -> np.ndarray:
    """3x3, stride 2; the last windows may lie partly outside."""
    odd = [(0, 1 - n % 2) for n in x.shape[1:]]
    x = np.pad(x, [(0, 0), *odd], constant_values=-np.inf)
    rows = np.maximum(np.maximum(x[:, :-2:2], x[:, 1:-1:2]), x[:, 2::2])
    return np.maximum(np.maximum(rows[:, :, :-2:2], rows[:, :, 1:-1:2]), rows[:, :, 2::2])


def _elu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def reference_image(size: int) -> np.ndarray:
    """Smoothly varying colours, uint8 [size, size, 3]: more like a photograph than noise is."""
    patches = np.random.default_rng(0).integers(0, 256, (8, 8, 3), "uint8")
    return cv2.resize(patches, (size, size), interpolation=cv2.INTER_CUBIC)
