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
    assert rounded["conv10"].error <= 0.015


def test_columns_of_very_different_sizes_are_kept() -> None:
    """Steps reach from one to 861; the smallest weights then get larger ones than they want."""
    config = ModelConfig(num_classes=3)
    state = random_state(config)
    for name in ("fire5.squeeze1x1", "conv10"):
        state[f"{name}.weight"][:, 0] *= 1e-6
    inputs = list(pixels(config, 1, 40))
    compressor = Compressor(config, state, inputs, threads=1)
    errors = {}

    def at(layer: Layer, problem: Any) -> Rounded:
        rounded = problem.rounded(1e-30, passes=1)
        errors[layer.name] = rounded.error
        return rounded

    compressor._run(inputs, at, "rounding")
    assert max(errors.values()) < 0.02


def test_a_network_that_says_nothing_has_layers_of_equal_worth() -> None:
    """As one of one class, whose probability is always 1."""
    config = ModelConfig(num_classes=1)
    compressor = Compressor(config, random_state(config), list(pixels(config, 1, 40)), threads=1)
    assert set(compressor._sensitivity.values()) == {1.0}
