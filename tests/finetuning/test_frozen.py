"""The frozen part: every engine gives numpy's features, of each image by itself."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from networks import random_state

from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.engines.load import is_installed
from squeezenet_paddle.errors import RunError
from squeezenet_paddle.finetuning import frozen
from squeezenet_paddle.finetuning.frozen import FrozenPart
from squeezenet_paddle.network import numpy_forward
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.network.stages import boundary

SIZE = 35
INPUTS = np.random.default_rng(1).normal(0, 60, (5, 3, SIZE, SIZE)).astype("float32")


def part(config: ModelConfig, first: str, engine: str | None, threads: int = 2) -> FrozenPart:
    preprocess = Preprocess(resize_size=40, crop_size=SIZE, data_format=config.data_format)
    return FrozenPart(config, random_state(config), preprocess, first, "cpu", engine, threads)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "dynamic"])
@pytest.mark.parametrize(
    ("config", "first"),
    [
        (ModelConfig(num_classes=4, head="multiscale"), "head"),
        (ModelConfig(num_classes=4, head="multiscale", bypass="simple"), "fire8"),
        (ModelConfig("1.0", num_classes=4, activation="elu"), "fire9"),
        (ModelConfig(num_classes=4, head="multiscale", data_format="NHWC"), "fire7"),
    ],
)
def test_features_are_those_of_numpy(config: ModelConfig, first: str, engine: str) -> None:
    if not is_installed(engine):
        pytest.skip(f"{engine} is not installed")
    nhwc = config.data_format == "NHWC"
    inputs = INPUTS.transpose(0, 2, 3, 1).copy() if nhwc else INPUTS
    found = part(config, first, engine).features(inputs)
    assert found.dtype == np.float16
    for x, row in zip(inputs, found):
        values = numpy_forward.activations(config, random_state(config), x)
        expected = np.concatenate([values[name].ravel() for name in boundary(config, first)])
        assert row.shape == expected.shape
        assert np.allclose(row, expected, rtol=2e-3, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "dynamic"])
def test_a_image_depends_on_no_other(engine: str) -> None:
    if not is_installed(engine):
        pytest.skip(f"{engine} is not installed")
    config = ModelConfig(num_classes=4, head="multiscale")
    both, alone = part(config, "head", engine), part(config, "head", engine, threads=1)
    together = both.features(INPUTS)
    for i in range(len(INPUTS)):
        assert np.array_equal(both.features(INPUTS[i : i + 1])[0], together[i])
        assert np.array_equal(alone.features(INPUTS[i : i + 2])[0], together[i])
    assert both.features(INPUTS[:0]).shape == (0, both.size)


def test_an_engine_that_computes_something_else_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = ModelConfig(num_classes=4, head="multiscale")
    good = frozen._MAKERS["onnxruntime"]

    def bad(*given: object) -> list[frozen.Run]:
        return [lambda x, run=run: [y * 1.01 for y in run(x)] for run in good(*given)]

    monkeypatch.setitem(frozen._MAKERS, "onnxruntime", bad)
    with pytest.raises(RunError, match="does not compute this network"):
        part(config, "head", "onnxruntime")
    with caplog.at_level(logging.WARNING):
        assert not part(config, "head", None).engine.startswith("onnxruntime")
    assert "Another engine is tried" in caplog.text


def test_features_beyond_float16_are_cut_off() -> None:
    config = ModelConfig(num_classes=4)
    state = random_state(config)
    state["fire9.expand1x1.bias"] = np.full(256, 1e6, "float32")
    preprocess = Preprocess(resize_size=40, crop_size=SIZE)
    found = FrozenPart(config, state, preprocess, "head", "cpu", "dynamic").features(INPUTS[:1])
    assert found.max() == np.finfo("float16").max
