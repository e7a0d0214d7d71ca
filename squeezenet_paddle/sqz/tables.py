"""Which columns of indices share a pair of tables: those whose indices are about equally large."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .rans import Table
from .trellis import quantisers

PAIRS = 16  # of tables, at most


class Pairs:
    """Pairs of tables for several arrays: the first for quantiser 0, the second for 1.

    Args:
        rows: indices, int32 [outputs, columns], by any key.

    Attributes:
        tables: two for each pair.
        choices: int [columns], the number of each column's pair, by key.
    """

    def __init__(self, rows: Mapping[str, np.ndarray]) -> None:
        sizes = [size_class(q) for q in rows.values()]
        known, flat = np.unique(np.concatenate([[], *sizes]), return_inverse=True)
        parts = np.split(flat, np.cumsum([len(each) for each in sizes])[:-1])
        self.choices = dict(zip(rows, parts))
        seen: list[list[np.ndarray]] = [[np.zeros(0, "int32")] for _ in range(2 * len(known))]
        for key, q in rows.items():
            which = 2 * self.choices[key] + quantisers(q)
            for number in np.unique(which):
                seen[number].append(q[which == number])
        self.tables = [Table.of(np.concatenate(each)) for each in seen]


def size_class(rows: np.ndarray) -> np.ndarray:
    """How large the indices of each column are: a whole number from 0 to 14, [columns].

    Fine where indices are small, as most are, and coarse for the few columns of large ones, whose
    tables are long. Of the formulas tried on v1.1 this one made the smallest file.
    """
    size = np.sqrt(np.square(rows, dtype="float64").mean(axis=0))
    return np.rint(10 * size / (1 + 0.7 * size)).astype(int)
