"""Batches of features: from the cache, or computed again in each epoch; the same numbers."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import numpy as np

from ..data.augment import TrainTransform
from ..data.lists import ImageList
from ..data.loader import Batch, Batches
from ..data.sampler import Sampler
from ..engines.batches import FeatureEngine
from ..features.cache import FeatureFile


class ViewTransform:
    """Repeats the augmentation of the first epochs: epoch e sees view e modulo `views`.

    View v of an image is a function of (seed, v, the image's content), so that it is the same
    whatever the file is called and wherever it stands in a list.

    Args:
        transform: of training.
        views: their number.
        contents: the SHA-256 of the images of the list.
    """

    def __init__(self, transform: TrainTransform, views: int, contents: Sequence[str]) -> None:
        self.transform, self.views = transform, views
        self._numbers = np.array([int(content[:15], 16) for content in contents], "int64")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.transform.shape

    def __call__(self, image: np.ndarray, epoch: int, index: int, out: np.ndarray) -> None:
        self.transform(image, epoch % self.views, int(self._numbers[index]), out)


class CachedFeatures:
    """Batches of features from the cache, with the interface of `Loader`.

    Args:
        images: the list.
        file: where its features are.
        contents: the SHA-256 of its images.
        views: how many there are of each.
        sampler: which images make up each batch.
        skipped: what was wrong with each image that could not be read, by index.

    Attributes:
        images, sampler, skipped: as above.
    """

    def __init__(
        self,
        images: ImageList,
        file: FeatureFile,
        contents: Sequence[str],
        views: int,
        sampler: Sampler,
        skipped: dict[int, str],
    ) -> None:
        self.images, self.sampler, self.skipped = images, sampler, skipped
        self._rows = np.stack([file.rows(contents, view) for view in range(views)])
        self._good = self._rows.min(axis=0) >= 0
        self._features = file.read()

    def epoch(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]:
        """The batches of an epoch from the `start`-th on, with view `epoch` modulo the views."""
        rows = self._rows[epoch % len(self._rows)]
        for indices in self.sampler.batches(epoch, start):
            indices = indices[self._good[indices]]
            yield Batch(indices, self._features[rows[indices]], self.images.labels[indices])


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
