"""Descriptions of exports: whoever follows nothing else gets the network's logits."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from networks import VARIANTS, network_of, random_state, small_model_dir
from PIL import Image

from squeezenet_paddle.data.preprocess import CAFFE_MEAN, Preprocess
from squeezenet_paddle.engines.paddle_inference import compile_paddle
from squeezenet_paddle.export.export import Export, export
from squeezenet_paddle.export_record import GRAPHS
from squeezenet_paddle.model_dir import ModelInfo, read_info, write_model_dir
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.predict import Predictor

PREPROCESSES = {
    "authors": Preprocess(resize_size=48, crop_size=41),
    "torchvision": Preprocess(
        *("short_side", 48, "linear", 41, "RGB", 1 / 255),
        *((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ),
    "nhwc": Preprocess(
        resize_size=48, crop_size=41, interpolation="area", std=(2.0, 3.0, 4.0), data_format="NHWC"
    ),
}


@pytest.fixture(params=PREPROCESSES.values(), ids=PREPROCESSES)
def model_dir(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    preprocess: Preprocess = request.param
    network = network_of(ModelConfig(num_classes=5, data_format=preprocess.data_format))
    info = ModelInfo(network.config, preprocess, [f"Größe {i}" for i in range(5)])
    write_model_dir(tmp_path / "model", info, network.state_dict())
    return tmp_path / "model"


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    """An image of the size to which images are resized, as Pillow and OpenCV resize differently."""
    patches = np.random.default_rng(3).integers(0, 256, (5, 6, 3), "uint8")
    file = tmp_path / "image.png"
    cv2.imwrite(str(file), cv2.resize(patches, (48, 48), interpolation=cv2.INTER_CUBIC))
    return file


def follow(description: dict[str, Any], file: Path) -> np.ndarray:
    """The input of a graph, made with Pillow and numpy as the description says."""
    taken, how = description["input"], description["preprocess"]
    pixels = np.asarray(Image.open(file).convert("RGB"))
    if how["channel_order"] == "BGR":
        pixels = pixels[:, :, ::-1]
    assert pixels.shape[:2] == (how["resize_size"], how["resize_size"])
    top, left = ((side - how["crop_size"]) // 2 for side in pixels.shape[:2])
    crop = pixels[top : top + how["crop_size"], left : left + how["crop_size"]]
    x = (crop * how["scale"] - np.array(how["mean"])) / np.array(how["std"])
    if taken["layout"] == "NCHW":
        x = x.transpose(2, 0, 1)
    x = x[None].astype(taken["dtype"])
    assert list(x.shape)[1:] == taken["shape"][1:]
    return np.ascontiguousarray(x)


def our_logits(model_dir: Path, file: Path) -> np.ndarray:
    predictor = Predictor(model_dir, "cpu", "dynamic")
    return predictor.logits(predictor.info.preprocess(cv2.imread(str(file)))[None])


def write(model_dir: Path, file: Path, *what: Any) -> list[Path]:
    return export(
        model_dir, read_info(model_dir), Export(*what), [cv2.imread(str(file))], model_dir
    ).files


@pytest.mark.parametrize("with_preprocess", [False, True], ids=["data", "pixels"])
def test_following_the_metadata_of_an_onnx_file_gives_our_logits(
    with_preprocess: bool, model_dir: Path, image_file: Path
) -> None:
    [file] = write(model_dir, image_file, "onnx", 41, None, with_preprocess)
    session = onnxruntime.InferenceSession(str(file))
    metadata = session.get_modelmeta().custom_metadata_map
    description = {key: json.loads(value) for key, value in metadata.items()}
    taken, given = description["input"], description["output"]
    assert session.get_inputs()[0].shape == taken["shape"]
    assert session.get_outputs()[0].shape == given["shape"]
    [found] = session.run([given["name"]], {taken["name"]: follow(description, image_file)})
    expected = our_logits(model_dir, image_file)
    assert given["values"] == "logits"
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    # It would show if the channels were swapped or the mean subtracted twice.
    how = description["preprocess"]
    changes: list[dict[str, Any]] = [{"channel_order": how["channel_order"][::-1]}]
    if not with_preprocess:
        changes.append({"mean": [2 * value for value in how["mean"]]})
    for change in changes:
        wrong = {**description, "preprocess": {**how, **change}}
        [other] = session.run(None, {taken["name"]: follow(wrong, image_file)})
        assert np.abs(other - expected).max() > 1e-3 * np.abs(expected).max()


def test_labels_json_describes_every_export_beside_it(model_dir: Path, image_file: Path) -> None:
    for what in (("paddle", 41, None, True), ("onnx", 41), ("caffe", 41)):
        files = write(model_dir, image_file, *what)
    labels = json.loads((model_dir / "labels.json").read_text(encoding="utf-8"))
    assert labels["classes"] == [f"Größe {i}" for i in range(5)]
    graph = next(model_dir / name for name in GRAPHS if (model_dir / name).is_file())
    assert list(labels["models"]) == [graph.name, "model.onnx", "deploy.prototxt"]
    logits = our_logits(model_dir, image_file)

    description = labels["models"][graph.name]
    run = compile_paddle(graph, model_dir / "inference.pdiparams", threads=1)
    found = run(follow(description, image_file))[0]
    np.testing.assert_allclose(found, logits, atol=1e-4 * np.abs(logits).max())

    description = labels["models"]["deploy.prototxt"]
    assert description["input"]["shape"] == [1, 3, 41, 41]
    assert description["output"]["values"] == "probabilities"
    net = cv2.dnn.readNetFromCaffe(*map(str, files))
    net.setInput(follow(description, image_file), description["input"]["name"])
    found = net.forward(description["output"]["name"]).reshape(1, -1)
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(found, shares, atol=1e-4)
    lines = files[0].read_text().splitlines()
    assert [line[4:] for line in lines if line.startswith("# - ")] == description["steps"]


def test_steps_in_words(tmp_path: Path) -> None:
    """All steps of the authors' preprocessing, word by word."""
    path = small_model_dir(tmp_path / "model", VARIANTS[0])
    info = dataclasses.replace(read_info(path), preprocess=Preprocess())
    write_model_dir(path, info, network_of(VARIANTS[0]).state_dict())
    images = [np.zeros((50, 50, 3), "uint8")]
    export(path, info, Export("onnx", 227), images, path)
    description = json.loads((path / "labels.json").read_text())["models"]["model.onnx"]
    assert description["preprocess"]["mean"] == list(CAFFE_MEAN)
    assert description["steps"] == [
        "decode the image to pixels of 0 to 255 with the channels in the order B, G, R "
        "(OpenCV reads images so)",
        "resize to 256 x 256 pixels, whatever the proportions: cv2.resize, INTER_CUBIC",
        "take the middle 227 x 227 pixels, from (height - 227) // 2, (width - 227) // 2",
        "as float32: (pixel * 1 - mean) / std, with the mean 104, 117, 123 and the std 1, 1, 1 "
        "of B, G, R",
        "stack the images to the layout NCHW",
    ]


def test_labels_json_drops_exports_of_other_weights(model_dir: Path, image_file: Path) -> None:
    write(model_dir, image_file, "onnx", 41)
    exports = (model_dir / "exports.json").read_text()
    info = read_info(model_dir)
    write_model_dir(
        model_dir, info, network_of(info.network, random_state(info.network, seed=1)).state_dict()
    )
    assert not (model_dir / "labels.json").exists()
    (model_dir / "exports.json").write_text(exports)  # of the old weights
    write(model_dir, image_file, "caffe", 41)
    labels = json.loads((model_dir / "labels.json").read_text())
    assert list(labels["models"]) == ["deploy.prototxt"]
