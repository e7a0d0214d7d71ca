"""Features before a stage: every engine gives numpy's, of each image independently."""

from __future__ import annotations

import importlib.metadata
import logging

import numpy as np
import paddle
import pytest
from networks import random_state
from spoiled import spoil_onnxruntime

from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.engines.batches import FeatureEngine
from squeezenet_paddle.engines.load import is_installed, load_features
from squeezenet_paddle.errors import RunError
from squeezenet_paddle.network import numpy_forward
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.network.stages import boundary

SIZE = 35
INPUTS = np.random.default_rng(1).normal(0, 60, (5, 3, SIZE, SIZE)).astype("float32")


def load(
    config: ModelConfig, trained_from: str, engine: str = "auto", threads: int = 2
) -> FeatureEngine:
    preprocess = Preprocess(resize_size=40, crop_size=SIZE, data_format=config.data_format)
    state = random_state(config)
    return load_features(config, state, preprocess, trained_from, "cpu", engine, threads)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "dynamic"])
@pytest.mark.parametrize(
    ("config", "trained_from"),
    [
        (ModelConfig(num_classes=4, head="multiscale"), "head"),
        (ModelConfig(num_classes=4, head="multiscale", bypass="simple"), "fire8"),
        (ModelConfig("1.0", num_classes=4, activation="elu"), "fire9"),
        (ModelConfig(num_classes=4, head="multiscale", data_format="NHWC"), "fire7"),
    ],
)
def test_features_are_those_of_numpy(config: ModelConfig, trained_from: str, engine: str) -> None:
    if not is_installed(engine):
        pytest.skip(f"{engine} is not installed")
    nhwc = config.data_format == "NHWC"
    inputs = INPUTS.transpose(0, 2, 3, 1).copy() if nhwc else INPUTS
    found = load(config, trained_from, engine).features(inputs)
    assert found.dtype == np.float16
    for x, row in zip(inputs, found):
        values = numpy_forward.activations(config, random_state(config), x)
        expected = np.concatenate([values[name].ravel() for name in boundary(config, trained_from)])
        assert row.shape == expected.shape
        assert np.allclose(row, expected, rtol=2e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "dynamic"])
def test_an_image_depends_on_no_other(engine: str) -> None:
    if not is_installed(engine):
        pytest.skip(f"{engine} is not installed")
    config = ModelConfig(num_classes=4, head="multiscale")
    both, alone = load(config, "head", engine), load(config, "head", engine, threads=1)
    together = both.features(INPUTS)
    for i in range(len(INPUTS)):
        assert np.array_equal(both.features(INPUTS[i : i + 1])[0], together[i])
        assert np.array_equal(alone.features(INPUTS[i : i + 2])[0], together[i])
    assert both.features(INPUTS[:0]).shape == (0, both.size)


def test_an_engine_that_computes_something_else_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = ModelConfig(num_classes=4, head="multiscale")
    spoil_onnxruntime(monkeypatch, lambda features: features * 1.01)
    with pytest.raises(RunError, match=r"does not compute this network here: its features are off"):
        load(config, "head", "onnxruntime")
    with caplog.at_level(logging.WARNING):
        assert not load(config, "head").engine.startswith("onnxruntime")
    assert "Trying another engine" in caplog.text


def test_features_beyond_float16_are_cut_off() -> None:
    config = ModelConfig(num_classes=4)
    state = random_state(config)
    state["fire9.expand1x1.bias"] = np.full(256, 1e6, "float32")
    preprocess = Preprocess(resize_size=40, crop_size=SIZE)
    for engine in ("onnxruntime", "dynamic"):
        found = load_features(config, state, preprocess, "head", name=engine).features(INPUTS[:1])
        assert found.max() == np.finfo("float16").max


def test_features_of_a_gpu_have_a_name_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a part of the key of their cache."""
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.6.2")
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(paddle.device, "set_device", lambda name: None)
    config = ModelConfig(num_classes=4)
    preprocess = Preprocess(resize_size=40, crop_size=SIZE)
    state = random_state(config)
    of_cpu = load_features(config, state, preprocess, "head", "cpu", "dynamic")
    of_gpu = load_features(config, state, preprocess, "head", "gpu")
    assert of_gpu.engine == f"{of_cpu.engine} on a GPU"
    found, expected = (engine.features(INPUTS[:1]) for engine in (of_gpu, of_cpu))
    np.testing.assert_allclose(found, expected, rtol=2e-3)
