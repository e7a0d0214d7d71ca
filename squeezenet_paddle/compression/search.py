"""Finds the indices of a layer's weights along the trellis of `sqz/trellis.py`.

The inputs of a layer are taken one after another, as in GPTQ (Frantar et al. 2022,
arXiv:2210.17323): what rounding one changes in the outputs is made good by those that follow. For
each output, Viterbi's algorithm keeps the best path to each of the four states, and each path has
weights of its own that make good what it changed. Beside the error, the bits of the indices count.
"""

from __future__ import annotations

import numpy as np

from ..sqz.format import INDICES
from ..sqz.tables import size_class
from ..sqz.trellis import NEXT, QUANTISER, START, numbers, quantisers

_STATES = len(NEXT)
_BLOCK = 32  # inputs whose errors are passed on together
_NEVER = 1e100
# For each state the two that lead to it, as state and parity of the index.
_BEFORE = [
    [(s, parity) for s in range(_STATES) for parity in (0, 1) if NEXT[s, parity] == to]
    for to in range(_STATES)
]


def search(
    target: np.ndarray, upper: np.ndarray, steps: np.ndarray, price: float, passes: int
) -> np.ndarray:
    """int32 [outputs, inputs]: the index of each weight.

    Args:
        target: float64 [outputs, inputs], the weights that would be best.
        upper: U of the inverse of the inputs' covariances, U' U.
        steps: float64 [inputs].
        price: of a bit, in squared error of an output.
        passes: how often; what an index costs is known from the pass before. 0 rounds plainly.
    """
    q = np.rint(np.clip(target / (2 * steps), -INDICES, INDICES)).astype("int32")
    for _ in range(passes):
        q = _pass(target, upper, steps, price, _Bits(q))
    return q


class _Bits:
    """The bits of indices by how often they occur in `q`, as the pairs of tables will have them."""

    def __init__(self, q: np.ndarray) -> None:
        self._column = size_class(q)
        halves = quantisers(q)
        rare = 0.5 / (1 + np.abs(np.arange(-INDICES, INDICES + 1)))  # what does not occur yet
        self._costs = {}
        for size in np.unique(self._column):
            here = self._column == size
            some, of = q[:, here] + INDICES, halves[:, here]
            counts = [np.bincount(some[of == half], minlength=len(rare)) + rare for half in (0, 1)]
            self._costs[size] = np.stack([np.log2(c.sum() / c) for c in counts])

    def of(self, column: int) -> np.ndarray:
        """[quantiser, index + INDICES]."""
        return self._costs[self._column[column]]


def _pass(
    target: np.ndarray, upper: np.ndarray, steps: np.ndarray, price: float, bits: _Bits
) -> np.ndarray:
    outputs, inputs = target.shape
    weights = np.repeat(target[:, None], _STATES, axis=1)  # of each path
    costs = np.full((outputs, _STATES), _NEVER)
    costs[:, START] = 0
    came_from = np.empty((inputs, outputs, _STATES), "int8")
    indices = np.empty((inputs, outputs, _STATES), "int16")
    each = np.arange(outputs)[:, None]
    for start in range(0, inputs, _BLOCK):
        stop = min(start + _BLOCK, inputs)
        errors = np.zeros((outputs, _STATES, stop - start))
        at_start = np.tile(np.arange(_STATES), (outputs, 1))  # where each path was
        for i in range(start, stop):
            own = upper[i, i]
            found = _cheapest(
                weights[:, :, i] / steps[i], price * (own / steps[i]) ** 2, bits.of(i)
            )
            costs, before, index = _extend(costs, *found, (steps[i] / own) ** 2)
            came_from[i], indices[i] = before, index
            rounded = numbers(index, QUANTISER[before]) * steps[i]
            error = (weights[each, before, i] - rounded) / own
            later = slice(i + 1, stop)
            weights[:, :, later] = weights[each, before, later]
            weights[:, :, later] -= error[:, :, None] * upper[i, later]
            errors[:, :, : i - start] = errors[each, before, : i - start]
            errors[:, :, i - start] = error
            at_start = at_start[each, before]
        passed_on = errors.reshape(outputs * _STATES, -1) @ upper[start:stop, stop:]
        weights[:, :, stop:] = weights[each, at_start, stop:]
        weights[:, :, stop:] -= passed_on.reshape(outputs, _STATES, -1)
    return _path(came_from, indices, costs.argmin(axis=1))


def _cheapest(weights: np.ndarray, price: float, bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each path the cheapest even index and the cheapest odd one.

    Args:
        weights: in steps, [outputs, states].
        price: of a bit, in squared steps.
        bits: [quantiser, index + INDICES].

    Returns:
        What they cost, in squared steps, and the indices; both [2, outputs, states].
    """
    nearest = np.rint((weights + QUANTISER * np.sign(weights)) / 2)
    nearest = np.clip(nearest, 1 - INDICES, INDICES - 1).astype("int32")
    several = np.stack([nearest - 1, nearest, nearest + 1, np.zeros_like(nearest)])
    found = np.square(weights - numbers(several, QUANTISER.astype("int32")))
    found += price * bits[QUANTISER, several + INDICES]
    odd = (several & 1).astype(bool)
    costs = np.where(np.stack([odd, ~odd]), _NEVER, found)
    best = costs.argmin(axis=1)[:, None]
    several = np.broadcast_to(several, costs.shape)
    cost, index = (np.take_along_axis(a, best, axis=1)[:, 0] for a in (costs, several))
    return cost, index


def _extend(
    costs: np.ndarray, more: np.ndarray, index: np.ndarray, unit: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best path to each state: its cost, the state before and the index; [outputs, states]."""
    total = costs + unit * more
    new, before, chosen = np.empty_like(costs), np.empty_like(index[0]), np.empty_like(index[0])
    for to, ((a, of_a), (b, of_b)) in enumerate(_BEFORE):
        first = total[of_a, :, a] <= total[of_b, :, b]
        new[:, to] = np.where(first, total[of_a, :, a], total[of_b, :, b])
        before[:, to] = np.where(first, a, b)
        chosen[:, to] = np.where(first, index[of_a, :, a], index[of_b, :, b])
    return new, before, chosen


def _path(came_from: np.ndarray, indices: np.ndarray, state: np.ndarray) -> np.ndarray:
    """The indices on the way to a state of each output, int32 [outputs, inputs]."""
    result = np.empty((len(state), len(indices)), "int32")
    for i in reversed(range(len(indices))):
        result[:, i] = np.take_along_axis(indices[i], state[:, None], axis=1)[:, 0]
        state = np.take_along_axis(came_from[i], state[:, None], axis=1)[:, 0]
    return result
