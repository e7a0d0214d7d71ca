"""A model over a list, with a network whose logits can be computed by hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from squeezenet_paddle.data.lists import ImageList, read_list
from squeezenet_paddle.data.loader import Loader
from squeezenet_paddle.data.preprocess import EvalTransform, Preprocess
from squeezenet_paddle.data.sampler import Sampler
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.evaluation.evaluate import evaluate
from squeezenet_paddle.model_dir import ModelInfo
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.network.logits import softmax

PREPROCESS = Preprocess(resize_size=8, crop_size=6, interpolation="area")


class MeanColors:
    """Three classes, whose logits are the means of B, G and R, over 20."""

    info = ModelInfo(ModelConfig(num_classes=3), PREPROCESS)

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        return (inputs.mean(axis=(2, 3)) / 20).astype("float32")


@pytest.fixture
def images(tmp_path: Path) -> ImageList:
    """Five images of noise around a colour."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(5):
        image = rng.integers(0, 120, (8, 8, 3))
        image[:, :, i % 3] += 100
        (tmp_path / f"{i}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())
        lines.append(f"{i}.png {i % 2}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    return read_list(tmp_path / "list.txt", None, 3)


def loader_of(images: ImageList, ten_crop: bool = False) -> Loader:
    transform = EvalTransform(PREPROCESS, ten_crop)
    return Loader(images, transform, Sampler(len(images), 2), on_unreadable=str)


def crops(images: ImageList) -> list[list[np.ndarray]]:
    """The ten crops of each image."""
    pictures = [cv2.imread(str(images.path(i))) for i in range(len(images))]
    return [[PREPROCESS.normalise(c) for c in PREPROCESS.ten_crops(p)] for p in pictures]


def test_every_image_counts_once(images: ImageList) -> None:
    found = evaluate(MeanColors(), loader_of(images))
    logits = MeanColors().logits(np.stack([ten[4] for ten in crops(images)]))
    labels = np.arange(5) % 2
    assert found.unreadable == []
    assert found.predictions.indices.tolist() == [0, 1, 2, 3, 4]
    assert found.predictions.labels.tolist() == labels.tolist()
    assert found.predictions.top.tolist() == np.argsort(-logits).tolist()
    summary = found.summary()
    assert summary["top1"] == (logits.argmax(axis=1) == labels).mean() == 2 / 5
    assert summary["top5"] == 1
    losses = -np.log(softmax(logits)[np.arange(5), labels])
    assert summary["loss"] == pytest.approx(losses.mean())
    assert summary["images_per_second"] == pytest.approx(5 / found.seconds)


def test_ten_crops_average_probabilities(images: ImageList) -> None:
    found = evaluate(MeanColors(), loader_of(images, ten_crop=True)).predictions
    for row, ten in enumerate(crops(images)):
        mean = softmax(MeanColors().logits(np.stack(ten))).mean(axis=0)
        assert found.confidence[row] == pytest.approx(mean.max(), rel=1e-5)
        assert found.loss[row] == pytest.approx(-np.log(mean[row % 2]), rel=1e-5)


def test_images_are_left_out_only_when_asked(images: ImageList) -> None:
    for index in (1, 4):
        images.path(index).write_bytes(b"no image")
    with pytest.raises(InputError, match=r"2 of 5 images cannot be read.*1\.png.*4\.png"):
        evaluate(MeanColors(), loader_of(images))
    found = evaluate(MeanColors(), loader_of(images), skip_unreadable=True)
    assert found.predictions.indices.tolist() == [0, 2, 3]
    assert found.summary()["images"] == 3
    assert ["1.png" in found.unreadable[0], "4.png" in found.unreadable[1]] == [True, True]
    for index in (0, 2, 3):
        images.path(index).unlink()
    with pytest.raises(InputError, match="none of the 5 images can be read"):
        evaluate(MeanColors(), loader_of(images), skip_unreadable=True)
