"""Scores from logits, in numpy."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass
class Scores:
    """Top-1, top-5 and cross-entropy over pictures that come batch by batch."""

    count: int = 0
    top1_hits: int = 0
    top5_hits: int = 0
    loss_sum: float = 0.0

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Counts a batch: float32 [N, C] logits and int64 [N] labels."""
        hits = top_k(logits, 5) == labels[:, None]
        self.count += len(labels)
        self.top1_hits += int(hits[:, 0].sum())
        self.top5_hits += int(hits.sum())
        self.loss_sum -= float(log_softmax(logits)[np.arange(len(labels)), labels].sum())

    def as_array(self) -> np.ndarray:
        """float64 [4], whose sum over processes is the `Scores` of all their pictures."""
        values = [self.count, self.top1_hits, self.top5_hits, self.loss_sum]
        return np.array(values, "float64")

    @staticmethod
    def of_array(values: np.ndarray) -> Scores:
        """From what `as_array` gives."""
        count, top1_hits, top5_hits, loss_sum = values.tolist()
        return Scores(int(count), int(top1_hits), int(top5_hits), loss_sum)

    def summary(self) -> dict[str, float]:
        """Shares in 0..1 and the mean loss in nats."""
        return {
            "images": self.count,
            "top1": self.top1_hits / self.count,
            "top5": self.top5_hits / self.count,
            "loss": self.loss_sum / self.count,
        }
