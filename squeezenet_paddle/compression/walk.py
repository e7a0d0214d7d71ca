"""Runs images through a network layer by layer, so that a layer can be changed before the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Callable

import numpy as np

from ..engines.threads import PinnedThreads
from ..network.config import Layer, ModelConfig, layers
from ..network.numpy_forward import activated, linear_output

State = Mapping[str, np.ndarray]

_PART = 8  # images that one thread computes at a time
_LARGEST = float(np.finfo("float16").max)


class Walk:
    """The values that layers still to come will read, image by image, in half precision.

    Args:
        config: which network.
        inputs: [N, *input], each image as `Preprocess` makes it.
        threads: None takes one per core that the process may use.
    """

    def __init__(
        self, config: ModelConfig, inputs: Sequence[np.ndarray], threads: int | None = None
    ) -> None:
        self._config = config
        self._todo = layers(config)
        self._last = self._todo[-1].name
        self._threads = PinnedThreads(threads)
        nhwc = config.data_format == "NHWC"
        self._images = [{"data": x.transpose(2, 0, 1) if nhwc else x} for x in inputs]

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
                    values[layer.name] = np.clip(y, -_LARGEST, _LARGEST).astype("float16")
                self._images[i] = {n: v for n, v in values.items() if n in read_later}
            return np.zeros(())

        self.map(work)

    def logits(self, state: State) -> np.ndarray:
        """float32 [N, num_classes]."""
        self.advance(None, state)
        return np.stack([values[self._last] for values in self._images]).astype("float32")
