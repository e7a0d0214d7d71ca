"""Batches of features: from the cache, or computed again in each epoch; the same numbers."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ..data.augment import TrainTransform
from ..data.lists import ImageList
from ..data.loader import Batch, Batches, Loader, Transform
from ..data.sampler import Sampler
from ..engines.batches import FeatureEngine
from ..progress import Progress
from .cache import BLOCK, Block, FeatureFile


@dataclass(frozen=True)
class ViewTransform:
    """Repeats the augmentation of the first epochs: epoch e sees view e modulo `views`.

    View v of image i is what training without a cache makes of it in epoch v, a function of
    (seed, v, i).

    Attributes:
        transform: of training.
        views: their number.
    """

    transform: TrainTransform
    views: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.transform.shape

    def __call__(self, image: np.ndarray, epoch: int, index: int, out: np.ndarray) -> None:
        self.transform(image, epoch % self.views, index, out)


class CachedFeatures:
    """Batches of features from the cache, with the interface of `Loader`.

    Args:
        images: the list.
        file: its features, complete.
        sampler: which images make up each batch.

    Attributes:
        skipped: what was wrong with each image that could not be read, by index.
    """

    def __init__(self, images: ImageList, file: FeatureFile, sampler: Sampler) -> None:
        self.images, self.sampler, self.skipped = images, sampler, file.unreadable
        self._features = file.read()
        self._good = np.ones(len(images), bool)
        self._good[list(self.skipped)] = False

    def epoch(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch from the `start`-th on, with view `epoch` modulo the views."""
        features = self._features[epoch % len(self._features)]
        for indices in self.sampler.batches(epoch, start):
            indices = indices[self._good[indices]]
            yield Batch(indices, features[indices], self.images.labels[indices])


class ComputedFeatures:
    """Batches of features that are computed in every epoch, without a cache.

    Args:
        loader: of the images.
        frozen: what makes features of them.
    """

    def __init__(self, loader: Batches, frozen: FeatureEngine) -> None:
        self.images, self.sampler, self.skipped = loader.images, loader.sampler, loader.skipped
        self._loader, self._frozen = loader, frozen

    def epoch(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch from the `start`-th on."""
        for batch in self._loader.epoch(epoch, start):
            features = self._frozen.features(batch.inputs)
            yield Batch(batch.indices, features, batch.labels)


def fill(
    file: FeatureFile,
    what: str,
    images: ImageList,
    transform: Transform,
    frozen: FeatureEngine,
    num_workers: int,
    max_pixels: int,
) -> None:
    """Computes what a file of features lacks, with a progress bar on standard error.

    Args:
        file: where they go.
        what: said beside the progress bar.
        images: the list.
        transform: makes the sample of view v where the epoch is v.
        frozen: makes features of samples.
        num_workers, max_pixels: of the reader.
    """
    missing = file.missing()
    if not missing:
        return
    sampler = Sampler(len(images), BLOCK)
    loader = Loader(images, transform, sampler, num_workers, max_pixels, on_unreadable=str)
    todo = sum(block.stop - block.start for block in missing)
    progress = Progress(what, file.rows, done=file.rows - todo)
    with loader, file.writer() as writer, progress:
        for blocks in _runs(missing):
            batches = loader.epoch(blocks[0].view, blocks[0].start // BLOCK)
            for block, batch in zip(blocks, batches):
                rows = np.zeros((block.stop - block.start, frozen.size), "float16")
                rows[batch.indices - block.start] = frozen.features(batch.inputs)
                unreadable = set(range(block.start, block.stop)) - set(batch.indices.tolist())
                writer.write(block, rows, {i: loader.skipped[i] for i in sorted(unreadable)})
                progress.update(len(rows))
            batches.close()


def _runs(blocks: Iterable[Block]) -> list[list[Block]]:
    """Consecutive blocks of one view, which are read in one go."""
    numbered = enumerate(blocks)
    groups = groupby(numbered, lambda pair: (pair[1].view, pair[0] - pair[1].start // BLOCK))
    return [[block for _, block in group] for _, group in groups]
