"""The dynamic-graph engine: the network's logits, for any size of batch."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from networks import build, random_state

from squeezenet_paddle.engines.dynamic import DynamicEngine
from squeezenet_paddle.network.config import CHOICES
from squeezenet_paddle.network.model import load_state

SIZE = 61


def pixels(count: int, data_format: str) -> np.ndarray:
    shape = (count, 3, SIZE, SIZE) if data_format == "NCHW" else (count, SIZE, SIZE, 3)
    return np.random.default_rng(0).uniform(-120, 150, shape).astype("float32")


@pytest.mark.parametrize("head", CHOICES["head"])
@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
def test_logits_are_the_networks_whatever_the_batch(
    head: str, data_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("squeezenet_paddle.network.fast_cpu.MICRO_PIXELS", 3 * SIZE * SIZE)
    network = build(50, head=head, data_format=data_format)
    inputs = pixels(11, data_format)
    engine = DynamicEngine(network, "cpu", threads=2)
    logits = engine.logits(inputs)
    assert logits.dtype == np.float32
    with paddle.no_grad():
        expected = network(paddle.to_tensor(inputs)).numpy()
    others = [expected, DynamicEngine(network, "cpu", 3).logits(inputs)]
    others += [engine.logits(inputs[:count]) for count in (1, 4)]
    for other in others:
        near = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(logits[: len(other)], other, rtol=1e-5, atol=near)
    assert engine.logits(inputs[:0]).shape == (0, 50)


def test_changed_weights_are_seen() -> None:
    network = build(50)
    engine = DynamicEngine(network, "cpu")
    inputs = pixels(3, "NCHW")
    before = engine.logits(inputs)
    load_state(network, random_state(network.config, seed=1), "other weights")
    assert not np.allclose(engine.logits(inputs), before)
