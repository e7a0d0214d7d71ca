"""What logits say: probabilities, and the classes with the largest ones. In numpy."""

from __future__ import annotations

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Logarithm of the softmax over the last axis, in float64: [N, C] -> [N, C]."""
    shifted = logits.astype("float64") - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in float64: [N, C] -> [N, C]."""
    return np.exp(log_softmax(logits))


def top_k(logits: np.ndarray, k: int) -> np.ndarray:
    """Ids of the `k` largest logits, largest first, equal ones by id: [N, C] -> int64 [N, k].

    `k` is clamped to the number of classes.
    """
    return np.argsort(-logits, axis=1, kind="stable")[:, :k]
