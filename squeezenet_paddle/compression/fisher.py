"""How much each weight matters to what the network says: the Fisher information, in numpy.

A change d of a weight changes the network's probabilities by a Kullback-Leibler divergence of about
d ** 2 / 2 times its Fisher information, the mean square of the gradient of log p(class) for
classes drawn from p. Rounding errors are independent of each other, so the sums over
weights are what counts, and few images give these well. As a layer's bias is corrected for what its
weights change on average, gradients are those for inputs without their mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from ..network.config import Layer, ModelConfig, layers
from ..network.logits import softmax
from ..network.numpy_forward import activations, batch_norm, columns
from ..network.weights import key_of

State = Mapping[str, np.ndarray]


def fisher_information(
    config: ModelConfig, state: State, inputs: Sequence[np.ndarray], seed: int
) -> dict[str, np.ndarray]:
    """The Fisher information of the weights of convolutions and linear layers.

    Args:
        config: which network.
        state: arrays by state-dict key.
        inputs: images, each as `Preprocess` makes it.
        seed: of the random directions in which gradients are taken.

    Returns:
        float64 [outputs, inputs * kernel ** 2] by the layer's name.
    """
    chain = layers(config)
    weighted = [each for each in chain if each.weight_shape]
    means = {each.name: np.zeros(1) for each in weighted}
    for x in inputs:
        values = activations(config, state, x)
        for each in weighted:
            reads = inputs_of(each, values[each.bottoms[0]])
            means[each.name] = means[each.name] + reads.mean(axis=1, dtype="float64") / len(inputs)
    sums = {each.name: np.zeros(1) for each in weighted}
    for count, x in enumerate(inputs):
        values = activations(config, state, x)
        p = softmax(values[chain[-1].name])
        # The covariance of these is that of the gradients of log p with regard to the logits.
        signs = np.random.default_rng((seed, count)).choice([-1.0, 1.0], len(p))
        root = np.sqrt(p)
        upper = signs * root - p * (signs @ root)
        for name, gradient in _gradients(config, state, values, means, upper.astype("float32")):
            sums[name] = sums[name] + np.square(gradient, dtype="float64") / len(inputs)
    return sums


def inputs_of(layer: Layer, x: np.ndarray) -> np.ndarray:
    """What the outputs of a layer are linear in, one output place a column."""
    return columns(x, layer) if layer.type == "Convolution" else x[:, None]


def _gradients(
    config: ModelConfig,
    state: State,
    values: Mapping[str, np.ndarray],
    means: Mapping[str, np.ndarray],
    upper: np.ndarray,
) -> Iterator[tuple[str, np.ndarray]]:
    """Gradients of the weights of each layer, from that of the logits, backwards."""
    chain = layers(config)
    of_outputs: dict[str, np.ndarray] = {chain[-1].name: upper}
    for layer in reversed(chain):
        dy = of_outputs.pop(layer.name)
        y = values[layer.name]
        if layer.activated:
            dy = dy * ((y > 0) if config.activation == "relu" else np.where(y > 0, 1, y + 1))
        xs = [values[name] for name in layer.bottoms]
        if layer.weight_shape:
            rows = dy.reshape(len(dy), -1)
            mean = means[layer.name].astype("float32")
            yield layer.name, rows @ inputs_of(layer, xs[0]).T - np.outer(rows.sum(axis=1), mean)
        if layer.bottoms == ("data",):
            return
        for name, dx in zip(layer.bottoms, _backward(layer, xs, y, dy, state)):
            of_outputs[name] = of_outputs[name] + dx if name in of_outputs else dx


def _backward(
    layer: Layer, xs: list[np.ndarray], y: np.ndarray, dy: np.ndarray, state: State
) -> list[np.ndarray]:
    """Gradients of a layer's inputs from that of its output before the activation."""
    key, x = key_of(layer), xs[0]
    if layer.type == "Convolution":
        weight = state[f"{key}.weight"]
        windows = weight.reshape(len(weight), -1).T @ dy.reshape(len(dy), -1)
        return [_summed(windows, x.shape, dy.shape[1:], layer)]
    if layer.type == "InnerProduct":
        return [state[f"{key}.weight"] @ dy]
    if layer.type == "Concat":
        return np.split(dy, np.cumsum([len(each) for each in xs])[:-1])
    if layer.type == "Eltwise":
        return [dy, dy]
    if layer.type == "BatchNorm":
        scale = batch_norm(state, key)[0]
        return [dy * (scale if layer.flat else scale[:, None, None])]
    if not layer.kernel:
        return [np.broadcast_to(dy[:, None, None] / x[0].size, x.shape)]
    return [_max_pool_backward(x, y, dy)]


def _summed(
    windows: np.ndarray, shape: tuple[int, ...], size: tuple[int, ...], layer: Layer
) -> np.ndarray:
    """The inverse of `columns`, in which overlapping windows add up."""
    k, pad, step = layer.kernel, layer.pad, layer.stride
    channels, height, width = shape
    h, w = size
    parts = windows.reshape(channels, k, k, h, w)
    dx = np.zeros((channels, height + 2 * pad, width + 2 * pad), "float32")
    for i in range(k):
        for j in range(k):
            dx[:, i : i + step * h : step, j : j + step * w : step] += parts[:, i, j]
    return dx[:, pad : pad + height, pad : pad + width]


def _max_pool_backward(x: np.ndarray, y: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """3x3, stride 2: each gradient goes to the first of the largest values of its window."""
    h, w = y.shape[1:]
    padded = np.full((len(x), 2 * h + 1, 2 * w + 1), -np.inf, "float32")
    padded[:, : x.shape[1], : x.shape[2]] = x
    dx, free = np.zeros_like(padded), np.ones(y.shape, bool)
    for i in range(3):
        for j in range(3):
            window = (slice(None), slice(i, i + 2 * h, 2), slice(j, j + 2 * w, 2))
            here = free & (padded[window] == y)
            dx[window] += here * dy
            free &= ~here
    return dx[:, : x.shape[1], : x.shape[2]]
