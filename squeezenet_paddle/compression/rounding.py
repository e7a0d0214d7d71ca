"""Rounds a layer's weights so that its outputs stay and its indices are cheap to code.

As in GPTQ (Frantar et al. 2022, arXiv:2210.17323), the inputs of a layer are taken one after
another; what rounding one changes in the outputs is made good by those that follow. Beside the
error, the bits of the index count, so that a weight moves to a cheaper index where that costs less
than it saves.
"""

from __future__ import annotations

import numpy as np

PASSES = 3
LARGEST_PAIR = 128  # times 255 fits 16 bits
_DAMPING = 0.01  # of the mean of H's diagonal
_BLOCK = 64  # inputs whose errors are passed on together


class Problem:
    """A layer to round: its weights, and what its inputs are like.

    Args:
        weight: float64 [outputs, inputs], of the float network.
        cross: float64 [inputs, inputs], covariances of the float network's inputs (rows) with those
            of the compressed one.
        hessian: float64 [inputs, inputs], covariances of the inputs of the compressed network.

    Attributes:
        target: float64 [outputs, inputs], the weights that reproduce the float outputs best.
        trace: of `hessian`.
    """

    def __init__(self, weight: np.ndarray, cross: np.ndarray, hessian: np.ndarray) -> None:
        self.trace = max(float(np.trace(hessian)), 1e-12)
        damping = np.eye(len(hessian)) * max(_DAMPING * self.trace / len(hessian), 1e-12)
        self._damped = hessian + damping  # pulls towards `weight`, not towards 0
        self.target = np.linalg.solve(self._damped, (weight @ (cross + damping)).T).T
        self._order = np.argsort(-np.diag(hessian), kind="stable")
        turned = self._damped[np.ix_(self._order, self._order)]
        self._upper = np.linalg.cholesky(np.linalg.inv(turned)).T  # U of the inverse, U' U

    def round(self, step: float, price: float, passes: int = PASSES) -> np.ndarray:
        """int32 [outputs, inputs]: the index of each weight.

        Args:
            step: between the values of a weight.
            price: of a bit, in squared error of an output.
            passes: how often; what an index costs is known from the pass before.
        """
        q = np.rint(self.target / step).astype("int32")
        for _ in range(passes):
            q = self._pass(self.target, step, price / step**2, Bits(q))
        return q

    def nearest(
        self, steps: np.ndarray, largest: np.ndarray, pairs: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Indices, int32 [outputs, inputs], and the step of each output.

        Args:
            steps: [choices, outputs], of which each output gets the one with the least error.
            largest: index with each choice, [choices].
            pairs: the partner of each input, [inputs]. The two indices of a pair then have sums, of
                those above 0 and of those below, of at most `LARGEST_PAIR`. None for no such limit.
        """
        choices, outputs = steps.shape
        target = np.tile(self.target, (choices, 1))
        bits = _Nearest(np.repeat(largest, outputs), pairs, self._order)
        q = self._pass(target, steps.reshape(-1, 1), 0.0, bits)
        wrong = q * steps.reshape(-1, 1) - target
        errors = np.einsum("oi,oi->o", wrong @ self._damped, wrong).reshape(choices, outputs)
        best, each = errors.argmin(axis=0), np.arange(outputs)
        return q.reshape(choices, outputs, -1)[best, each], steps[best, each]

    def error(self, q: np.ndarray, step: float) -> float:
        """Root mean square error of the outputs, as a share of their deviation."""

        def power(w: np.ndarray) -> float:
            return float(np.einsum("oi,oi->", w @ self._damped, w))

        return float(np.sqrt(power(q * step - self.target) / max(power(self.target), 1e-30)))

    def _pass(
        self, target: np.ndarray, step: float | np.ndarray, price: float, bits: Bits | _Nearest
    ) -> np.ndarray:
        """Rounds all inputs, those with the largest deviation first; in units of the step."""
        w, upper = target[:, self._order] / step, self._upper
        q = np.empty(w.shape, "int32")
        count = w.shape[1]
        for start in range(0, count, _BLOCK):
            stop = min(start + _BLOCK, count)
            errors = np.empty((len(w), stop - start))
            for i in range(start, stop):
                own = upper[i, i]
                q[:, i] = bits.cheapest(w[:, i], price * own**2)
                errors[:, i - start] = (w[:, i] - q[:, i]) / own
                w[:, i + 1 : stop] -= np.outer(errors[:, i - start], upper[i, i + 1 : stop])
            w[:, stop:] -= errors @ upper[start:stop, stop:]
        result = np.empty_like(q)
        result[:, self._order] = q
        return result


class Bits:
    """The bits of each index by how often it occurs in `q`; the most where it does not."""

    def __init__(self, q: np.ndarray) -> None:
        self._low = int(q.min()) - 1
        counts = np.bincount(q.ravel() - self._low, minlength=int(q.max()) + 2 - self._low) + 0.5
        self._cost = np.log2(counts.sum() / counts)

    def cheapest(self, w: np.ndarray, price: float) -> np.ndarray:
        """The index with the smallest squared distance from `w` plus price times bits."""
        nearest = np.rint(w).astype("int32")
        several = np.stack([nearest, nearest - np.sign(nearest), np.zeros_like(nearest)])
        costs = np.square(w - several)
        costs += price * np.take(self._cost, several - self._low, mode="clip")
        return np.take_along_axis(several, costs.argmin(axis=0)[None], axis=0)[0]


class _Nearest:
    """Indices that all cost the same, asked for once for each input of `order`."""

    def __init__(self, largest: np.ndarray, pairs: np.ndarray | None, order: np.ndarray) -> None:
        self._largest = largest
        self._pairs = pairs
        self._columns = iter(order)
        self._done: dict[int, np.ndarray] = {}  # indices by input

    def cheapest(self, w: np.ndarray, price: float) -> np.ndarray:
        column = next(self._columns)
        low, high = -self._largest, self._largest
        partner = None if self._pairs is None else self._done.get(self._pairs[column])
        if partner is not None:
            high = np.minimum(high, LARGEST_PAIR - np.maximum(partner, 0))
            low = np.maximum(low, -LARGEST_PAIR - np.minimum(partner, 0))
        self._done[column] = np.clip(np.rint(w), low, high).astype("int32")
        return self._done[column]


def entropy(q: np.ndarray) -> float:
    """Bits of an index on average, under the best code for single indices."""
    share = np.unique(q, return_counts=True)[1] / q.size
    return float(abs(share @ np.log2(share)))  # not -0.0
