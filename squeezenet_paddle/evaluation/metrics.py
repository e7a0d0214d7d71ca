"""Scores from logits, in numpy and scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..network.logits import log_softmax, softmax, top_k

TOP_K = 5  # of the second accuracy; with fewer classes, their number
_RARE, _ENOUGH, _WORSE = 1 / 3, 5, 0.1  # see `neglected_classes`


def second_k(num_classes: int) -> int:
    """The k that the accuracy `top5` has: 5, or the number of classes if that is smaller."""
    return min(TOP_K, num_classes)


@dataclass
class Scores:
    """Top-1, top-5 and cross-entropy over images that come batch by batch."""

    count: int = 0
    top1_hits: int = 0
    top5_hits: int = 0
    loss_sum: float = 0.0

    def add(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Counts a batch: float32 [N, C] logits and int64 [N] labels."""
        hits = top_k(logits, TOP_K) == labels[:, None]
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
        """The inverse of `as_array`."""
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
    """Top classes, confidence and loss of each image: all that the metrics need, in some 50 bytes.

    Attributes:
        indices: int64 [N], the images' places in the list.
        labels: int64 [N].
        top: int32 [N, k], the classes with the largest logits, largest first; k is 5, or the
            number of classes if that is smaller.
        confidence: float32 [N], the probability of the first of them, with the temperature of the
            model's calibration if it has one.
        loss: float64 [N], minus the logarithm of the label's probability, without it.
        uncalibrated: float32 [N], the confidence without it.
        familiarity: float64 [N], how much an image is like those of the class it is given; NaN
            where the model has no calibration.
    """

    indices: np.ndarray
    labels: np.ndarray
    top: np.ndarray
    confidence: np.ndarray
    loss: np.ndarray
    uncalibrated: np.ndarray
    familiarity: np.ndarray

    @staticmethod
    def from_logits(
        indices: np.ndarray,
        logits: np.ndarray,
        labels: np.ndarray,
        temperature: float = 1.0,
        familiarity: np.ndarray | None = None,
    ) -> Predictions:
        """The predictions for a batch.

        Args:
            indices: int64 [N], places in the list.
            logits: float32 [N, C].
            labels: int64 [N].
            temperature: of the model's calibration.
            familiarity: float64 [N]; None where there is no calibration.
        """
        rows = np.arange(len(labels))
        logs = log_softmax(logits)
        top = top_k(logits, TOP_K).astype("int32")
        plain = np.exp(logs[rows, top[:, 0]]).astype("float32")
        confidence = plain
        if temperature != 1.0:
            confidence = softmax(logits / temperature)[rows, top[:, 0]].astype("float32")
        if familiarity is None:
            familiarity = np.full(len(labels), np.nan)
        return Predictions(
            indices, labels, top, confidence, -logs[rows, labels], plain, familiarity
        )

    def as_array(self, total: int) -> np.ndarray:
        """float64 [total, 6 + k], one row per image of the list, zeros for images not in here.

        For processes that share a list, the sum of their arrays describes the whole list.
        """
        array = np.zeros((total, 6 + self.top.shape[1]))
        shares = (self.confidence, self.loss, self.uncalibrated, self.familiarity)
        columns = (np.ones(len(self)), self.labels, *shares, self.top)
        array[self.indices] = np.column_stack(columns)
        return array

    @staticmethod
    def from_array(array: np.ndarray) -> Predictions:
        """The inverse of `as_array`."""
        indices = np.flatnonzero(array[:, 0])
        _, labels, confidence, loss, uncalibrated, familiarity, *top = array[indices].T
        return Predictions(
            *(indices, labels.astype("int64"), np.stack(top, axis=1).astype("int32")),
            *(confidence.astype("float32"), loss, uncalibrated.astype("float32"), familiarity),
        )

    @staticmethod
    def concatenate(parts: Sequence[Predictions]) -> Predictions:
        """The predictions of several batches as one, in the order of the list."""
        columns = [np.concatenate(column) for column in zip(*(vars(p).values() for p in parts))]
        order = np.argsort(columns[0], kind="stable")
        return Predictions(*(column[order] for column in columns))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def scores(self) -> Scores:
        """Top-1, top-5 and loss."""
        hits = self.top == self.labels[:, None]
        top1_hits, top5_hits = int(hits[:, 0].sum()), int(hits.sum())
        return Scores(len(self), top1_hits, top5_hits, float(self.loss.sum()))

    @property
    def predicted(self) -> np.ndarray:
        """int32 [N], the class with the largest logit."""
        return self.top[:, 0]


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 [num_classes, num_classes]: images by class (rows) and predicted class (columns)."""
    cells = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


class ConfusedPair(NamedTuple):
    """How many images of one class were classified as another."""

    label: int
    predicted: int
    images: int


def confused_pairs(labels: np.ndarray, predicted: np.ndarray, limit: int) -> list[ConfusedPair]:
    """The `limit` most frequent confusions, equally frequent ones in the order of their ids."""
    wrong = labels != predicted
    errors = np.stack([labels[wrong], predicted[wrong]], axis=1)
    pairs, counts = np.unique(errors, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:limit]
    return [ConfusedPair(*map(int, (*pairs[i], counts[i]))) for i in order]


@dataclass(frozen=True)
class ClassReport:
    """Precision, recall and F1 of each class; 0 where they are undefined.

    Attributes:
        precision, recall, f1: float64 [C].
        support, predicted: int64 [C], images labelled with the class, and classified as it.
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


def neglected_classes(support: np.ndarray, recall: np.ndarray) -> np.ndarray:
    """Rare classes that are recognised worse, which training with balanced classes may help.

    They have at most a third as many images as the largest class, but at least five, and a recall
    10 points below the mean of all classes.

    Args:
        support: int64 [C], images of each class.
        recall: float64 [C], of any value where a class has no images.

    Returns:
        Class ids, ascending.
    """
    rare = (support >= _ENOUGH) & (support <= _RARE * support.max())
    return np.flatnonzero(rare & (recall < recall[support > 0].mean() - _WORSE))


@dataclass(frozen=True)
class Calibration:
    """How far confidence and accuracy agree (Guo et al. 2017, arXiv:1706.04599).

    Attributes:
        counts: int64 [bins], images by confidence, in bins that divide 0..1 evenly; the upper
            edge belongs to a bin.
        confidence: float64 [bins], mean confidence of a bin's images, NaN where it is empty.
        accuracy: float64 [bins], the share of them classified correctly, NaN where it is empty.
        error: expected calibration error: the mean distance of the two, weighted by images.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float

    def rows(self) -> list[dict[str, float | None]]:
        """One row per bin, with None for the means of an empty bin."""
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
    """Compares the confidence of predictions, 0..1, with whether they were correct (bool)."""
    number = np.clip(np.ceil(confidence.astype("float64") * bins).astype("int64") - 1, 0, bins - 1)
    counts = np.bincount(number, minlength=bins)
    confidences = np.bincount(number, weights=confidence, minlength=bins)
    hits = np.bincount(number, weights=correct, minlength=bins)
    with np.errstate(invalid="ignore"):
        means, accuracy = confidences / counts, hits / counts
    error = float(np.abs(confidences - hits).sum() / counts.sum())
    return Calibration(counts, means, accuracy, error)


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
    """The share of pairs of a known and an unknown image in which the known one has more.

    Args:
        known, unknown: scores of the images; ties count half.
    """
    from sklearn.metrics import roc_auc_score

    labels = np.repeat([1, 0], [len(known), len(unknown)])
    return float(roc_auc_score(labels, np.concatenate([known, unknown])))
