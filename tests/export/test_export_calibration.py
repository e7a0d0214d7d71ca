"""Exports of calibrated models: the second output, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from conftest import Run
from networks import calibrate_dir, pixels, small_model_dir

from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.engines.load import load_engine
from squeezenet_paddle.export.export import Export, export
from squeezenet_paddle.model_dir import read_info
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.predict import Predictor

CONFIGS = [
    ModelConfig("1.1", 5, head="multiscale"),
    ModelConfig("1.0", 4, bypass="simple", data_format="NHWC"),
    ModelConfig("1.1", 3, head="conv_bn", activation="elu"),
]


@pytest.fixture(scope="module", params=CONFIGS, ids=lambda config: config.head)
def model_dir(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("calibrated") / "model"
    return calibrate_dir(small_model_dir(path, request.param))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "paddle", "dynamic"])
def test_every_engine_gives_the_same_means(model_dir: Path, engine: str) -> None:
    """The other output of each, beside numpy's: `load_engine` compares them."""
    info = read_info(model_dir)
    inputs = pixels(info.network, 5, 40)
    _, judge = load_engine(model_dir, info, "dynamic", with_means=True)
    _, found = load_engine(model_dir, info, engine, with_means=True)
    expected, outputs = judge.outputs(inputs), found.outputs(inputs)
    assert outputs.means is not None
    assert outputs.means.shape == (5, 512)
    np.testing.assert_allclose(outputs.means, expected.means, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(outputs.logits, found.logits(inputs))
    assert found.outputs(inputs[:0]).logits.shape == (0, info.network.num_classes)


def test_onnx_computes_familiarity(model_dir: Path, tmp_path: Path) -> None:
    info = read_info(model_dir)
    calibration = info.calibration
    assert calibration is not None
    images = list(np.random.default_rng(0).integers(0, 256, (3, 50, 50, 3), "uint8"))
    [file] = export(model_dir, info, Export("onnx", 40), images, tmp_path / "out").files
    onnx.checker.check_model(str(file), full_check=True)
    session = onnxruntime.InferenceSession(str(file))
    inputs = pixels(info.network, 5, 40)
    logits, familiarity = session.run(None, {"data": inputs})
    outputs = Predictor(model_dir, "cpu", "dynamic").outputs(inputs)
    assert outputs.means is not None
    np.testing.assert_allclose(logits, outputs.logits, rtol=1e-3, atol=1e-3)
    expected = calibration.familiarity(outputs.logits, outputs.means)
    np.testing.assert_allclose(familiarity[:, 0], expected, rtol=1e-3, atol=1e-3)
    assert [each.name for each in session.get_outputs()] == ["logits", "familiarity"]
    described = json.loads(session.get_modelmeta().custom_metadata_map["calibration"])
    assert described["temperature"] == 2.0
    assert described["threshold"] == 0.0
    assert described["output"]["name"] == "familiarity"
    assert "none of the classes" in described["steps"][1]
    labels = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert labels["models"]["model.onnx"]["calibration"] == described


def test_int8_has_it_too(tmp_path: Path) -> None:
    model = calibrate_dir(small_model_dir(tmp_path / "model", CONFIGS[0]))
    info = read_info(model)
    images = list(np.random.default_rng(0).integers(0, 256, (3, 50, 50, 3), "uint8"))
    file = export(model, info, Export("onnx", 40, precision="int8"), images, model).files[0]
    preprocess: Preprocess = info.preprocess
    inputs = np.stack([preprocess(image) for image in images])
    _, familiarity = onnxruntime.InferenceSession(str(file)).run(None, {"data": inputs})
    assert np.isfinite(familiarity).all()
    predictor = Predictor(model, "cpu", "onnxruntime", "int8")
    values = [answer.familiarity for answer in predictor.answers(inputs)]
    np.testing.assert_allclose(familiarity[:, 0], np.array(values, "float64"), rtol=0.05, atol=0.05)


def test_another_input_size_is_said(tmp_path: Path) -> None:
    model = calibrate_dir(small_model_dir(tmp_path / "model", CONFIGS[0]))
    images = list(np.random.default_rng(0).integers(0, 256, (1, 50, 50, 3), "uint8"))
    export(model, read_info(model), Export("onnx", 56), images, tmp_path / "out")
    [described] = json.loads((tmp_path / "out" / "labels.json").read_text())["models"].values()
    steps = described["calibration"]["steps"]
    assert "fitted to images of 40 pixels a side; how far they hold for 56" in steps[-1]


def test_paddle_gives_the_means(tmp_path: Path) -> None:
    model = calibrate_dir(small_model_dir(tmp_path / "model", CONFIGS[0]))
    info = read_info(model)
    images = list(np.random.default_rng(0).integers(0, 256, (3, 50, 50, 3), "uint8"))
    export(model, info, Export("paddle", 40), images, model)
    inputs = pixels(info.network, 3, 40)
    found = Predictor(model, "cpu", "paddle").answers(inputs)
    expected = Predictor(model, "cpu", "dynamic").answers(inputs)
    for one, other in zip(found, expected):
        assert one.familiarity == pytest.approx(other.familiarity, rel=1e-3, abs=1e-3)
    [described] = json.loads((model / "labels.json").read_text())["models"].values()
    assert described["calibration"]["output"]["shape"] == ["batch", 512]


def test_a_caffe_file_lacks_the_calibration(tmp_path: Path, call_tool: Run) -> None:
    model = calibrate_dir(small_model_dir(tmp_path / "model", ModelConfig("1.1", 4)))
    given = ("--model_dir", model, "--format", "caffe", "--output_dir", tmp_path / "caffe")
    done = call_tool("export", *given)
    assert done.returncode == 0, done.stderr
    assert "a Caffe file has no temperature, and no threshold for none of these" in done.stderr
