"""What the layers of a network give on real images, from which 8-bit integers get their steps."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..network.config import ModelConfig
from ..network.numpy_forward import activations

CALIBRATION_IMAGES = 64
_BEYOND = 1e-4  # the share of an image's values at either end that 8 bits need not reach


@dataclass(frozen=True)
class Statistics:
    """Of a layer's output, or of the network's input.

    Attributes:
        low, high: the range of its values, but for the few that lie far outside the others.
        mean: of each channel.
    """

    low: float
    high: float
    mean: tuple[float, ...]


def calibrate(
    config: ModelConfig, state: Mapping[str, np.ndarray], inputs: Iterable[np.ndarray]
) -> dict[str, Statistics]:
    """Runs images through the network and keeps what its layers give.

    Args:
        config: which network.
        state: arrays by state-dict key.
        inputs: as `Preprocess` makes them, one an image, of at least one image.

    Returns:
        Statistics of "data" and of every layer, by name.
    """
    found: dict[str, list[Statistics]] = {}
    for x in inputs:
        for name, values in activations(config, state, x).items():
            maps = values.reshape(len(values), -1)
            low, high = np.quantile(maps, [_BEYOND, 1 - _BEYOND])
            one = Statistics(float(low), float(high), tuple(maps.mean(axis=1)))
            found.setdefault(name, []).append(one)
    return {name: _joined(parts) for name, parts in found.items()}


def _joined(parts: list[Statistics]) -> Statistics:
    mean = np.mean([part.mean for part in parts], axis=0, dtype="float64")
    return Statistics(
        min(part.low for part in parts),
        max(part.high for part in parts),
        tuple(round(float(value), 6) for value in mean),
    )


def to_json(statistics: Mapping[str, Statistics]) -> str:
    """A file of statistics."""
    return json.dumps({name: dataclasses.asdict(each) for name, each in statistics.items()}) + "\n"


def from_json(text: str) -> dict[str, Statistics]:
    """What `to_json` wrote."""
    return {name: Statistics(**each) for name, each in json.loads(text).items()}
