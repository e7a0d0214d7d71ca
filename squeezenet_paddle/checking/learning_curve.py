"""Would more images help? The errors of classifiers of fewer images, and where they lead.

The share of mistakes falls as a power of the number of images, down to a rest (Hestness et al.,
arXiv:1712.00409): e(n) = rest + scale * n ** -power.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .labels import fold_of, groups_per_class, out_of_fold

SHARES = (0.1, 0.2, 0.35, 0.6, 1.0)
_DRAWS = 2  # of each share but the whole
_FOLDS, _DIRECTIONS = 5, 256  # fewer than for the labels, as all of this is done nine times
_RESAMPLED = 100  # curves, for the uncertainty
_POWERS = np.linspace(0.1, 1.2, 8)
_LEAST = 30  # images that the smallest share needs, and 2 of each class
_WORTH = 0.01  # a gain of so much is worth telling


@dataclass(frozen=True)
class LearningCurve:
    """The accuracy for fewer, for all and for more images.

    Attributes:
        counts: int64 [S], images that were learnt from.
        accuracy: float64 [S], of images that were not, 0..1.
        twice: the accuracy to expect of twice as many.
        low, high: where it lies with a probability of 0.9.
        line: [M, 4], images, accuracy, low and high of the extrapolated curve, to draw it.
    """

    counts: np.ndarray
    accuracy: np.ndarray
    twice: float
    low: float
    high: float
    line: np.ndarray

    def __str__(self) -> str:
        now, count = self.accuracy[-1], int(self.counts[-1])
        gain = self.twice - now
        verdict = (
            "more images would help"
            if self.low > now + _WORTH
            else (
                "more images may help" if gain > _WORTH else "more of such images would hardly help"
            )
        )
        return (
            f"{verdict} a linear classifier of the features: {now:.1%} right with {count:,}, "
            f"{self.twice:.1%} ({self.low:.1%} to {self.high:.1%}) expected with {2 * count:,}"
        )


def learning_curve(
    components: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    num_classes: int,
    trusted: np.ndarray,
    seed: int = 0,
) -> LearningCurve | None:
    """Classifies each image by models of a share of the others, and extrapolates.

    Args:
        components: float32 [N, K], of `project`.
        labels: int64 [N].
        groups: int64 [N]; images of a group do not judge each other.
        num_classes: C.
        trusted: bool [N], the images whose labels are believed; the others do not count.
        seed: of the draws.

    Returns:
        None if there are too few images, or no class has more than one group.
    """
    sizes = np.bincount(labels[trusted], minlength=num_classes)
    if SHARES[0] * sizes.sum() < _LEAST or SHARES[0] * sizes[sizes > 0].min() < 2:
        return None
    if groups_per_class(labels, groups, num_classes).max() < 2:
        return None
    rng, folds = np.random.default_rng(seed), fold_of(labels, groups, seed) % _FOLDS
    components = components[:, :_DIRECTIONS]
    learnt = folds.max() / (folds.max() + 1)  # share of the images that are in the other folds
    points = []
    for share in SHARES:
        for _ in range(1 if share == 1 else _DRAWS):
            used = trusted & (_ranks(labels, rng) < share)
            predicted = out_of_fold(components, labels, folds, num_classes, used).argmax(axis=1)
            points.append((learnt * used.sum(), np.mean(predicted[trusted] != labels[trusted])))
    x, errors = np.array(points).T
    counts = np.unique(np.rint(x), return_inverse=True)[1]
    means = np.bincount(counts, errors) / np.bincount(counts)
    many = np.geomspace(x.min(), 2 * x.max(), 24)
    spread = np.sqrt(errors * (1 - errors) / trusted.sum()) + 0.003
    draws = np.array(
        [
            _extrapolated(x, errors + spread * rng.standard_normal(len(x)), many)
            for _ in range(_RESAMPLED)
        ]
    )
    fitted = _extrapolated(x, errors, many)
    low, high = np.quantile(draws, [0.95, 0.05], axis=0)
    line = np.stack([many, 1 - fitted, 1 - low, 1 - high], axis=1)
    twice, lowest, highest = line[-1, 1:].tolist()
    numbers = np.unique(np.rint(x)).astype("int64")
    return LearningCurve(numbers, 1 - means, twice, lowest, highest, line)


def _ranks(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The place of each image among those of its class in a random order, in 0..1."""
    order = np.lexsort((rng.random(len(labels)), labels))
    sizes = np.bincount(labels)
    starts = np.cumsum(sizes) - sizes
    ranks = np.empty(len(labels))
    ranks[order] = (np.arange(len(labels)) - starts[labels[order]]) / sizes[labels[order]]
    return ranks


def _extrapolated(x: np.ndarray, errors: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The errors at `at` by the curve that is nearest to the points, larger counts weighing more.

    For each power, rest and scale follow by least squares; neither may be negative.
    """
    weight = np.sqrt(x)
    best, values = np.inf, np.full(len(at), errors.mean())
    for power in _POWERS:
        column = x**-power
        for rest in (True, False):
            design = np.stack([column, np.ones(len(x))], axis=1)[:, : 1 + rest]
            solved = np.linalg.lstsq(design * weight[:, None], errors * weight, rcond=None)[0]
            loss = float((((design @ solved - errors) * weight) ** 2).sum())
            if solved.min() >= 0 and loss < best:
                best = loss
                values = solved[0] * at**-power + (solved[1] if rest else 0)
    return np.clip(values, 0, 1)
