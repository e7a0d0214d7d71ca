"""The integers of a network of 8 bits, against the float network and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from networks import VARIANTS, network_of, pixels, state_of

from squeezenet_paddle.compression.int8 import quantise
from squeezenet_paddle.engines.onnxruntime import compile_onnx
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.onnx.quantise import constants_of, step_and_zero, step_of_outputs
from squeezenet_paddle.onnx.writer import GraphInput, onnx_model


def run(model: bytes, inputs: np.ndarray) -> np.ndarray:
    return compile_onnx(model, 1)[0](inputs)[0]


def test_a_range_has_256_steps_and_zero_is_one_of_them() -> None:
    step, zero = step_and_zero(-1.0, 4.1)
    assert step == pytest.approx(5.1 / 255)
    assert zero == 50
    assert step_and_zero(2.0, 5.1)[1] == 0  # a range includes 0
    assert step_and_zero(0.0, 0.0)[0] > 0


def test_steps_let_weights_have_7_bits_and_biases_32() -> None:
    weight = np.array([[[[0.63]], [[-0.1]]], [[[0.0]], [[0.0]]]], "float32")
    steps = step_of_outputs(weight, np.array([0, 8], "float32"), np.float32(0.5))
    assert steps == pytest.approx([0.01, 16 / 2**30])


def test_the_file_holds_the_constants() -> None:
    config = VARIANTS[0]
    state, inputs = state_of(network_of(config)), pixels(config, 3, 40)
    constants = quantise(config, state, inputs)
    found = constants_of(onnx_model(config, state, GraphInput(40, 40), quantised=constants))
    for name, expected in constants.items():
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected)


def test_squeezes_of_unequal_channels_are_equalised() -> None:
    """The same network, whose channels have sizes that differ by a hundred, loses no more."""
    config = ModelConfig(num_classes=5)
    state, inputs = state_of(network_of(config)), pixels(config, 6, 40)
    expected = run(onnx_model(config, state, GraphInput(40, 40)), inputs)
    scale = np.geomspace(0.1, 10, 16).astype("float32")
    uneven = dict(state)
    uneven["fire2.squeeze1x1.weight"] = (
        state["fire2.squeeze1x1.weight"] * scale[:, None, None, None]
    )
    uneven["fire2.squeeze1x1.bias"] = state["fire2.squeeze1x1.bias"] * scale
    for each in ("fire2.expand1x1.weight", "fire2.expand3x3.weight"):
        uneven[each] = state[each] / scale[:, None, None]

    def error(state: dict[str, np.ndarray]) -> float:
        constants = quantise(config, state, inputs)
        model = onnx_model(config, state, GraphInput(40, 40), quantised=constants)
        return float(np.square(run(model, inputs) - expected).sum())

    assert error(uneven) < 1.5 * error(state)
