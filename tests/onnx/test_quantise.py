"""The integers of a network of 8 bits, against the float network and by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from networks import VARIANTS, network_of, pixels, state_of

from squeezenet_paddle.compression.int8 import quantise
from squeezenet_paddle.engines.onnxruntime import compile_onnx
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.onnx.quantise import read_constants, step_and_zero, step_of_outputs
from squeezenet_paddle.onnx.schema import ModelProto
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


def model_and_constants() -> tuple[bytes, dict[str, np.ndarray]]:
    config = VARIANTS[0]
    constants = quantise(config, state_of(network_of(config)), pixels(config, 3, 40))
    state = state_of(network_of(config))
    return onnx_model(config, state, GraphInput(40, 40), quantised=constants), constants


def test_the_file_holds_the_constants() -> None:
    model, constants = model_and_constants()
    found = read_constants(model, VARIANTS[0], "x.onnx")
    assert found.keys() == constants.keys()
    for name, expected in constants.items():
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected)


def test_damaged_files_are_named() -> None:
    model, _ = model_and_constants()
    with pytest.raises(InputError, match="x.onnx: no ONNX file"):
        read_constants(b"\xff\xfe{}", VARIANTS[0], "x.onnx")
    with pytest.raises(InputError, match="x.onnx, data/scale: a single float32 was expected"):
        read_constants(b"", VARIANTS[0], "x.onnx")
    other = dataclasses.replace(VARIANTS[0], num_classes=6)
    with pytest.raises(InputError, match=r"conv10.weight/int8: 6x512x1x1 int8 was expected"):
        read_constants(model, other, "x.onnx")
    for name, change, message in (
        ("conv1/scale", np.float32(np.nan).tobytes(), "conv1/scale: steps above 0"),
        ("conv1/scale", np.float32(0).tobytes(), "conv1/scale: steps above 0"),
        ("conv1.weight/int8", b"123", "conv1.weight/int8: 1,728 bytes were expected"),
    ):
        damaged = ModelProto.FromString(model)
        [constant] = [each for each in damaged.graph.initializer if each.name == name]
        constant.raw_data = change
        with pytest.raises(InputError, match=f"x.onnx, {message}"):
            read_constants(damaged.SerializeToString(), VARIANTS[0], "x.onnx")


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
