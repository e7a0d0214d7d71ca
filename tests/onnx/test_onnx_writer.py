"""ONNX files, judged by onnx.checker and run by ONNX Runtime and Paddle."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import onnx
import onnxruntime
import pytest
from networks import (
    VARIANTS,
    assert_same,
    logits_of,
    name_of,
    network_of,
    pixels,
    state_of,
)

from squeezenet_paddle.compression.int8 import quantise
from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.onnx.writer import GraphInput, onnx_model


def run(model: bytes, inputs: np.ndarray) -> np.ndarray:
    """Logits by ONNX Runtime, of a file that the checker accepts in full."""
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    [graph_input] = session.get_inputs()
    [output] = session.get_outputs()
    assert output.name == "logits"
    [logits] = session.run(None, {graph_input.name: inputs})
    assert list(logits.shape) == [len(inputs), output.shape[1]]
    return logits


@pytest.mark.parametrize("config", VARIANTS, ids=name_of)
@pytest.mark.parametrize("concat", [True, False])
def test_logits_are_those_of_paddle(config: ModelConfig, concat: bool) -> None:
    network = network_of(config)
    for size in (40, 43):
        graph_input = GraphInput(size, size)
        model = onnx_model(config, state_of(network), graph_input, concat)
        for count in (1, 7):
            inputs = pixels(config, count, size)
            assert_same(run(model, inputs), logits_of(network, inputs))


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("size", [224, 227])
def test_real_sizes(version: str, size: int) -> None:
    """Each version shows a pool that rounds down at only one of them."""
    config = ModelConfig(version, 7)
    network = network_of(config)
    model = onnx_model(config, state_of(network), GraphInput(size, size))
    inputs = pixels(config, 1, size)
    assert_same(run(model, inputs), logits_of(network, inputs))


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(crop_size=40),
        Preprocess(crop_size=40, scale=1 / 255, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.25)),
        Preprocess(crop_size=40, scale=1 / 128, mean=(1, 1, 1), data_format="NHWC"),
    ],
)
def test_preprocessing_in_the_graph(preprocess: Preprocess) -> None:
    config = ModelConfig(num_classes=5, data_format=preprocess.data_format)
    network = network_of(config)
    graph_input = GraphInput(40, 40, preprocess=preprocess)
    model = onnx_model(config, state_of(network), graph_input)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), "uint8")
    inputs = np.stack([preprocess.normalise(each) for each in pixels])
    assert_same(run(model, pixels), logits_of(network, inputs))


def test_a_batch_may_be_fixed() -> None:
    config = VARIANTS[0]
    state = state_of(network_of(config))
    model = onnx_model(config, state, GraphInput(40, 40, batch=3))
    assert run(model, pixels(config, 3, 40)).shape == (3, 5)
    with pytest.raises(Exception, match="Got: 2 Expected: 3"):
        run(model, pixels(config, 2, 40))


def test_metadata_is_json_by_key() -> None:
    config = VARIANTS[4]  # NHWC
    metadata = {"network": dataclasses.asdict(config), "note": "grün"}
    state = state_of(network_of(config))
    data = onnx_model(config, state, GraphInput(40, 40), metadata=metadata)
    model = onnx.load_from_string(data)
    assert {entry.key: json.loads(entry.value) for entry in model.metadata_props} == metadata
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]] == [40, 40, 3]


@pytest.mark.parametrize("config", VARIANTS, ids=name_of)
def test_eight_bits_keep_the_logits_roughly(config: ModelConfig) -> None:
    network = network_of(config)
    state, inputs = state_of(network), pixels(config, 8, 40)
    quantised = quantise(config, state, inputs)
    float32 = onnx_model(config, state, GraphInput(40, 40))
    int8 = onnx_model(config, state, GraphInput(40, 40), quantised=quantised)
    assert len(int8) < 0.45 * len(float32)
    expected = logits_of(network, inputs)
    found = run(int8, inputs)
    assert np.abs(found - expected).max() > 0  # it does compute with fewer bits
    correlation = np.corrcoef((found - expected.mean()).ravel(), expected.ravel())[0, 1]
    assert correlation > 0.98


def test_eight_bits_with_channels_of_zeros() -> None:
    config = VARIANTS[0]
    network = network_of(config)
    state = state_of(network)
    state["fire3.expand1x1.weight"][:3] = 0  # their bias is all they give
    state["fire4.squeeze1x1.weight"][:] = 0
    state["fire4.squeeze1x1.bias"][:] = 0  # and what follows sees zeros alone
    inputs = pixels(config, 4, 40)
    quantised = quantise(config, state, inputs)
    graph_input = GraphInput(40, 40)
    expected = run(onnx_model(config, state, graph_input), inputs)
    int8 = onnx_model(config, state, graph_input, quantised=quantised)
    np.testing.assert_allclose(run(int8, inputs), expected, atol=0.05 * np.abs(expected).max())
