"""Dependent quantisation: which value an index stands for depends on those before it.

Two quantisers share the whole numbers: one has the even ones, the other the odd ones and 0. Which
of them the next index of an output belongs to follows from the parities of the indices before it,
by a machine of four states. Each index so chooses from half of the values, and costs almost a bit
less than with all of them, while the encoder, which looks for the best path, loses little
(trellis-coded quantisation, Marcellin and Fischer 1990; the machine is that of the video standard
H.266). At the same size the squared error is about a sixth smaller than that of one quantiser.
"""

from __future__ import annotations

import numpy as np

START = 0
NEXT = np.array([[0, 2], [2, 0], [1, 3], [3, 1]], "uint8")  # by state, parity of the index
QUANTISER = np.array([0, 0, 1, 1], "uint8")  # by state


def quantisers(indices: np.ndarray) -> np.ndarray:
    """Which quantiser each index belongs to, uint8 0 or 1.

    Args:
        indices: [outputs, inputs].
    """
    result = np.empty(indices.shape, "uint8")
    state = np.full(len(indices), START, "uint8")
    for column, odd in enumerate((indices & 1).T):
        result[:, column] = QUANTISER[state]
        state = NEXT[state, odd]
    return result


def numbers(indices: np.ndarray, quantiser: np.ndarray) -> np.ndarray:
    """What indices stand for, in steps: twice the index, one nearer to 0 with quantiser 1."""
    return 2 * indices - quantiser * np.sign(indices)
