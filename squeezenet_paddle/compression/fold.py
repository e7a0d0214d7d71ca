"""Moves what a batch normalisation multiplies and adds into the linear layer that reads it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..network.config import ModelConfig, layers
from ..network.weights import key_of

State = Mapping[str, np.ndarray]


def folded(config: ModelConfig, state: State) -> dict[str, np.ndarray]:
    """The same network, whose normalisations before linear layers have weights 1 and biases 0.

    Means and variances stay, so that it can be trained on.

    Args:
        config: which network.
        state: arrays by state-dict key.
    """
    result = dict(state)
    chain = {layer.name: layer for layer in layers(config)}
    for layer in chain.values():
        norm = chain.get(layer.bottoms[0])
        if layer.type == "InnerProduct" and norm is not None and norm.type == "BatchNorm":
            weight, bias = f"{key_of(norm)}.weight", f"{key_of(norm)}.bias"
            linear = state[f"{key_of(layer)}.weight"]  # [inputs, outputs]
            result[f"{key_of(layer)}.weight"] = state[weight][:, None] * linear
            result[f"{key_of(layer)}.bias"] = state[f"{key_of(layer)}.bias"] + state[bias] @ linear
            result[weight], result[bias] = np.ones_like(state[weight]), np.zeros_like(state[bias])
    return result
