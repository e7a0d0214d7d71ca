"""The linear discriminant of a few images' features, as the weights of a head. No Paddle here.

It needs no learning rate and no luck, and on folders of up to some 50 images a class it classifies
other images about as well as the best of the trained heads (`benchmarks/small_folders.py`).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

SHRINKAGE = 0.1  # of the covariance, towards a multiple of the identity of the same trace
MARGIN = 4.0  # in nats, between the label and the next class of a training image, on average


def discriminant(
    features: np.ndarray, labels: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weight [F, C] and bias [C] of Gaussian classes of one covariance, all equally probable.

    Where there are fewer images than features, the covariance within the classes has at most the
    rank N, so that its inverse, shrunk, takes matrices of N x N alone (the identity of Woodbury).

    Args:
        features: [N, F].
        labels: int64 [N], with each class at least once.
        num_classes: C, at least 2.
    """
    x = features.astype("float64")
    count = len(x)
    means = np.stack([x[labels == label].mean(axis=0) for label in range(num_classes)])
    within = (x - means[labels]) / np.sqrt(count)
    least = max(SHRINKAGE * np.square(within).sum() / count, 1e-12)
    if count < x.shape[1]:
        gram = within @ within.T + least / (1 - SHRINKAGE) * np.eye(count)
        weight = (means - means @ within.T @ np.linalg.solve(gram, within)).T / least
    else:
        covariance = (1 - SHRINKAGE) * within.T @ within + least * np.eye(x.shape[1])
        weight = np.linalg.solve(covariance, means.T)
    bias = -0.5 * np.einsum("cf,fc->c", means, weight)
    weight, bias = (each - each.mean(axis=-1, keepdims=True) for each in (weight, bias))
    logits = x @ weight + bias
    own = logits[np.arange(count), labels]
    logits[np.arange(count), labels] = -np.inf
    margin = np.abs(own - logits.max(axis=1)).mean()
    scale = MARGIN / margin if margin > 0 else 1.0
    return weight * scale, bias * scale


def with_discriminant(
    state: Mapping[str, np.ndarray], weight: np.ndarray, bias: np.ndarray
) -> dict[str, np.ndarray]:
    """The state of a network whose head of two layers gives the logits x @ weight + bias.

    Two hidden units stand for each class, as relu(z) - relu(-z) is z; the others are not read.

    Args:
        state: of a network with the head `compact` or `multiscale` and ReLUs.
        weight, bias: [F, C] and [C], for what the hidden layer reads; it has 2 C units or more.
    """
    result = {key: np.array(value) for key, value in state.items()}
    classes = len(bias)
    identity = np.eye(classes)
    result["fc10.weight"][:, : 2 * classes] = np.concatenate([weight, -weight], axis=1)
    result["fc10.bias"][: 2 * classes] = np.concatenate([bias, -bias])
    result["fc.weight"][:] = 0
    result["fc.weight"][: 2 * classes] = np.concatenate([identity, -identity])
    result["fc.bias"][:] = 0
    return result
