"""Runs images through a network layer by layer, so that a layer can be changed before the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Callable

import numpy as np

from ..engines.threads import PinnedThreads
from ..network.config import Layer, ModelConfig, layers
from ..network.numpy_forward import activated, linear_output
from .fisher import inputs_of

State = Mapping[str, np.ndarray]

_PART = 8  # images that one thread computes at a time
# Of covariances from one vector an image, towards their diagonal. Measured on a model for CIFAR-10
# of head `compact`, in 360 kB: its divergence is 0.28 at 0.08, which is best for the covariance
# itself, 0.14 at 0.2, 0.07 at 0.35, 0.05 at 0.5 and 0.34 at 1.
_SHRINKAGE = 0.5
_LARGEST = float(np.finfo("float16").max)


class Walk:
    """The values that layers still to come will read, image by image, in half precision.

    Args:
        config: which network.
        inputs: [N, *input], each image as `Preprocess` makes it.
        threads: None takes one per core that the process may use.
        after: what becomes of the input, "data", and of a layer's output, by its name.
    """

    def __init__(
        self,
        config: ModelConfig,
        inputs: Sequence[np.ndarray] | np.ndarray,
        threads: int | None = None,
        after: Callable[[str, np.ndarray], np.ndarray] = lambda name, values: values,
    ) -> None:
        self._config = config
        self._todo = layers(config)
        self._last = self._todo[-1].name
        self._threads = PinnedThreads(threads)
        self._after = after
        nhwc = config.data_format == "NHWC"
        maps = (x.transpose(2, 0, 1) if nhwc else x for x in inputs)
        self._images = [{"data": after("data", x)} for x in maps]

    def __len__(self) -> int:
        return len(self._images)

    def inputs(self, layer: Layer, image: int) -> np.ndarray:
        """What a layer with weights reads of an image, float32."""
        return self._images[image][layer.bottoms[0]].astype("float32")

    def map(self, work: Callable[[range], np.ndarray]) -> np.ndarray:
        """The sum of what `work` gives for ranges of images, which does not depend on threads."""
        parts = [range(i, min(i + _PART, len(self))) for i in range(0, len(self), _PART)]
        total: np.ndarray | float = 0.0
        for i in range(0, len(parts), self._threads.count):
            for result in self._threads.map(work, parts[i : i + self._threads.count]):
                total = total + result
        return np.asarray(total)

    def advance(self, to: Layer | None, state: State) -> None:
        """Computes the layers before `to`, or all that are left."""
        names = [layer.name for layer in self._todo]
        count = len(names) if to is None else names.index(to.name)
        now, self._todo = self._todo[:count], self._todo[count:]
        read_later = {name for layer in self._todo for name in layer.bottoms} | {self._last}

        def work(part: range) -> np.ndarray:
            for i in part:
                values = self._images[i]
                for layer in now:
                    xs = [values[name].astype("float32") for name in layer.bottoms]
                    y = activated(layer, self._config, linear_output(layer, xs, state))
                    y = self._after(layer.name, y)
                    values[layer.name] = np.clip(y, -_LARGEST, _LARGEST).astype("float16")
                self._images[i] = {n: v for n, v in values.items() if n in read_later}
            return np.zeros(())

        self.map(work)

    def logits(self, state: State) -> np.ndarray:
        """float32 [N, num_classes]."""
        self.advance(None, state)
        return np.stack([values[self._last] for values in self._images]).astype("float32")


@dataclass(frozen=True)
class Moments:
    """What a layer with weights reads in a changed network, and in the float one.

    Of a layer that reads one vector of an image, the covariances are shrunk: some hundred vectors
    do not tell which of thousands of inputs can stand in for each other.

    Attributes:
        hessian: covariances of the inputs in the changed network, over all places of all images,
            [inputs, inputs].
        cross: covariances of the inputs in the float network (rows) with these.
        of_images: covariances, in the changed network, of the averages over each image.
        mean: of the inputs in the changed network, [inputs].
        mean0: of those in the float network.
    """

    hessian: np.ndarray
    cross: np.ndarray
    of_images: np.ndarray
    mean: np.ndarray
    mean0: np.ndarray


def moments_of(layer: Layer, walk: Walk, with_floats: Walk) -> Moments:
    """The moments of what a layer with weights reads.

    Args:
        layer: the one that both walks have advanced to.
        walk: of the changed network.
        with_floats: of the float network.
    """

    def reads(walk: Walk, image: int) -> np.ndarray:
        return inputs_of(layer, walk.inputs(layer, image))

    # About the means, so that sums of squares lose no digits.
    some = range(min(len(walk), 8))
    shift, shift0 = (
        np.mean([reads(each, i).mean(axis=1) for i in some], axis=0, dtype="float32")[:, None]
        for each in (walk, with_floats)
    )
    size = len(shift)

    def sums_of(part: range) -> np.ndarray:
        sums = np.zeros((3 * size + 3, size))
        for i in part:
            x, x0 = reads(walk, i) - shift, reads(with_floats, i) - shift0
            total = x.sum(axis=1, dtype="float64")
            average = total / x.shape[1]
            sums[:size] += x @ x.T
            sums[size : 2 * size] += x0 @ x.T
            sums[2 * size : -3] += np.outer(average, average)
            sums[-3] += total
            sums[-2] += x0.sum(axis=1, dtype="float64")
            sums[-1] += x.shape[1]
        return sums

    sums = walk.map(sums_of)
    count = sums[-1, 0]
    mean, mean0 = sums[-3] / count, sums[-2] / count
    square = np.outer(mean, mean)
    hessian = sums[:size] / count - square
    cross = sums[size : 2 * size] / count - np.outer(mean0, mean)
    of_images = sums[2 * size : -3] / len(walk) - square
    if count == len(walk):
        for covariance in (hessian, cross, of_images):
            covariance += _SHRINKAGE * (np.diag(np.diag(covariance)) - covariance)
    return Moments(hessian, cross, of_images, mean + shift[:, 0], mean0 + shift0[:, 0])
