"""Which images make up each batch: a function of (seed, epoch), whatever reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import InputError


@dataclass(frozen=True)
class Sampler:
    """Splits an epoch into global batches, and each of these over the processes of a run.

    No sample is repeated or left out, so that the last batch may be smaller and its shares uneven,
    down to none. Two processes of 16 see what one process of 32 sees.

    Attributes:
        num_samples: images in the list.
        batch_size: of the global batch.
        shuffle: a new order in each epoch, from (seed, epoch); else the order of the list.
        seed: of the run.
        drop_last: leave out the last batch if it is smaller.
        rank, world_size: which process this is, of how many.
    """

    num_samples: int
    batch_size: int
    shuffle: bool = False
    seed: int = 0
    drop_last: bool = False
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise InputError(f"rank must lie in 0..{self.world_size - 1}, found {self.rank}.")
        if len(self) == 0:
            raise InputError(
                f"{self.num_samples} images make no batch of {self.batch_size}; "
                "give a smaller `batch_size` or keep the last batch."
            )

    def __len__(self) -> int:
        """Global batches in an epoch."""
        whole, rest = divmod(self.num_samples, self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)

    @property
    def largest_share(self) -> int:
        """The most samples of a batch that this process can get."""
        return -(-min(self.batch_size, self.num_samples) // self.world_size)

    def order(self, epoch: int) -> np.ndarray:
        """int64 [num_samples], the order of the whole epoch."""
        if not self.shuffle:
            return np.arange(self.num_samples)
        return np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[np.ndarray]:
        """This process's share of each global batch from the `start`-th on, as int64 indices."""
        order = self.order(epoch)
        for number in range(start, len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield np.array_split(batch, self.world_size)[self.rank]
