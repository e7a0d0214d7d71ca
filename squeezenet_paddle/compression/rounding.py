"""Rounds a layer's weights so that its outputs stay and its indices are cheap to code."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..sqz.format import Indices
from ..sqz.tables import size_class
from ..sqz.trellis import quantisers
from .search import search

PASSES = 2
LARGEST_PAIR = 128  # two products of weights of this sum and inputs up to 255 fit int16
_DAMPING = 0.01  # of the mean of H's diagonal
_OF_IMAGES = 0.5  # share of the errors averaged over an image in what is avoided
_BLOCK = 64  # inputs whose errors are passed on together


@dataclass(frozen=True)
class Rounded:
    """A layer after rounding.

    Attributes:
        name: the layer's.
        indices: its weight.
        bias: float32 [outputs].
        error: root mean square error of its outputs, half of single places and half of averages
            over an image, as a share of their deviation; None where it was not measured.
    """

    name: str
    indices: Indices
    bias: np.ndarray
    error: float | None

    @property
    def bits(self) -> float:
        """Bits of an index on average."""
        return bits_of(self.indices.rows) / self.indices.values.size

    @property
    def bytes(self) -> float:
        """What its weight takes in a file more than a weight of zeros, about."""
        rows = self.indices.rows
        columns = (self.indices.scales, size_class(rows))
        return (bits_of(rows) + sum(entropy(each) * each.size for each in columns)) / 8 + 1


class Problem:
    """A layer to round: its weights, and what its inputs are like.

    Args:
        weight: float64 [outputs, inputs], of the float network.
        cross: float64 [inputs, inputs], covariances of the float network's inputs (rows) with those
            of the compressed one.
        hessian: float64 [inputs, inputs], covariances of the inputs of the compressed network.
        of_images: those of the inputs' averages over each image; None leaves these aside.

    Attributes:
        target: float64 [outputs, inputs], the weights that reproduce the float outputs best.
        trace: of `hessian`.
    """

    def __init__(
        self,
        weight: np.ndarray,
        cross: np.ndarray,
        hessian: np.ndarray,
        of_images: np.ndarray | None = None,
    ) -> None:
        self.trace = max(float(np.trace(hessian)), 1e-12)
        damping = np.eye(len(hessian)) * max(_DAMPING * self.trace / len(hessian), 1e-12)
        self._damped = hessian + damping  # pulls towards `weight`, not towards 0
        self.target = np.linalg.solve(self._damped, (weight @ (cross + damping)).T).T
        if of_images is not None:
            # What is wrong in all of an image reaches the classifier's average, what differs from
            # place to place cancels: both count half. The target needs the many places.
            scale = self.trace / max(float(np.trace(of_images)), 1e-12)
            self._damped += _OF_IMAGES * (scale * of_images - hessian)
        self._upper = _upper(self._damped)

    @property
    def tolerance(self) -> np.ndarray:
        """How far each weight may be off for an error of 1 that later inputs do not make good.

        With steps in these proportions each weight adds the same error, so that none takes bits
        that would do more elsewhere (WaterSIC, arXiv:2603.04956).
        """
        return np.diag(self._upper)

    def round(self, steps: np.ndarray, price: float, passes: int = PASSES) -> np.ndarray:
        """int32 [outputs, inputs]: the index of each weight; see `search`."""
        return search(self.target, self._upper, steps, price, passes)

    def nearest(
        self, steps: np.ndarray, largest: np.ndarray, pairs: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whole numbers, int32 [outputs, inputs], and the step of each output that they are times.

        Args:
            steps: [choices, outputs], of which each output gets the one with the least error.
            largest: number with each choice, [choices].
            pairs: the partner of each input, [inputs]. The two numbers of a pair then have sums, of
                those above 0 and of those below, of at most `LARGEST_PAIR`. None for no such limit.
        """
        choices, outputs = steps.shape
        target = np.tile(self.target, (choices, 1))
        step = steps.reshape(-1, 1)
        q = self._nearest(target / step, np.repeat(largest, outputs), pairs)
        wrong = q * step - target
        errors = np.einsum("oi,oi->o", wrong @ self._damped, wrong).reshape(choices, outputs)
        best, each = errors.argmin(axis=0), np.arange(outputs)
        return q.reshape(choices, outputs, -1)[best, each], steps[best, each]

    def _nearest(
        self, target: np.ndarray, largest: np.ndarray, pairs: np.ndarray | None
    ) -> np.ndarray:
        """Rounds all inputs, those with the largest deviation first; in steps."""
        order = np.argsort(-np.diag(self._damped), kind="stable")
        w, upper = target[:, order], _upper(self._damped[np.ix_(order, order)])
        q = np.empty(w.shape, "int32")
        done: dict[int, np.ndarray] = {}  # by input
        count = w.shape[1]
        for start in range(0, count, _BLOCK):
            stop = min(start + _BLOCK, count)
            errors = np.empty((len(w), stop - start))
            for i in range(start, stop):
                low, high = -largest, largest
                partner = None if pairs is None else done.get(pairs[order[i]])
                if partner is not None:
                    high = np.minimum(high, LARGEST_PAIR - np.maximum(partner, 0))
                    low = np.maximum(low, -LARGEST_PAIR - np.minimum(partner, 0))
                q[:, i] = done[order[i]] = np.clip(np.rint(w[:, i]), low, high).astype("int32")
                errors[:, i - start] = (w[:, i] - q[:, i]) / upper[i, i]
                w[:, i + 1 : stop] -= np.outer(errors[:, i - start], upper[i, i + 1 : stop])
            w[:, stop:] -= errors @ upper[start:stop, stop:]
        result = np.empty_like(q)
        result[:, order] = q
        return result

    def error(self, weight: np.ndarray) -> float:
        """Root mean square error of the outputs, as a share of their deviation."""

        def power(w: np.ndarray) -> float:
            return float(np.einsum("oi,oi->", w @ self._damped, w))

        return float(np.sqrt(power(weight - self.target) / max(power(self.target), 1e-30)))


def _upper(matrix: np.ndarray) -> np.ndarray:
    """U of the inverse, U' U."""
    return np.linalg.cholesky(np.linalg.inv(matrix)).T


def entropy(symbols: np.ndarray) -> float:
    """Bits of a symbol on average, under the best code for single symbols."""
    share = np.unique(symbols, return_counts=True)[1] / symbols.size
    return float(abs(share @ np.log2(share)))  # not -0.0


def bits_of(q: np.ndarray) -> float:
    """Bits of all indices [outputs, inputs], with a pair of tables for columns alike."""
    columns, halves = size_class(q), quantisers(q)
    parts = (
        q[:, columns == size][halves[:, columns == size] == half]
        for size in np.unique(columns)
        for half in (0, 1)
    )
    return sum(entropy(part) * part.size for part in parts if part.size)
