"""Statistics for 8 bits, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from networks import VARIANTS, network_of, pixels, state_of

from squeezenet_paddle.network import numpy_forward
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
    statistics = {"data": Statistics(-0.1, 2.5, (0.25, 1 / 3)), "conv1": Statistics(0, 1, (0.5,))}
    back = from_json(to_json(statistics))
    assert {name: (s.low, s.high, tuple(s.mean)) for name, s in back.items()} == {
        name: (s.low, s.high, s.mean) for name, s in statistics.items()
    }
