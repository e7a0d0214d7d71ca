"""Statistics for 8 bits, by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from networks import VARIANTS, network_of, pixels, state_of

from squeezenet_paddle.errors import InputError
from squeezenet_paddle.network import numpy_forward
from squeezenet_paddle.network.config import layers
from squeezenet_paddle.onnx.quantise import Statistics, calibrate, from_json, to_json


def test_statistics_join_images() -> None:
    config = VARIANTS[0]
    state, inputs = state_of(network_of(config)), pixels(config, 3, 40)
    found = calibrate(config, state, inputs)
    data = found["data"]
    ends = [np.sort(x.ravel())[[0, -1]] for x in inputs]
    assert data.low == pytest.approx(min(low for low, _ in ends), abs=2e-3)
    assert data.high == pytest.approx(max(high for _, high in ends), abs=2e-3)
    assert data.mean == pytest.approx(inputs.mean(axis=(0, 2, 3)), abs=1e-6)
    conv1 = np.stack([numpy_forward.activations(config, state, x)["conv1"] for x in inputs])
    assert found["conv1"].high <= conv1.max()
    beyond = [np.mean(maps > found["conv1"].high) for maps in conv1]
    assert 0 < max(beyond) <= 2e-4
    assert found["conv1"].mean == pytest.approx(conv1.mean(axis=(0, 2, 3)), abs=1e-5)


def test_json_keeps_them() -> None:
    config = VARIANTS[0]
    statistics = {layer.name: Statistics(0, 1, (0.5,) * layer.channels) for layer in layers(config)}
    statistics["data"] = Statistics(-0.1, 2.5, (0.25, 1 / 3, 1.0))
    assert from_json(to_json(statistics).encode(), config, "int8.json") == statistics


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("conv1"), "int8.json: statistics of the input and of every"),
        (lambda content: content.update(conv1=None), "int8.json, conv1: the ends of a range"),
        (lambda content: content["conv1"].update(low=2), "int8.json, conv1: the ends"),
        (lambda content: content["conv1"].update(high=float("nan")), "int8.json, conv1: the ends"),
        (lambda content: content["conv1"].update(low="0"), "int8.json, conv1: the ends"),
        (lambda content: content["conv1"].update(mean=[0.5]), "conv1: .* 64 means"),
        (lambda content: content["conv1"].pop("mean"), "int8.json, conv1: the ends"),
    ],
)
def test_damaged_statistics_are_named(change: Callable[[Any], object], message: str) -> None:
    config = VARIANTS[0]
    statistics = {layer.name: Statistics(0, 1, (0.5,) * layer.channels) for layer in layers(config)}
    statistics["data"] = Statistics(0, 1, (0.5,) * 3)
    content = json.loads(to_json(statistics))
    change(content)
    with pytest.raises(InputError, match=message):
        from_json(json.dumps(content).encode(), config, "int8.json")


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"\xff\xfe{}", b"[" * 100_000])
def test_statistics_that_are_none_are_named(data: bytes) -> None:
    with pytest.raises(InputError, match=r"int8\.json: "):
        from_json(data, VARIANTS[0], "int8.json")
