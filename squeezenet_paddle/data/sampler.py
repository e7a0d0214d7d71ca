"""Chooses the images of each batch, as a function of (seed, epoch) alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import InputError


@dataclass(frozen=True)
class Sampler:
    """Splits an epoch into global batches, and each batch among the processes of a run.

    No sample is repeated or left out, so the last batch may be smaller and its shares uneven or
    empty. Two processes with 16 images each see what one process with 32 sees.

    Attributes:
        num_samples: images in the list.
        batch_size: of the global batch.
        shuffle: a new order in each epoch, from (seed, epoch); otherwise the list's.
        seed: of the run.
        drop_last: leave out a smaller last batch.
        rank, world_size: which process this is, and of how many.
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
        """The number of global batches in an epoch."""
        whole, rest = divmod(self.num_samples, self.batch_size)
        return whole + (1 if rest and not self.drop_last else 0)

    @property
    def largest_share(self) -> int:
        """The largest number of samples that this process can get of a batch."""
        return -(-min(self.batch_size, self.num_samples) // self.world_size)

    def order(self, epoch: int) -> np.ndarray:
        """The order of the whole epoch, int64 [num_samples]."""
        if not self.shuffle:
            return np.arange(self.num_samples)
        return np.random.default_rng([self.seed, epoch]).permutation(self.num_samples)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[np.ndarray]:
        """This process's share of each global batch from the `start`-th on, as int64 indices."""
        order = self.order(epoch)
        for number in range(start, len(self)):
            batch = order[number * self.batch_size : (number + 1) * self.batch_size]
            yield np.array_split(batch, self.world_size)[self.rank]
