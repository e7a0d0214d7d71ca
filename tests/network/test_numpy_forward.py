"""The network in numpy that engines are compared with, against Paddle."""

from __future__ import annotations

import numpy as np
import pytest
from networks import (
    VARIANTS,
    assert_same,
    logits_of,
    name_of,
    network_of,
    pixels,
    state_of,
)

from squeezenet_paddle.network import numpy_forward
from squeezenet_paddle.network.config import ModelConfig, layers
from squeezenet_paddle.network.weights import state_shapes


@pytest.mark.parametrize("config", VARIANTS, ids=name_of)
@pytest.mark.parametrize("size", [40, 43])
def test_logits_are_those_of_paddle(config: ModelConfig, size: int) -> None:
    network = network_of(config)
    inputs = pixels(config, 2, size)
    state = state_of(network)
    found = np.stack([numpy_forward.logits(config, state, x) for x in inputs])
    assert_same(found, logits_of(network, inputs))


def test_activations_are_those_of_every_layer() -> None:
    config = VARIANTS[2]
    state = state_of(network_of(config))
    x = pixels(config, 1, 40)[0]
    values = numpy_forward.activations(config, state, x)
    assert set(values) == {"data"} | {layer.name for layer in layers(config)}
    assert values["data"] is x
    expands = [values[f"fire2/expand{k}"] for k in ("1x1", "3x3")]
    assert (values["fire2/concat"] == np.concatenate(expands)).all()
    assert values["conv1"].shape == (64, 19, 19)
    assert values["conv1"].min() == 0


@pytest.mark.parametrize("config", VARIANTS, ids=name_of)
def test_shapes_of_the_state_are_those_of_paddle(config: ModelConfig) -> None:
    state = network_of(config).state_dict()
    assert state_shapes(config) == {key: tuple(tensor.shape) for key, tensor in state.items()}
