"""A model over a list, with a network whose logits can be computed by hand."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from squeezenet_paddle import evaluate
from squeezenet_paddle.data.lists import ImageList, read_list
from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.evaluation.evaluate import Evaluation, score_list
from squeezenet_paddle.model_dir import ModelInfo, write_model_dir
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.network.logits import softmax
from squeezenet_paddle.network.model import SqueezeNet
from squeezenet_paddle.predict import Predictor

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


def score(images: ImageList, **options: bool) -> Evaluation:
    return score_list(MeanColors(), images, batch_size=2, **options)


def crops(images: ImageList) -> list[list[np.ndarray]]:
    """The ten crops of each image."""
    decoded = [cv2.imread(str(images.path(i))) for i in range(len(images))]
    return [[PREPROCESS.normalise(c) for c in PREPROCESS.ten_crops(p)] for p in decoded]


def test_every_image_counts_once(images: ImageList) -> None:
    found = score(images)
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
    found = score(images, ten_crop=True).predictions
    for row, ten in enumerate(crops(images)):
        mean = softmax(MeanColors().logits(np.stack(ten))).mean(axis=0)
        assert found.confidence[row] == pytest.approx(mean.max(), rel=1e-5)
        assert found.loss[row] == pytest.approx(-np.log(mean[row % 2]), rel=1e-5)


def test_images_are_left_out_only_when_asked(images: ImageList) -> None:
    for index in (1, 4):
        images.path(index).write_bytes(b"no image")
    with pytest.raises(InputError, match=r"2 of 5 images cannot be read.*1\.png.*4\.png"):
        score(images)
    found = score(images, skip_unreadable=True)
    assert found.predictions.indices.tolist() == [0, 2, 3]
    assert found.summary()["images"] == 3
    assert ["1.png" in found.unreadable[0], "4.png" in found.unreadable[1]] == [True, True]
    for index in (0, 2, 3):
        images.path(index).unlink()
    with pytest.raises(InputError, match="none of the 5 images can be read"):
        score(images, skip_unreadable=True)


def test_skipped_images_are_named_on_standard_error(
    images: ImageList, capsys: pytest.CaptureFixture
) -> None:
    images.path(3).unlink()
    score(images, skip_unreadable=True)
    assert capsys.readouterr().err.count("3.png") == 1
    skipped: list[str] = []
    score_list(MeanColors(), images, skip_unreadable=True, on_skipped=skipped.append)
    assert capsys.readouterr().err == ""
    assert ["3.png" in message for message in skipped] == [True]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_progress_bar_goes_on_after_an_unreadable_image(
    images: ImageList, monkeypatch: pytest.MonkeyPatch
) -> None:
    images.path(0).unlink()
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(InputError, match="1 of 5"):
        score(images)
    assert "5/5" in sys.stderr.getvalue()


def test_a_model_directory_is_scored_in_one_line(images: ImageList, tmp_path: Path) -> None:
    """Paths are text, labels may be names, and the list may start elsewhere."""
    config = ModelConfig(num_classes=3)
    info = ModelInfo(config, Preprocess(resize_size=40, crop_size=33), ["red", "green", "blue"])
    write_model_dir(tmp_path / "model", info, SqueezeNet(config).state_dict())
    (tmp_path / "elsewhere").mkdir()
    names = tmp_path / "elsewhere" / "names.txt"
    names.write_text("".join(f"{i}.png {info.names[i % 2]}\n" for i in range(5)))
    found = evaluate(str(tmp_path / "model"), str(names), str(tmp_path), device="cpu")
    expected = score_list(Predictor(tmp_path / "model", "cpu"), images).summary()
    for scores in (found, expected):
        assert scores.pop("images_per_second") > 0
    assert found == expected
    for i in range(5):
        target = tmp_path / "folder" / info.names[i % 2] / f"{i}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(images.path(i).read_bytes())
    assert evaluate(tmp_path / "model", tmp_path / "folder")["top1"] == expected["top1"]
    images.path(1).unlink()
    with pytest.raises(InputError, match=r"1\.png"):
        evaluate(str(tmp_path / "model"), names, tmp_path)
    options = {"skip_unreadable": True, "batch_size": 2, "ten_crop": True}
    assert evaluate(tmp_path / "model", names, tmp_path, **options)["images"] == 4
