"""Calibration: ranges of all layers on real images, which give 8-bit integers their steps."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..network.config import ModelConfig
from ..network.numpy_forward import activations

CALIBRATION_IMAGES = 64
_CLIPPED = 1e-4  # the share of an image's values at either end that 8 bits need not reach


@dataclass(frozen=True)
class Statistics:
    """Range and means of a layer's output, or of the network's input.

    Attributes:
        low, high: the range of its values, without the few that lie far outside the others.
        mean: of each channel.
    """

    low: float
    high: float
    mean: tuple[float, ...]


def calibrate(
    config: ModelConfig, state: Mapping[str, np.ndarray], inputs: Iterable[np.ndarray]
) -> dict[str, Statistics]:
    """Runs images through the network and records the range and means of every layer.

    Args:
        config: which network.
        state: arrays by state-dict key.
        inputs: at least one image, each as `Preprocess` makes it.

    Returns:
        Statistics of "data" and of every layer, by name.
    """
    by_layer: dict[str, list[Statistics]] = {}
    for x in inputs:
        for name, values in activations(config, state, x).items():
            maps = values.reshape(len(values), -1)
            low, high = np.quantile(maps, [_CLIPPED, 1 - _CLIPPED])
            one = Statistics(float(low), float(high), tuple(maps.mean(axis=1)))
            by_layer.setdefault(name, []).append(one)
    return {name: _combine(parts) for name, parts in by_layer.items()}


def _combine(parts: list[Statistics]) -> Statistics:
    mean = np.mean([part.mean for part in parts], axis=0, dtype="float64")
    return Statistics(
        min(part.low for part in parts),
        max(part.high for part in parts),
        tuple(round(float(value), 6) for value in mean),
    )


def to_json(statistics: Mapping[str, Statistics]) -> str:
    """Statistics as the text of a file."""
    return json.dumps({name: dataclasses.asdict(each) for name, each in statistics.items()}) + "\n"


def from_json(text: str) -> dict[str, Statistics]:
    """Statistics from the text that `to_json` wrote."""
    return {name: Statistics(**each) for name, each in json.loads(text).items()}
