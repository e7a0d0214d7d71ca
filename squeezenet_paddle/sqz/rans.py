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
        """The table that codes these symbols in about the fewest bits."""
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


def encode(sequences: Sequence[tuple[np.ndarray, Table]]) -> tuple[np.ndarray, np.ndarray]:
    """Codes sequences of symbols one after another.

    Returns:
        uint32 [LANES], the states that the decoder starts from; uint16, the words that it reads.
    """
    state = np.full(LANES, LOWEST, "uint32")
    words: list[np.ndarray] = []  # in the reverse order
    for symbols, table in reversed(sequences):
        starts = np.append(0, np.cumsum(table.frequencies))[:-1].astype("uint32")
        places = symbols.ravel() - table.low
        for first in reversed(range(0, len(places), LANES)):
            place = places[first : first + LANES]
            f, x = table.frequencies[place], state[: len(place)]
            full = (x >> (32 - BITS)) >= f
            words.append((x[full] & 0xFFFF).astype("<u2"))
            x = np.where(full, x >> 16, x)
            state[: len(place)] = ((x // f) << BITS) + x % f + starts[place]
    return state, np.concatenate([*reversed(words), np.empty(0, "<u2")])


class DamagedError(ValueError):
    """Coded symbols are not what an encoder wrote."""


def decode(
    state: np.ndarray, words: np.ndarray, sequences: Sequence[tuple[int, Table]]
) -> list[np.ndarray]:
    """The inverse of `encode`.

    Args:
        state: uint32 [LANES].
        words: uint16.
        sequences: the length and the table of each sequence.

    Returns:
        int16 symbols of each sequence.

    Raises:
        DamagedError: the words end early, some are left, or the states are not those of the start.
    """
    state, words = state.astype("uint32"), words.astype("uint32")
    mask, bits, half = np.uint32(TOTAL - 1), np.uint32(BITS), np.uint32(16)
    read, results = 0, []
    for count, table in sequences:
        f = table.frequencies
        symbol = np.repeat(np.arange(len(f)) + table.low, f).astype("int16")
        frequency = np.repeat(f, f)
        offset = np.arange(TOTAL, dtype="uint32") - np.repeat(np.cumsum(f) - f, f).astype("uint32")
        symbols = np.empty(count, "int16")
        for first in range(0, count, LANES):
            part = symbols[first : first + LANES]
            x = state[: len(part)]
            slot = x & mask
            part[:] = symbol[slot]
            x >>= bits
            x *= frequency[slot]
            x += offset[slot]
            low = np.flatnonzero(x < LOWEST)
            more = words[read : read + len(low)]
            if len(more) < len(low):
                raise DamagedError("the coded weights end early")
            x[low] = (x[low] << half) | more
            read += len(low)
        results.append(symbols)
    if read < len(words) or (state != LOWEST).any():
        raise DamagedError("the coded weights do not end where they should")
    return results
