"""SqueezeNet's forward pass in plain numpy, float64, written from the authors' prototxt files."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

State = dict[str, np.ndarray]


def conv(x: np.ndarray, state: State, name: str, stride: int = 1, pad: int = 0) -> np.ndarray:
    """A convolution of [C, H, W]."""
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    windows = sliding_window_view(x, weight.shape[2:], axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("chwij,ocij->ohw", windows, weight.astype("float64")) + bias[:, None, None]


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def pool(x: np.ndarray) -> np.ndarray:
    """A 3x3 max pool with stride 2 whose last window may lie partly outside."""
    height, width = (int(np.ceil((n - 3) / 2)) + 1 for n in x.shape[1:])
    result = np.empty((len(x), height, width))
    for i in range(height):
        for j in range(width):
            result[:, i, j] = x[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max(axis=(1, 2))
    return result


def fire(x: np.ndarray, state: State, name: str) -> np.ndarray:
    s = relu(conv(x, state, f"{name}.squeeze1x1"))
    left = relu(conv(s, state, f"{name}.expand1x1"))
    return np.concatenate([left, relu(conv(s, state, f"{name}.expand3x3", pad=1))])


def squeezenet1_0(x: np.ndarray, state: State) -> np.ndarray:
    """Logits of one image [3, H, W]."""
    x = pool(relu(conv(x, state, "conv1", stride=2)))
    x = fire(x, state, "fire2")
    x = fire(x, state, "fire3")
    x = pool(fire(x, state, "fire4"))
    x = fire(x, state, "fire5")
    x = fire(x, state, "fire6")
    x = fire(x, state, "fire7")
    x = pool(fire(x, state, "fire8"))
    x = fire(x, state, "fire9")
    return relu(conv(x, state, "conv10", pad=1)).mean(axis=(1, 2))


def squeezenet1_1(x: np.ndarray, state: State) -> np.ndarray:
    """Logits of one image [3, H, W]."""
    x = pool(relu(conv(x, state, "conv1", stride=2)))
    x = fire(x, state, "fire2")
    x = pool(fire(x, state, "fire3"))
    x = fire(x, state, "fire4")
    x = pool(fire(x, state, "fire5"))
    x = fire(x, state, "fire6")
    x = fire(x, state, "fire7")
    x = fire(x, state, "fire8")
    x = fire(x, state, "fire9")
    return relu(conv(x, state, "conv10")).mean(axis=(1, 2))
