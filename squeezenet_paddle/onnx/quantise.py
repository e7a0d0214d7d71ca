"""Calibration: ranges of all layers on real images, which give 8-bit integers their steps."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..network.config import ModelConfig, layers
from ..network.numpy_forward import activations

CALIBRATION_IMAGES = 64
_LARGEST = 1e30  # a value that a layer may give
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


def from_json(data: bytes, config: ModelConfig, source: str) -> dict[str, Statistics]:
    """Statistics from the file that `to_json` wrote.

    Args:
        data: the file.
        config: the network that they are of.
        source: what errors call the file.

    Raises:
        InputError: it is damaged, or of another network.
    """
    try:
        content = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: not JSON ({error}).") from error
    channels = {"data": 3, **{layer.name: layer.channels for layer in layers(config)}}
    if not isinstance(content, dict) or set(content) != set(channels):
        raise InputError(f"{source}: statistics of the input and of every layer were expected.")
    statistics = {}
    for name, values in content.items():
        if not (
            isinstance(values, dict)
            and set(values) == {"low", "high", "mean"}
            and isinstance(values["mean"], list)
            and len(values["mean"]) == channels[name]
            and all(map(_is_finite, (values["low"], values["high"], *values["mean"])))
            and values["low"] <= values["high"]
        ):
            raise InputError(
                f"{source}, {name}: the ends of a range, low and high, and {channels[name]} means "
                "were expected, finite numbers."
            )
        statistics[name] = Statistics(values["low"], values["high"], tuple(values["mean"]))
    return statistics


def _is_finite(value: object) -> bool:
    """Whether it is a number that float32 can hold."""
    return type(value) in (int, float) and abs(value) < _LARGEST  # type: ignore[arg-type]
