"""Scores from logits, in numpy and scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..network.logits import log_softmax, top_k

TOP_K = 5  # of the second score; with fewer classes, all of them


@dataclass
class Scores:
    """Top-1, top-5 and cross-entropy over images that come batch by batch."""

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
        """float64 [4], whose sum over processes is the `Scores` of all their images."""
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


@dataclass(frozen=True)
class Predictions:
    """What a network said of images: all that scores are made of, in some 50 bytes an image.

    Attributes:
        indices: int64 [N], which lines of the list they are.
        labels: int64 [N].
        top: int32 [N, k], the classes with the largest logits, largest first; k is 5, or the
            number of classes if that is smaller.
        confidence: float32 [N], the probability of the first of them.
        loss: float64 [N], minus the logarithm of the label's probability.
    """

    indices: np.ndarray
    labels: np.ndarray
    top: np.ndarray
    confidence: np.ndarray
    loss: np.ndarray

    @staticmethod
    def of(indices: np.ndarray, logits: np.ndarray, labels: np.ndarray) -> Predictions:
        """Of a batch: int64 [N] indices, float32 [N, C] logits, int64 [N] labels."""
        rows = np.arange(len(labels))
        logs = log_softmax(logits)
        top = top_k(logits, TOP_K).astype("int32")
        confidence = np.exp(logs[rows, top[:, 0]]).astype("float32")
        return Predictions(indices, labels, top, confidence, -logs[rows, labels])

    def as_array(self, total: int) -> np.ndarray:
        """float64 [total, 4 + k], a row a line of the list, zeros for the lines that are not here.

        The sum over processes that share a list is the array of all of it.
        """
        array = np.zeros((total, 4 + self.top.shape[1]))
        columns = (np.ones(len(self)), self.labels, self.confidence, self.loss, self.top)
        array[self.indices] = np.column_stack(columns)
        return array

    @staticmethod
    def of_array(array: np.ndarray) -> Predictions:
        """From what `as_array` gives."""
        indices = np.flatnonzero(array[:, 0])
        _, labels, confidence, loss, *top = array[indices].T
        return Predictions(
            *(indices, labels.astype("int64"), np.stack(top, axis=1).astype("int32")),
            *(confidence.astype("float32"), loss),
        )

    @staticmethod
    def joined(parts: Sequence[Predictions]) -> Predictions:
        """Those of several batches, in the order of the list."""
        order = np.argsort(np.concatenate([part.indices for part in parts]), kind="stable")

        def join(field: str) -> np.ndarray:
            return np.concatenate([getattr(part, field) for part in parts])[order]

        return Predictions(*map(join, ("indices", "labels", "top", "confidence", "loss")))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def scores(self) -> Scores:
        hits = self.top == self.labels[:, None]
        top1_hits, top5_hits = int(hits[:, 0].sum()), int(hits.sum())
        return Scores(len(self), top1_hits, top5_hits, float(self.loss.sum()))

    @property
    def predicted(self) -> np.ndarray:
        """int32 [N], the class with the largest logit."""
        return self.top[:, 0]


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 [num_classes, num_classes]: how many images of a row's class got a column's."""
    cells = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


class ConfusedPair(NamedTuple):
    """Images of one class that were taken for another."""

    label: int
    predicted: int
    images: int


def confused_pairs(labels: np.ndarray, predicted: np.ndarray, limit: int) -> list[ConfusedPair]:
    """The most frequent kinds of error, `limit` at most, equal ones in the order of the ids."""
    wrong = labels != predicted
    errors = np.stack([labels[wrong], predicted[wrong]], axis=1)
    pairs, counts = np.unique(errors, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:limit]
    return [ConfusedPair(*map(int, (*pairs[i], counts[i]))) for i in order]


@dataclass(frozen=True)
class ClassReport:
    """How well each class is found. A share of nothing counts as 0.

    Attributes:
        precision, recall, f1: float64 [C].
        support, predicted: int64 [C], images that are of the class, and that were taken for it.
        macro: the means of precision, recall and F1 over the classes that have images.
        weighted: the same, each class weighted by its images.
    """

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    predicted: np.ndarray
    macro: dict[str, float]
    weighted: dict[str, float]


def class_report(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> ClassReport:
    """Precision, recall, F1 and support of every class, by scikit-learn."""
    from sklearn.metrics import precision_recall_fscore_support

    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=np.arange(num_classes), zero_division=0
    )
    shares = {"precision": precision, "recall": recall, "f1": f1}
    macro = {name: float(share[support > 0].mean()) for name, share in shares.items()}
    weighted = {name: float(np.average(share, weights=support)) for name, share in shares.items()}
    counts = np.bincount(predicted, minlength=num_classes)
    return ClassReport(precision, recall, f1, support, counts, macro, weighted)


@dataclass(frozen=True)
class Calibration:
    """Whether a network is right as often as it says (Guo et al. 2017, arXiv:1706.04599).

    Attributes:
        counts: int64 [bins], images whose confidence lies in each of the bins, which divide
            0..1 evenly; an upper edge belongs to its bin.
        confidence: float64 [bins], mean confidence of these images, NaN where there are none.
        accuracy: float64 [bins], the share of them that is right, NaN where there are none.
        error: expected calibration error: the mean distance of the two, weighted by images.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float

    def rows(self) -> list[dict[str, float | None]]:
        """A row a bin; None where it has no images."""
        bins = len(self.counts)
        return [
            {
                "above": i / bins,
                "up_to": (i + 1) / bins,
                "images": int(count),
                "confidence": float(confidence) if count else None,
                "accuracy": float(accuracy) if count else None,
            }
            for i, (count, confidence, accuracy) in enumerate(
                zip(self.counts, self.confidence, self.accuracy)
            )
        ]


def calibration(confidence: np.ndarray, correct: np.ndarray, bins: int = 15) -> Calibration:
    """Compares confidences in 0..1 with whether each prediction was right."""
    number = np.clip(np.ceil(confidence.astype("float64") * bins).astype("int64") - 1, 0, bins - 1)
    counts = np.bincount(number, minlength=bins)
    said = np.bincount(number, weights=confidence, minlength=bins)
    right = np.bincount(number, weights=correct, minlength=bins)
    with np.errstate(invalid="ignore"):
        means, accuracy = said / counts, right / counts
    return Calibration(counts, means, accuracy, float(np.abs(said - right).sum() / counts.sum()))
