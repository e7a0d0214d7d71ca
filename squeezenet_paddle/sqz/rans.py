"""The entropy coder of .sqz files: rANS in 256 interleaved lanes, which numpy computes at once.

See `format.py` for the specification; the coder is that of Duda, "Asymmetric numeral systems",
arXiv:1311.2540, with a state of 32 bits that is renewed by words of 16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LANES = 256
BITS = 14
TOTAL = 1 << BITS  # the sum of the frequencies of a table
LOWEST = 1 << 16  # the smallest state, and the one that the encoder starts from


@dataclass(frozen=True)
class Table:
    """How often each symbol of a sequence occurs.

    Attributes:
        low: the symbol that the first frequency belongs to.
        frequencies: uint32 [K], of the symbols low, low + 1, ...; their sum is `TOTAL`.
    """

    low: int
    frequencies: np.ndarray

    @staticmethod
    def of(symbols: np.ndarray) -> Table:
        """The table that codes these symbols in about the fewest bits; of none, a table for 0."""
        symbols = symbols if symbols.size else np.zeros(1, "int32")
        low = int(symbols.min())
        counts = np.bincount(symbols.ravel() - low)
        seen = counts > 0
        frequencies = np.where(seen, np.maximum(np.rint(counts * (TOTAL / counts.sum())), 1), 0)
        # What rounding left over goes to, or is taken from, where it matters least.
        while excess := int(frequencies.sum()) - TOTAL:
            change = -1 if excess > 0 else 1
            can = seen & (frequencies + change >= 1)
            now = np.maximum(frequencies, 1)
            loss = counts * (np.log2(now) - np.log2(np.maximum(now + change, 1)))
            frequencies[np.argmin(np.where(can, loss, np.inf))] += change
        return Table(low, frequencies.astype("uint32"))


class Slots:
    """What decodes symbols: of each slot of several tables, symbol, frequency and offset.

    Args:
        tables: the tables; their order numbers them.
    """

    def __init__(self, tables: Sequence[Table]) -> None:
        self.symbol = np.empty((len(tables), TOTAL), "int16")
        self.frequency = np.empty((len(tables), TOTAL), "uint16")
        self.offset = np.empty((len(tables), TOTAL), "uint16")
        for i, table in enumerate(tables):
            f = table.frequencies
            self.symbol[i] = np.repeat(np.arange(len(f)) + table.low, f)
            self.frequency[i] = np.repeat(f, f)
            self.offset[i] = np.arange(TOTAL) - np.repeat(np.cumsum(f) - f, f)


def encode(
    sequences: Sequence[tuple[np.ndarray, Sequence[Table], np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Codes sequences of symbols one after another.

    Args:
        sequences: of each its symbols [N], its tables, and the number of the table of each symbol
            [N].

    Returns:
        uint32 [LANES], the states that the decoder starts from; uint16, the words that it reads.
    """
    state = np.full(LANES, LOWEST, "uint32")
    words: list[np.ndarray] = []  # in the reverse order
    for symbols, tables, which in reversed(sequences):
        f, start = np.empty((2, len(symbols)), "uint32")
        for number in np.unique(which):
            table, here = tables[number], which == number
            place = symbols[here] - table.low
            f[here] = table.frequencies[place]
            start[here] = (np.cumsum(table.frequencies) - table.frequencies)[place]
        for first in reversed(range(0, len(symbols), LANES)):
            part = slice(first, first + LANES)
            frequency = f[part]
            x = state[: len(frequency)]
            full = (x >> (32 - BITS)) >= frequency
            words.append((x[full] & 0xFFFF).astype("<u2"))
            x = np.where(full, x >> 16, x)
            state[: len(frequency)] = ((x // frequency) << BITS) + x % frequency + start[part]
    return state, np.concatenate([*reversed(words), np.empty(0, "<u2")])


class DamagedError(ValueError):
    """Coded symbols are not what an encoder wrote."""


class Decoder:
    """The inverse of `encode`.

    Args:
        state: uint32 [LANES].
        words: uint16.
    """

    def __init__(self, state: np.ndarray, words: np.ndarray) -> None:
        self._state, self._words = state.astype("uint32"), words.astype("uint32")
        self._read = 0

    def symbols(self, count: int, slots: Slots, which: np.ndarray | int = 0) -> np.ndarray:
        """The next sequence, int16 [count].

        Args:
            count: of symbols.
            slots: of the tables.
            which: the number of the table of each symbol, [count], or of all.

        Raises:
            DamagedError: the words end early.
        """
        result = np.empty(count, "int16")
        every = np.broadcast_to(which, count)
        for first in range(0, count, LANES):
            part = result[first : first + LANES]
            x = self._state[: len(part)]
            slot = every[first : first + LANES], x & np.uint32(TOTAL - 1)
            part[:] = slots.symbol[slot]
            x >>= np.uint32(BITS)
            x *= slots.frequency[slot]
            x += slots.offset[slot]
            low = np.flatnonzero(x < LOWEST)
            more = self._words[self._read : self._read + len(low)]
            if len(more) < len(low):
                raise DamagedError("the coded weights end early")
            x[low] = (x[low] << np.uint32(16)) | more
            self._read += len(low)
        return result

    def end(self) -> None:
        """Checks that all is read.

        Raises:
            DamagedError: words are left, or the states are not those of the encoder's start.
        """
        if self._read < len(self._words) or (self._state != LOWEST).any():
            raise DamagedError("the coded weights do not end where they should")
