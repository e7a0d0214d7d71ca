"""The front door: a model directory classifies paths, pixels, bytes, and lists of these."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle
import pytest
from conftest import ROOT
from networks import VARIANTS, network_of, small_model_dir
from PIL import Image

import squeezenet_paddle
from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.errors import ImageError, InputError, RunError
from squeezenet_paddle.evaluation.evaluate import evaluate
from squeezenet_paddle.model_dir import ModelInfo, load_network, read_info, write_model_dir
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.network.model import SqueezeNet
from squeezenet_paddle.predict import BATCH_SIZE, Prediction, Predictor


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model_dir(tmp_path_factory.mktemp("predict") / "model", VARIANTS[0])


@pytest.fixture(scope="module")
def predictor(model_dir: Path) -> Predictor:
    return Predictor(str(model_dir), "cpu", "dynamic")


@pytest.fixture(scope="module")
def image_file(model_dir: Path) -> Path:
    """A photo-like image in a file without loss."""
    patches = np.random.default_rng(3).integers(0, 256, (6, 7, 3), "uint8")
    file = model_dir.parent / "image.png"
    cv2.imwrite(str(file), cv2.resize(patches, (70, 60), interpolation=cv2.INTER_CUBIC))
    return file


def by_hand(predictor: Predictor, image: np.ndarray) -> list[Prediction]:
    """All classes, from the network's own logits and numpy's arithmetic."""
    logits = predictor.logits(predictor.info.preprocess(image)[None])[0].astype("float64")
    shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    names = predictor.info.names
    assert names is not None
    ids = sorted(range(len(shares)), key=lambda i: -shares[i])
    return [Prediction(i, names[i], pytest.approx(shares[i])) for i in ids]


def test_every_kind_of_image_gives_the_same_classes(predictor: Predictor, image_file: Path) -> None:
    pixels = cv2.imread(str(image_file))
    expected = by_hand(predictor, pixels)
    rgb = np.asarray(Image.open(image_file))
    assert predictor(image_file) == expected
    assert predictor(str(image_file)) == expected
    assert predictor(image_file.read_bytes()) == expected
    assert predictor(pixels) == expected
    assert predictor(rgb, color="rgb") == expected
    assert predictor(rgb) != expected
    assert predictor([image_file, pixels, image_file.read_bytes()]) == [expected] * 3
    [best] = predictor(image_file, top_k=1)
    assert (best.class_id, best.name) == (expected[0].class_id, f"class {expected[0].class_id}")
    assert len(predictor(image_file, top_k=99)) == 5


def test_a_list_of_many_images(predictor: Predictor, image_file: Path) -> None:
    """More than a batch, in their order; and none at all."""
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 256, (BATCH_SIZE + 3, 50, 45, 3), "uint8"))
    results = predictor(images)
    assert len(results) == len(images)
    for at in (0, BATCH_SIZE - 1, BATCH_SIZE, BATCH_SIZE + 2):
        assert results[at] == by_hand(predictor, images[at])
    assert predictor([]) == []


def test_names_may_be_missing(tmp_path: Path) -> None:
    config = ModelConfig(num_classes=3)
    info = ModelInfo(config, Preprocess(resize_size=48, crop_size=40))
    write_model_dir(str(tmp_path / "model"), info, network_of(config).state_dict())
    result = Predictor(tmp_path / "model", "cpu", "dynamic")(np.zeros((40, 40, 3), "uint8"))
    assert [each.name for each in result] == [None] * 3


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (None, "found NoneType"),
        (3.5, "found float"),
        (np.zeros((40, 40), "uint8"), r"found uint8 \[40, 40\]"),
        (np.zeros((40, 40, 4), "uint8"), r"found uint8 \[40, 40, 4\]"),
        (np.zeros((2, 40, 40, 3), "uint8"), r"found uint8 \[2, 40, 40, 3\]"),
        (np.zeros((40, 40, 3), "float32"), r"found float32 \[40, 40, 3\]"),
        (np.zeros((0, 40, 3), "uint8"), r"found uint8 \[0, 40, 3\]"),
        (b"\xff\xd8", "the bytes given: the image is cut off"),
        ("nowhere.jpg", "nowhere.jpg: cannot read this image"),
    ],
)
def test_what_is_no_image_is_refused(predictor: Predictor, image: Any, message: str) -> None:
    for images in (image, [image]):
        with pytest.raises(InputError, match=message):
            predictor(images)


def test_wrong_arguments_are_named(predictor: Predictor, image_file: Path) -> None:
    with pytest.raises(InputError, match="color: bgr or rgb was expected, found 'BGR'"):
        predictor(image_file, color="BGR")
    with pytest.raises(InputError, match="top_k: .* at least 1 was expected, found 0"):
        predictor(image_file, top_k=0)
    with pytest.raises(ImageError, match="nowhere"):
        predictor([image_file, "nowhere"])


def test_logits_that_are_no_numbers_are_no_answer(image_file: Path, tmp_path: Path) -> None:
    path = small_model_dir(tmp_path / "model", VARIANTS[0])
    info = read_info(path)
    state = load_network(path, info).state_dict()
    state["conv10.weight"] = paddle.full_like(state["conv10.weight"], 3e38)
    write_model_dir(path, info, state)
    with pytest.raises(RunError, match="NaN or infinite logits"):
        Predictor(path, "cpu", "dynamic")(image_file)
    (tmp_path / "list.txt").write_text(f"{image_file} 0\n")
    with pytest.raises(RunError, match="NaN or infinite logits"):
        evaluate(path, tmp_path / "list.txt", device="cpu", engine="dynamic")


def test_public_names(model_dir: Path) -> None:
    assert squeezenet_paddle.Predictor is Predictor
    info, network = squeezenet_paddle.read_model_dir(str(model_dir))
    assert network.config == info.network == VARIANTS[0]
    assert not network.training
    assert squeezenet_paddle.squeezenet1_0(3).config == ModelConfig("1.0", 3)
    assert squeezenet_paddle.squeezenet1_1(3).config == ModelConfig("1.1", 3)
    with pytest.raises(AttributeError, match="'squeezenet_paddle' has no attribute 'nothing'"):
        squeezenet_paddle.nothing  # noqa: B018


def test_importing_the_package_loads_nothing() -> None:
    code = (
        "import sys, squeezenet_paddle\n"
        "assert not {'paddle', 'cv2', 'numpy'} & set(sys.modules)\n"
        "from squeezenet_paddle import Predictor\n"
        "assert 'paddle' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_hub(model_dir: Path, image_file: Path, predictor: Predictor) -> None:
    def load(name: str, **options: Any) -> Any:
        return paddle.hub.load(str(ROOT), name, source="local", **options)

    assert {"squeezenet1_0", "squeezenet1_1", "predictor"} <= set(
        paddle.hub.list(str(ROOT), source="local")
    )
    network = load("squeezenet1_0", num_classes=4)
    assert isinstance(network, SqueezeNet)
    assert network.config == ModelConfig("1.0", 4)
    assert load("squeezenet1_1").config == ModelConfig("1.1", 1000)

    trained = load("squeezenet1_1", model_dir=str(model_dir))
    x = predictor.info.preprocess(cv2.imread(str(image_file)))[None]
    with paddle.no_grad():
        logits = trained(paddle.to_tensor(x)).numpy()
    np.testing.assert_allclose(logits, predictor.logits(x), rtol=1e-4, atol=1e-4)
    for name, options, message in (
        ("squeezenet1_0", {}, "its version is 1.1, not 1.0"),
        ("squeezenet1_1", {"num_classes": 6}, "its num_classes is 5, not 6"),
    ):
        with pytest.raises(InputError, match=message):
            load(name, model_dir=model_dir, **options)

    found = load("predictor", model_dir=model_dir, device="cpu", engine="dynamic")(image_file)
    assert found == predictor(image_file)
