"""The mean image: subtracted as Caffe's data layer does it, wherever a model directory goes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import wild_files as wild
from networks import random_state

from squeezenet_paddle.cli import export, train
from squeezenet_paddle.cli.caffe2paddle import main
from squeezenet_paddle.data.preprocess import MeanImage, Preprocess
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.model_dir import ModelInfo, read_info, write_model_dir
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.predict import Predictor

CONFIG = ModelConfig(num_classes=3)
STATE = random_state(CONFIG)
MEAN = cv2.resize(
    np.random.default_rng(0).uniform(20, 230, (6, 6, 3)).astype("float32"), (72, 72)
).transpose(2, 0, 1)
IMAGE = np.random.default_rng(1).integers(0, 256, (90, 110, 3), "uint8")


def caffes_input(image: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """By numpy: the mean is subtracted from the resized image, then both are cropped."""
    resized = cv2.resize(image, (72, 72), interpolation=cv2.INTER_CUBIC).astype("float32")
    centered = (resized.transpose(2, 0, 1) - MEAN) * np.float32(scale)
    return centered[:, 4:68, 4:68]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model directory converted with `--mean_mode image`."""
    file, mean = tmp_path / "net.caffemodel", tmp_path / "mean.binaryproto"
    file.write_bytes(wild.snapshot(CONFIG, STATE, wild.data_layers(64, scale=0.5, mean_file="m")))
    mean.write_bytes(wild.binaryproto(MEAN))
    argv = ["--caffemodel", file, "--mean_file", mean, "--mean_mode", "image"]
    assert main([*map(str, argv), "--output_dir", str(tmp_path / "model")]) == 0
    return tmp_path / "model"


def test_the_input_is_caffes(model: Path) -> None:
    preprocess = read_info(model).preprocess
    assert (preprocess.resize_size, preprocess.crop_size) == (72, 64)
    np.testing.assert_allclose(preprocess(IMAGE), caffes_input(IMAGE, 0.5), rtol=0, atol=1e-4)
    other = dataclasses.replace(preprocess, data_format="NHWC")
    np.testing.assert_array_equal(other(IMAGE), preprocess(IMAGE).transpose(1, 2, 0))
    crop = preprocess.center_crop(preprocess.resized(IMAGE))
    for each in (preprocess, other):
        np.testing.assert_array_equal(each.denormalise(each.normalise(crop)), crop)
    by_channel = dataclasses.replace(preprocess, mean_image=None)
    np.testing.assert_allclose(by_channel.mean, MEAN.mean((1, 2)) * 0.5, rtol=1e-5)
    assert np.abs(by_channel(IMAGE) - preprocess(IMAGE)).max() > 10


def test_it_lies_in_the_model_directory(model: Path, tmp_path: Path) -> None:
    np.testing.assert_allclose(np.load(model / "mean_image.npy"), MEAN * 0.5)
    info = read_info(model)
    copy = tmp_path / "copy"
    write_model_dir(copy, info, STATE)
    assert read_info(copy).preprocess == info.preprocess
    np.save(copy / "mean_image.npy", MEAN)
    with pytest.raises(InputError, match="mean_image.npy: this is another mean image than that of"):
        read_info(copy)
    (copy / "mean_image.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(InputError, match="mean_image.npy: this mean image is damaged"):
        read_info(copy)
    (copy / "mean_image.npy").unlink()
    with pytest.raises(InputError, match="mean_image.npy: cannot read this mean image"):
        read_info(copy)
    write_model_dir(copy, ModelInfo(CONFIG, Preprocess()), STATE)  # replaces it
    assert "mean_image" not in json.loads((copy / "config.json").read_text())["preprocess"]


def test_only_the_middle_of_an_image_of_the_right_size() -> None:
    image = MeanImage(MEAN)
    assert image == MeanImage(MEAN.copy())
    assert image != MeanImage(MEAN + 1)
    Preprocess(resize_size=72, crop_size=72, mean_image=image)
    with pytest.raises(
        InputError, match="resize_size must be the side of the mean image, which is"
    ):
        Preprocess(resize_size=80, crop_size=72, mean_image=image)


def test_a_mean_image_of_another_size_than_the_images(tmp_path: Path) -> None:
    file, mean = tmp_path / "net.caffemodel", tmp_path / "mean.binaryproto"
    file.write_bytes(wild.snapshot(CONFIG, STATE, wild.data_layers(64)))
    mean.write_bytes(wild.binaryproto(MEAN))
    argv = ["--caffemodel", file, "--mean_mode", "image", "--output_dir", tmp_path / "x"]
    with pytest.raises(InputError, match=r"72x72|80x80; found 72x72"):
        main([*map(str, argv), "--mean_file", str(mean), "--resize_size", "80"])
    with pytest.raises(InputError, match="`mean_mode` is how to subtract `mean_file`"):
        main([*map(str, argv)])


@pytest.mark.parametrize("engine", ["dynamic", "onnxruntime", "openvino", "paddle"])
def test_every_engine(engine: str, model: Path) -> None:
    if engine in ("onnxruntime", "openvino"):
        pytest.importorskip(engine)
    if engine == "paddle":
        export.main(["--model_dir", str(model), "--format", "paddle"])
    expected = Predictor(model, "cpu", "dynamic").logits(caffes_input(IMAGE, 0.5)[None])
    predictor = Predictor(model, "cpu", engine)
    found = predictor.logits(predictor.info.preprocess(IMAGE)[None])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("form", ["onnx", "paddle"])
def test_a_graph_that_takes_pixels(form: str, model: Path, tmp_path: Path) -> None:
    """The export is compared with the network by its own runtime; here by numpy's input too."""
    pytest.importorskip("onnxruntime")
    out = tmp_path / "exported"
    argv = ["--model_dir", model, "--format", form, "--with_preprocess", "--output_dir", out]
    export.main([str(each) for each in argv])
    if form == "paddle":
        return
    import onnxruntime

    session = onnxruntime.InferenceSession(str(out / "model.onnx"))
    pixels = cv2.resize(IMAGE, (72, 72), interpolation=cv2.INTER_CUBIC)[4:68, 4:68]
    (found,) = session.run(None, {"pixels": np.ascontiguousarray(pixels)[None]})
    expected = Predictor(model, "cpu", "dynamic").logits(caffes_input(IMAGE, 0.5)[None])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_caffes_export_says_it(model: Path) -> None:
    export.main(["--model_dir", str(model), "--format", "caffe"])
    assert "mean_image.npy of the model directory" in (model / "deploy.prototxt").read_text()


def test_training_takes_it_along(model: Path, tmp_path: Path) -> None:
    lines = []
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.roll(IMAGE, 7 * i, axis=0))
        lines.append(f"{i}.png {i % 3}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    run = tmp_path / "run"
    argv = ["--train_list", tmp_path / "list.txt", "--pretrained", model, "--num_classes", 3]
    argv += ["--num_epochs", 1, "--batch_size", 4, "--lr", 1e-4, "--num_workers", 0]
    argv += ["--device", "cpu", "--output_dir", run]
    train.main([str(each) for each in argv])
    (trained,) = [path.parent for path in run.rglob("mean_image.npy")][:1]
    assert read_info(trained).preprocess == read_info(model).preprocess
    shutil.rmtree(run)
