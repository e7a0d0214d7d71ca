"""Class activation maps: that they are what the logits are made of, and where they lie."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from conftest import Run, assert_user_error

from squeezenet_paddle.data.lists import ImageList
from squeezenet_paddle.data.loader import Loader
from squeezenet_paddle.data.preprocess import EvalTransform, Preprocess
from squeezenet_paddle.data.sampler import Sampler
from squeezenet_paddle.explain import (
    Explainer,
    PngFolder,
    centers,
    enlarge,
    overlay,
)
from squeezenet_paddle.model_dir import ModelInfo, read_info, write_model_dir
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.network.model import SqueezeNet
from squeezenet_paddle.predict import Predictor, predict

SIZE = 67


def write_model(path: Path, seed: int = 0, **config: object) -> ModelInfo:
    paddle.seed(seed)
    network = SqueezeNet(ModelConfig(num_classes=3, **config))
    # Larger than the initial ones, so that the images get different classes.
    last = network.fc if network.config.head == "conv_fc" else network.conv10
    last.weight.set_value(last.weight * 20)
    layout = network.config.data_format
    preprocess = Preprocess(resize_size=80, crop_size=SIZE, data_format=layout)
    info = ModelInfo(network.config, preprocess, ["red thing", "green thing", "blue thing"])
    write_model_dir(path, info, network.state_dict())
    return info


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("head", ["conv", "conv_bn", "conv_fc"])
@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
def test_the_mean_of_a_map_is_the_largest_logit(
    version: str, head: str, data_format: str, tmp_path: Path
) -> None:
    info = write_model(tmp_path / "model", version=version, head=head, data_format=data_format)
    shape = (4, *info.preprocess.input_shape)
    inputs = np.random.default_rng(0).normal(0, 90, shape).astype("float32")
    explainer = Explainer(tmp_path / "model", "cpu")
    logits, maps = explainer(inputs)
    np.testing.assert_allclose(
        logits, Predictor(tmp_path / "model", "cpu").logits(inputs), rtol=1e-4, atol=1e-5
    )
    size = {"1.1": 4, "1.0": 5}[version]  # 3 and a ring of 1 in v1.0
    assert maps.shape == (4, size, size)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), logits.max(axis=1), rtol=1e-4, atol=1e-5)
    assert np.ptp(maps[0]) > 0


def test_a_map_does_not_depend_on_the_layout(tmp_path: Path) -> None:
    write_model(tmp_path / "NCHW")
    write_model(tmp_path / "NHWC", data_format="NHWC")
    inputs = np.random.default_rng(0).normal(0, 90, (2, 3, SIZE, SIZE + 16)).astype("float32")
    _, expected = Explainer(tmp_path / "NCHW", "cpu")(inputs)
    _, found = Explainer(tmp_path / "NHWC", "cpu")(inputs.transpose(0, 2, 3, 1).copy())
    assert found.shape == (2, 4, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bypass", ["none", "complex"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_position_of_a_map_lies_in_the_middle_of_what_it_sees(version: str, bypass: str) -> None:
    """Gradients tell which pixels a position sees; those of the middle are not cut at an edge."""
    config = ModelConfig(version=version, num_classes=2, bypass=bypass, activation="elu")
    paddle.seed(0)
    network = SqueezeNet(config)
    network.eval()
    for pool in [layer for layer in network.sublayers() if isinstance(layer, paddle.nn.MaxPool2D)]:
        # The gradient of a maximum is that of one pixel; the mean's is that of all.
        pool.forward = lambda x: paddle.nn.functional.avg_pool2d(x, 3, 2, ceil_mode=True)
    size = 321
    inputs = paddle.randn([1, 3, size, size])
    inputs.stop_gradient = False
    maps = network.conv10(network.forward_features(inputs))
    middle = maps.shape[2] // 2
    for position in (middle - 1, middle):
        gradient = paddle.grad(maps[:, :, position, position].sum(), inputs, retain_graph=True)[0]
        seen = np.flatnonzero(np.abs(gradient.numpy()).sum(axis=(0, 1, 2)))
        assert seen[0] > 0  # not cut
        assert seen[-1] < size - 1
        assert (seen[0] + seen[-1]) / 2 == centers(config, maps.shape[3])[position]


def test_centers_of_both_versions_by_hand() -> None:
    assert centers(ModelConfig(version="1.1"), 14)[[0, 1, 13]].tolist() == [15, 31, 223]
    assert centers(ModelConfig(version="1.0"), 15)[[0, 1, 14]].tolist() == [1, 17, 225]


def test_an_enlarged_map_is_itself_at_the_centers_and_linear_between() -> None:
    config = ModelConfig(version="1.1")
    small = np.random.default_rng(0).normal(0, 1, (14, 13))
    large = enlarge(small, config, (227, 215))
    assert large.shape == (227, 215)
    rows, columns = centers(config, 14).astype(int), centers(config, 13).astype(int)
    np.testing.assert_allclose(large[rows][:, columns], small)
    np.testing.assert_allclose(large[rows[0] + 8, columns], small[:2].mean(axis=0))
    np.testing.assert_allclose(large[rows, columns[3] + 4], small[:, 3:5] @ [0.75, 0.25])
    assert (large[: rows[0]] == large[rows[0]]).all()
    assert (large[:, columns[-1] :] == large[:, columns[-1] :][:, :1]).all()


def test_an_overlay_is_red_where_the_map_is_largest_and_blue_where_it_is_not_above_0() -> None:
    crop = np.full((2, 3, 3), 100, "uint8")
    image = overlay(crop, np.array([[0.0, -5.0, 2.0], [0.1, 4.0, 0.0]]))
    blue, _, red = image.astype(int).transpose(2, 0, 1)
    assert (blue - red)[[0, 0, 1], [0, 1, 2]].min() > 50
    assert (red - blue)[1, 1] > 50
    assert (overlay(crop, np.zeros((2, 3))) == image[0, 0]).all()


def test_a_folder_of_png_files_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "cat.jpg-2.png").write_text("mine")
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype("uint8")
    first, second = PngFolder(tmp_path), PngFolder(tmp_path)
    for folder, name in ((first, "cat.jpg"), (second, "cat.jpg-3"), (second, "cat.jpg-4")):
        target = folder.add("cat.jpg", image)
        assert target == tmp_path / f"{name}.png"
        assert (cv2.imread(str(target)) == image).all()
    assert (tmp_path / "cat.jpg-2.png").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "model"
    write_model(path)
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for name in ("a/1.png", "b/1.png", "c/ünïcode $1.png"):
        (folder / name).parent.mkdir()
        picture = cv2.resize(rng.integers(0, 256, (6, 6, 3), "uint8"), (90, 120))
        (folder / name).write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    (folder / "c" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image")
    return folder


def test_infer_explains(model: Path, pictures: Path, tmp_path: Path, run_tool: Run) -> None:
    maps = tmp_path / "deep" / "maps"
    arguments = ("infer", "--model_dir", model, "--image", pictures, "--explain", maps)
    done = run_tool(*arguments, "--format", "json", "--batch_size", 2)
    assert done.returncode == 1, done.stderr
    assert "broken.jpg" in done.stderr
    results = json.loads(done.stdout)
    assert [r["image"] for r in results] == [
        str(pictures / name) for name in ("a/1.png", "b/1.png", "c/ünïcode $1.png")
    ]
    names = ["1.png.png", "1.png-2.png", "ünïcode $1.png.png"]
    assert [r["map"] for r in results] == [str(maps / name) for name in names]
    images = ImageList.of_paths([Path(r["image"]) for r in results])
    transform = EvalTransform(read_info(model).preprocess)
    with Loader(images, transform, Sampler(3, 3)) as loader:
        plain = list(predict(Predictor(model, "cpu"), loader, 1))
    for result, (_, [(class_id, probability)]) in zip(results, plain):
        assert result["classes"][0]["id"] == class_id
        assert result["classes"][0]["probability"] == pytest.approx(probability, rel=1e-4)
        assert cv2.imdecode(np.fromfile(result["map"], "uint8"), 1).shape == (SIZE, SIZE, 3)

    again = run_tool(*arguments, "--format", "csv", "--top_k", 1).stdout.splitlines()
    assert again[0] == "image,rank,class_id,probability,name,map"
    names = ["1.png-3.png", "1.png-4.png", "ünïcode $1.png-2.png"]
    assert [line.rpartition(",")[2] for line in again[1:]] == [str(maps / name) for name in names]
    assert len(list(maps.iterdir())) == 6


def test_the_text_says_where_a_map_is() -> None:
    from squeezenet_paddle.cli.infer import text_lines

    classes = [{"id": 7, "probability": 0.25, "name": "cock"}]
    lines = text_lines([{"image": "a.jpg", "classes": classes, "map": "maps/a.jpg.png"}])
    assert list(lines) == ["a.jpg", "  0.2500     7  cock", "  map: maps/a.jpg.png"]


def test_a_file_in_place_of_the_folder_is_refused(
    model: Path, pictures: Path, tmp_path: Path, run_tool: Run
) -> None:
    (tmp_path / "maps").write_text("mine")
    done = run_tool(
        "infer", "--model_dir", model, "--image", pictures / "a", "--explain", tmp_path / "maps"
    )
    assert_user_error(done, "maps", "folder")
