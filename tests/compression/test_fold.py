"""Normalisations before linear layers, folded into these."""

from __future__ import annotations

import numpy as np
from networks import pixels, random_state

from squeezenet_paddle.compression.fold import folded
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.network.numpy_forward import logits


def test_the_network_says_the_same() -> None:
    config = ModelConfig(num_classes=5, head="compact")
    state, [image] = random_state(config), pixels(config, 1, 40)
    found = folded(config, state)
    assert set(found["bn_pools.weight"]) == {1}
    assert set(found["bn_pools.bias"]) == {0}
    for key in ("bn_pools._mean", "bn_pools._variance", "fc.weight", "conv1.weight"):
        assert found[key] is state[key]
    expected = logits(config, state, image)
    np.testing.assert_allclose(logits(config, found, image), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.01


def test_a_normalisation_before_a_convolution_stays() -> None:
    """That of v1.0 pads its input with zeros, which are not what a zero becomes."""
    config = ModelConfig("1.0", num_classes=5, head="conv_bn")
    state = random_state(config)
    assert all(values is state[key] for key, values in folded(config, state).items())
