"""What a file of a given size keeps of a network."""

from __future__ import annotations

from typing import Any

import numpy as np
from networks import pixels, random_state

from squeezenet_paddle.compression.post import Compressor, Rounded
from squeezenet_paddle.network.config import Layer, ModelConfig


def test_a_classifier_of_few_classes_is_kept_at_any_size() -> None:
    """The other layers are rounded to nothing where a byte is worth more than all that they do."""
    config = ModelConfig(num_classes=3)
    compressor = Compressor(config, random_state(config), list(pixels(config, 1, 40)), threads=1)
    rounded: dict[str, Rounded] = {}

    def at(layer: Layer, problem: Any) -> Rounded:
        rounded[layer.name] = problem.rounded(1e9, passes=1)
        return rounded[layer.name]

    compressor._run(list(pixels(config, 1, 40)), at, "rounding")
    assert not np.any(rounded["fire9/expand3x3"].indices.values)
    assert np.any(rounded["conv10"].indices.values)
    assert rounded["conv10"].error <= 0.1
