"""Small folders: the learning rate, the number of updates, ties, and a run that ends at chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from runs import (
    finetune_config,
    finetune_flags,
    make_image_folder,
    make_pretrained,
    metrics,
    weights,
)

from squeezenet_paddle.evaluation.evaluate import Evaluation
from squeezenet_paddle.evaluation.metrics import Predictions
from squeezenet_paddle.finetuning import lr_trials
from squeezenet_paddle.finetuning.hints import balance_hint, chance_hint, stage_hint
from squeezenet_paddle.finetuning.run import finetune
from squeezenet_paddle.model_dir import read_info
from squeezenet_paddle.training.best import Best

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pretrained(tmp_path_factory.mktemp("pretrained") / "model")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of each of two classes."""
    folder = make_image_folder(tmp_path_factory.mktemp("data") / "tiny", 8)
    for path in sorted(folder.iterdir())[2:]:
        for image in path.iterdir():
            image.unlink()
        path.rmdir()
    return folder


def score_of(run: Path) -> float:
    return read_info(run / "best").scores["val"]["top1"]


def test_no_fixed_rate_validates_better_but_for_chance(
    images: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--num_epochs", 24)
    scores = {}
    for rate in (None, *lr_trials.RATES):
        run = tmp_path / str(rate)
        finetune(finetune_config(finetune_flags(images, pretrained, run, *common, lr=rate)))
        scores[rate] = score_of(run)
    told = capsys.readouterr().err
    assert "learning rate: 1e-07, which keeps the head the linear discriminant" in told
    assert "that of guessing" not in told
    val_images = len((tmp_path / "None" / "val_list.txt").read_text().splitlines())
    mistaken = {rate: round(val_images * (1 - score)) for rate, score in scores.items()}
    fewest = min(mistaken.values())
    assert mistaken[None] - fewest <= (mistaken[None] + fewest) ** 0.5
    state = weights(tmp_path / "None" / "best")
    fc10, fc = state["fc10.weight"], state["fc.weight"]
    np.testing.assert_allclose(fc10[:, :2], -fc10[:, 2:4], atol=1e-4)
    np.testing.assert_allclose(fc[:4], np.concatenate([np.eye(2), -np.eye(2)]), atol=1e-4)


def test_many_images_and_a_head_that_was_trained_before_do_not_start_from_the_discriminant(
    images: Path,
    pretrained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = ("--num_epochs", 2)
    first = tmp_path / "first"
    with monkeypatch.context() as fewer:
        fewer.setattr(lr_trials, "MOST_IMAGES", 1)
        finetune(finetune_config(finetune_flags(images, pretrained, first, *flags, lr=None)))
    assert "found by a short test" in capsys.readouterr().err
    more = finetune_flags(images, first, tmp_path / "more", *flags, lr=None)
    finetune(finetune_config(more))
    assert "found by a short test" in capsys.readouterr().err


def test_training_has_to_validate_better_by_more_than_chance() -> None:
    trained = Best(0.8, 0.5)  # 2 of 10 mistaken
    assert lr_trials.prefers_discriminant(Best(0.6, 9.0), trained, 10)  # 2 more, root of 6
    assert not lr_trials.prefers_discriminant(Best(0.4, 0.1), trained, 10)  # 4 more, root of 8
    assert lr_trials.prefers_discriminant(Best(0.9, 9.0), trained, 10)
    assert not lr_trials.prefers_discriminant(Best(0.6, 9.0), trained, 100)  # 20, root of 60
    assert not lr_trials.prefers_discriminant(Best(), trained, 10)


def test_a_small_folder_gets_more_epochs(
    images: Path, pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = finetune_flags(images, pretrained, tmp_path, "--patience", 1, lr=1e-12)
    at = flags.index("--num_epochs")
    assert finetune(finetune_config(flags[:at] + flags[at + 2 :])).finished
    assert "; 200 updates of 16 (1 x 16), 200.0 epochs;" in capsys.readouterr().err
    assert next(r["step"] for r in metrics(tmp_path) if r["kind"] == "val") == 7


def test_the_rate_of_the_highest_score_is_taken() -> None:
    low, high = lr_trials.RATES[1], lr_trials.RATES[-1]
    assert lr_trials.choose({low: Best(0.8, 0.9), high: Best(0.9, 9.9)}) == high
    assert lr_trials.choose({low: Best(0.8, 0.9), high: Best(0.8, 0.1)}) == low
    lower = lr_trials.RATES[0]
    assert lr_trials.choose({low: Best(0.8, 0.9), lower: Best(0.8, 0.8)}) == lower
    assert lr_trials.choose({low: Best(), lower: Best(0.1, 2.0)}) == lower


def evaluation_of(labels: list[int], classes: list[int]) -> Evaluation:
    logits = np.eye(3, dtype="float32")[classes]
    predictions = Predictions.from_logits(np.arange(len(labels)), logits, np.array(labels))
    return Evaluation(predictions, [], 1.0)


@pytest.mark.parametrize(
    ("labels", "classes", "images", "expected"),
    [
        ([0, 0, 1, 2], [0, 0, 0, 0], 90, "top-1 50.00% is no better than guessing (50.00%)"),
        ([0, 0, 1, 2], [0, 1, 0, 0], 9, "more images than 3 of each class"),
        ([0, 0, 1, 2], [0, 0, 1, 0], 9, ""),
    ],
)
def test_a_model_at_chance_says_so(
    labels: list[int], classes: list[int], images: int, expected: str
) -> None:
    hint = chance_hint(evaluation_of(labels, classes), images, 3)
    assert expected in hint
    assert bool(hint) == bool(expected)
    assert ("more images" in hint) == (images == 9 and bool(expected))


def test_many_images_are_told_of_the_second_stage() -> None:
    labels = [0, 1, 2] * 10
    some_wrong = evaluation_of(labels, [0, 0, 2] * 10)
    hint = stage_hint(some_wrong, 40_000)
    assert hint.startswith("hint: 40,000 training images")
    assert "`then` all" in hint
    assert not stage_hint(some_wrong, 3_000)
    assert not stage_hint(evaluation_of(labels, labels), 40_000)


def test_rare_classes_that_are_recognised_worse_are_named() -> None:
    labels = [0] * 30 + [1] * 30 + [2] * 6
    rare_missed = evaluation_of(labels, [0] * 30 + [1] * 30 + [0] * 4 + [2] * 2)
    hint = balance_hint(rare_missed, ["cat", "dog", "owl"])
    assert "worse than the mean of 77.8%: owl (33.3% of 6 images); `balance`" in hint
    assert not balance_hint(evaluation_of(labels, labels), ["cat", "dog", "owl"])
    frequent_missed = evaluation_of(labels, [0] * 30 + [0] * 30 + [2] * 6)
    assert not balance_hint(frequent_missed, ["cat", "dog", "owl"])
