"""Labels that look wrong: what the other images say of each image's class.

Each image is classified by a model that has not seen it (nor its duplicates), a linear discriminant
fitted on the rest. A second one may be fitted to what the image scores in the classes of a
pretrained network; then the probabilities are a mixture of both, with the shares that make the
labels most probable. Where the label is improbable and another class is at least as probable as it
usually is for its own images, the label is suspected: confident learning (Northcutt et al.,
arXiv:1911.00068, section 3.1).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from ..network.logits import softmax

FOLDS = 10
SHRINKAGE = 0.1  # of the covariance towards a multiple of the identity
LEAST = 3  # groups of images that a class needs, for its labels to be judged
_MOST_MISTAKEN = 0.7  # of the mistakes of guessing; with more, the features tell too little
_SUSPECTED = 0.5  # probability that a label is wrong
_ROUNDS = 2  # in the second one, nothing is learnt from labels that the first one suspects


@dataclass(frozen=True)
class Labels:
    """What the images say of their labels.

    Attributes:
        probabilities: float32 [N, C], of the classes, from models without the image; the row is
            the prior where a class has too few images to tell.
        wrong: float64 [N], the probability that the label is wrong; 0 where it cannot be judged.
        proposed: int64 [N], the most probable class among those as probable as they usually are.
        suspects: int64 [S], the images whose label looks wrong, the most certain first.
        error_rate: the estimated share of wrong labels.
    """

    probabilities: np.ndarray
    wrong: np.ndarray
    proposed: np.ndarray
    suspects: np.ndarray
    error_rate: float

    def renumbered(self, indices: np.ndarray, labels: np.ndarray) -> Labels:
        """The same with image i as `indices[i]` of `labels`; the others are not judged."""
        classes = self.probabilities.shape[1]
        probabilities = np.full((len(labels), classes), 1 / classes, "float32")
        wrong, proposed = np.zeros(len(labels)), labels.copy()
        probabilities[indices], wrong[indices] = self.probabilities, self.wrong
        proposed[indices] = self.proposed
        return Labels(probabilities, wrong, proposed, indices[self.suspects], self.error_rate)


def check_labels(
    components: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    num_classes: int,
    seed: int = 0,
    scores: np.ndarray | None = None,
) -> Labels:
    """Judges each label by the other images.

    Args:
        components: float32 [N, K], of `project`.
        labels: int64 [N].
        groups: int64 [N]; images of a group are judged by images of other groups alone.
        num_classes: C.
        seed: of the folds.
        scores: float32 [N, S], of `project_scores`; None without.
    """
    rows = np.arange(len(labels))
    judged = groups_per_class(labels, groups, num_classes)[labels] >= LEAST
    if np.unique(labels[judged]).size < 2:
        uniform = np.full((len(labels), num_classes), 1 / num_classes, "float32")
        return Labels(uniform, np.zeros(len(rows)), labels, rows[:0], 0.0)
    folds, trusted = fold_of(labels, groups, seed), np.ones(len(labels), bool)
    spaces = [components] if scores is None else [components, scores]
    for _ in range(_ROUNDS):
        experts, rates = [], []
        for space in spaces:
            logits = out_of_fold(space, labels, folds, num_classes, trusted)
            temperature, error_rate = _calibrate(logits[judged], labels[judged])
            experts.append(softmax(logits * temperature).astype("float32"))
            rates.append(error_rate)
        probabilities = experts[0]
        if len(experts) > 1:
            own = [each[rows, labels][judged].astype("float64") for each in experts]
            share, error_rate = _pool(own, min(rates), num_classes)
            probabilities = share * experts[0] + (1 - share) * experts[1]
        own = probabilities[rows, labels].astype("float64")
        wrong = _posterior(own, error_rate, num_classes) * judged
        if not _tells_classes_apart(probabilities[judged], labels[judged]):
            return Labels(probabilities, np.zeros(len(rows)), labels, rows[:0], 0.0)
        trusted = wrong < _SUSPECTED

    # What a class's own images are given on average is what counts as "confident" for it.
    counts = np.bincount(labels, minlength=num_classes)
    usual = np.bincount(labels, own, num_classes) / np.maximum(counts, 1)
    confident = np.where((probabilities >= usual) & (counts > 0), probabilities, 0)
    proposed = np.where(confident.max(axis=1) > 0, confident.argmax(axis=1), labels)
    suspects = np.flatnonzero((proposed != labels) & (wrong >= _SUSPECTED))
    suspects = suspects[np.argsort(own[suspects], kind="stable")]
    return Labels(probabilities, wrong, proposed, suspects, error_rate)


def groups_per_class(labels: np.ndarray, groups: np.ndarray, num_classes: int) -> np.ndarray:
    """How many groups of images each class has: int64 [C]."""
    pairs = np.unique(np.stack([labels, groups]), axis=1)
    return np.bincount(pairs[0], minlength=num_classes)


def fold_of(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """The fold of each image, stratified by class; those of a group are in one.

    Returns:
        int64 [N], 0 to `FOLDS` - 1 at most.
    """
    from sklearn.model_selection import StratifiedKFold

    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    if np.bincount(labels[first]).max() < 2:  # each group stands for another class
        return (np.arange(len(first)) % FOLDS)[group]
    folds = int(min(FOLDS, np.bincount(labels[first]).max()))
    result = np.zeros(len(first), "int64")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some classes are smaller than the number of folds
        parts = StratifiedKFold(folds, shuffle=True, random_state=seed).split(first, labels[first])
        for fold, (_, part) in enumerate(parts):
            result[part] = fold
    return result[group]


def out_of_fold(
    components: np.ndarray,
    labels: np.ndarray,
    folds: np.ndarray,
    num_classes: int,
    used: np.ndarray,
) -> np.ndarray:
    """Logits of each image by a linear discriminant that was fitted on the other folds.

    The sums that it needs are taken once for each fold and subtracted from the whole.

    Args:
        components, labels: of all images.
        folds: the fold of each image.
        num_classes: C.
        used: bool [N], which images are learnt from.

    Returns:
        float64 [N, C]; a class without images in the other folds gets -1e9.
    """
    numbers = np.arange(folds.max() + 1)
    learnt = [(folds == number) & used for number in numbers]
    parts = [_Sums.of(components[rows], labels[rows], num_classes) for rows in learnt]
    total = _Sums(*(np.sum(each, axis=0) for each in zip(*map(_Sums.arrays, parts))))
    logits = np.empty((len(labels), num_classes))
    for number, part in zip(numbers, parts):
        weight, bias = (total - part).discriminant()
        rows = folds == number
        logits[rows] = components[rows] @ weight + bias
    return logits


@dataclass(frozen=True)
class _Sums:
    """What a linear discriminant is fitted to.

    Attributes:
        count: [C], images of each class.
        first: [C, K], the sum of them.
        second: [K, K], the sum of the outer products of all.
    """

    count: np.ndarray
    first: np.ndarray
    second: np.ndarray

    @staticmethod
    def of(components: np.ndarray, labels: np.ndarray, num_classes: int) -> _Sums:
        from scipy.sparse import csr_matrix

        rows = np.arange(len(labels))
        shape = num_classes, len(labels)
        members = csr_matrix((np.ones(len(labels), "float32"), (labels, rows)), shape=shape)
        count = np.bincount(labels, minlength=num_classes).astype("float64")
        second = (components.T @ components).astype("float64")
        return _Sums(count, (members @ components).astype("float64"), second)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.count, self.first, self.second

    def __sub__(self, other: _Sums) -> _Sums:
        return _Sums(self.count - other.count, self.first - other.first, self.second - other.second)

    def discriminant(self) -> tuple[np.ndarray, np.ndarray]:
        """Weight [K, C] and bias [C]; the covariance is shared by the classes, and shrunk."""
        means = self.first / np.maximum(self.count, 1)[:, None]
        size = len(self.second)
        within = (self.second - (means * self.count[:, None]).T @ means) / self.count.sum()
        level = max(np.trace(within) / size, 1e-12)
        within = (1 - SHRINKAGE) * within + SHRINKAGE * level * np.eye(size)
        weight = np.linalg.solve(within, means.T)
        bias = -0.5 * np.einsum("ck,kc->c", means, weight)
        bias += np.log(np.maximum(self.count, 1) / self.count.sum())
        return weight, np.where(self.count > 0, bias, -1e9)


def _tells_classes_apart(probabilities: np.ndarray, labels: np.ndarray) -> bool:
    """Whether far fewer labels are mistaken than if all were taken for the most frequent one."""
    mistaken = np.mean(probabilities.argmax(axis=1) != labels)
    guessed = 1 - np.bincount(labels).max() / len(labels)
    return bool(mistaken <= _MOST_MISTAKEN * guessed)


def _calibrate(logits: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """The temperature and the share of wrong labels under which the labels are most probable.

    A wrong label is any of the other classes, each as probable.
    """
    from scipy.optimize import minimize

    rows = np.arange(len(labels))

    def loss(x: np.ndarray) -> float:
        rate = _rate(x[1])
        own = softmax(logits * np.exp(x[0]))[rows, labels].astype("float64")
        others = (1 - own) / (logits.shape[1] - 1)
        return float(-np.log((1 - rate) * own + rate * others + 1e-12).mean())

    best = minimize(loss, [-0.5, -3.0], method="Nelder-Mead", options={"maxiter": 80})
    return float(np.exp(best.x[0])), _rate(best.x[1])


def _pool(own: list[np.ndarray], rate: float, num_classes: int) -> tuple[float, float]:
    """The first model's share of the mixture, and the share of wrong labels, likewise.

    Args:
        own: the probabilities of the labels from each of the two models, [N].
        rate: the share of wrong labels to start from.
        num_classes: C.
    """
    from scipy.optimize import minimize

    def loss(x: np.ndarray) -> float:
        pooled = x[0] * own[0] + (1 - x[0]) * own[1]
        others = (1 - pooled) / (num_classes - 1)
        return float(-np.log((1 - x[1]) * pooled + x[1] * others + 1e-12).mean())

    best = minimize(loss, [0.5, rate], method="Nelder-Mead", bounds=[(0, 1), (1e-6, 0.5)])
    return float(best.x[0]), float(best.x[1])


def _rate(x: float) -> float:
    """A share of 0 to a half, from any number."""
    return float(0.5 / (1 + np.exp(-x)))


def _posterior(own: np.ndarray, rate: float, num_classes: int) -> np.ndarray:
    """The probability that a label is wrong, given that of the label and the share of errors."""
    wrong = rate * (1 - own) / (num_classes - 1)
    return wrong / np.maximum(wrong + (1 - rate) * own, 1e-300)
