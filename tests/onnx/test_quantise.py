"""The integers of a network of 8 bits, against the float network and by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from networks import VARIANTS, name_of, network_of, pixels, state_of

from squeezenet_paddle.compression.equalise import equalised
from squeezenet_paddle.compression.int8 import quantise
from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.engines.onnxruntime import compile_onnx
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.network.config import ModelConfig, layers
from squeezenet_paddle.network.numpy_forward import activations
from squeezenet_paddle.network.weights import key_of
from squeezenet_paddle.onnx.quantise import read_constants, step_and_zero, step_of_outputs
from squeezenet_paddle.onnx.schema import ModelProto
from squeezenet_paddle.onnx.writer import GraphInput, onnx_model

ModelAndConstants = tuple[bytes, dict[str, np.ndarray]]


def run(model: bytes, inputs: np.ndarray) -> np.ndarray:
    return compile_onnx(model, 1)[0](inputs)[0]


def test_a_range_has_256_steps_and_zero_is_one_of_them() -> None:
    step, zero = step_and_zero(-1.0, 4.1)
    assert step == pytest.approx(5.1 / 255)
    assert zero == 50
    assert step_and_zero(2.0, 5.1)[1] == 0  # a range includes 0
    assert step_and_zero(0.0, 0.0)[0] > 0
    steps, zeros = step_and_zero(np.array([-104.0, 0.0]), np.array([151.0, 510.0]))
    assert steps.tolist() == [1, 2]
    assert zeros.tolist() == [104, 0]


def test_steps_let_weights_have_a_largest_index_and_biases_32_bits() -> None:
    weight = np.array([[[[0.63]], [[-0.1]]], [[[0.0]], [[0.0]]]], "float32")
    steps = step_of_outputs(weight, np.array([0, 8], "float32"), np.float32(0.5), 63)
    assert steps == pytest.approx([0.01, 16 / 2**30])


@pytest.fixture(scope="module")
def model_and_constants() -> ModelAndConstants:
    config = VARIANTS[0]
    constants = quantise(config, state_of(network_of(config)), pixels(config, 3, 40))
    state = state_of(network_of(config))
    return onnx_model(config, state, GraphInput(40, 40), quantised=constants), constants


def test_the_file_holds_the_constants(model_and_constants: ModelAndConstants) -> None:
    model, constants = model_and_constants
    found = read_constants(model, VARIANTS[0], "x.onnx")
    assert found.keys() == constants.keys()
    for name, expected in constants.items():
        assert found[name].dtype == expected.dtype
        np.testing.assert_array_equal(found[name], expected)


def test_damaged_files_are_named(model_and_constants: ModelAndConstants) -> None:
    model, _ = model_and_constants
    with pytest.raises(InputError, match="x.onnx: no ONNX file"):
        read_constants(b"\xff\xfe{}", VARIANTS[0], "x.onnx")
    with pytest.raises(InputError, match="x.onnx, data/scale: 3 float32 was expected"):
        read_constants(b"", VARIANTS[0], "x.onnx")
    other = dataclasses.replace(VARIANTS[0], num_classes=6)
    with pytest.raises(InputError, match=r"conv10.weight/int8: 6x512x1x1 int8 was expected"):
        read_constants(model, other, "x.onnx")
    for name, change, message in (
        ("conv1/scale", np.float32(np.nan).tobytes(), "conv1/scale: steps above 0"),
        ("conv1/scale", np.float32(0).tobytes(), "conv1/scale: steps above 0"),
        ("data/zero", b"12", "data/zero: 3 bytes were expected"),
        ("conv1.weight/int8", b"123", "conv1.weight/int8: 1,728 bytes were expected"),
    ):
        damaged = ModelProto.FromString(model)
        [constant] = [each for each in damaged.graph.initializer if each.name == name]
        constant.raw_data = change
        with pytest.raises(InputError, match=f"x.onnx, {message}"):
            read_constants(damaged.SerializeToString(), VARIANTS[0], "x.onnx")


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(resize_size=40, crop_size=40),
        Preprocess(
            resize_size=40,
            crop_size=40,
            channel_order="RGB",
            scale=1 / 255,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            data_format="NHWC",
        ),
    ],
)
def test_pixels_are_what_they_were(
    preprocess: Preprocess, model_and_constants: ModelAndConstants
) -> None:
    """Every value of a pixel has its own of the 256 integers."""
    config = dataclasses.replace(VARIANTS[0], data_format=preprocess.data_format)
    step, zero = step_and_zero(*preprocess.limits)
    constants = {**model_and_constants[1], "data/scale": step, "data/zero": zero}
    state = state_of(network_of(config))
    data = onnx_model(config, state, GraphInput(40, 40), quantised=constants)
    model = ModelProto.FromString(data)
    [node] = [each for each in model.graph.node if "data/scale" in each.input]
    del model.graph.output[:]
    model.graph.output.add(name=node.output[0])
    pixels = np.resize(np.arange(256, dtype="uint8"), (40, 40, 3))
    found = run(model.SerializeToString(), preprocess.normalise(pixels)[None])[0]
    if preprocess.channel_order == "RGB":
        pixels = pixels[:, :, ::-1]
    np.testing.assert_array_equal(found, pixels.transpose(2, 0, 1))


def test_products_of_two_channels_fit_16_bits(model_and_constants: ModelAndConstants) -> None:
    """As processors without instructions for four products add them; some indices need 8 bits."""
    _, constants = model_and_constants
    largest = 0
    for layer in layers(VARIANTS[0]):
        q = constants[f"{key_of(layer)}.weight/int8"].astype(int) if layer.weight_shape else None
        if q is None or layer.type != "Convolution":
            continue
        largest = max(largest, np.abs(q).max())
        if layer.in_channels % 2:
            assert np.abs(q).max() <= 64, layer.name
            continue
        for part in np.maximum(q, 0), np.maximum(-q, 0):
            assert 255 * (part[:, ::2] + part[:, 1::2]).max() < 2**15, layer.name
    assert largest == 127


@pytest.mark.parametrize("config", [c for c in VARIANTS if c.activation == "relu"], ids=name_of)
def test_equalised_networks_compute_the_same(config: ModelConfig) -> None:
    config = dataclasses.replace(config, data_format="NCHW")
    state, [x] = state_of(network_of(config)), pixels(config, 1, 40)
    values = activations(config, state, x)
    rng = np.random.default_rng(1)
    largest = {name: rng.uniform(0, 9, len(value)) for name, value in values.items()}
    changed, scales = equalised(config, state, largest)
    assert {"conv1", "fire2/squeeze1x1", "fire9/squeeze1x1"} <= scales.keys()
    found = activations(config, changed, x)
    for name, scale in scales.items():
        np.testing.assert_allclose(
            found[name] * scale[:, None, None], values[name], rtol=1e-3, atol=1e-4
        )
    last = layers(config)[-1].name
    np.testing.assert_allclose(found[last], values[last], rtol=1e-4, atol=1e-5)


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
