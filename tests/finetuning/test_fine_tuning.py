"""Training of the last stages alone: what stays, what changes, and when it ends."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import paddle
import pytest
from runs import (
    assert_same_weights,
    flags,
    make_tiny_data,
    metrics,
    plan_of,
    train,
    train_until,
    weights,
)

from squeezenet_paddle.data.lists import ImageList
from squeezenet_paddle.data.loader import Batch
from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.data.sampler import Sampler
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.model_dir import ModelInfo, read_info, write_model_dir
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.network.model import SqueezeNet
from squeezenet_paddle.network.stages import is_trained, state_stages
from squeezenet_paddle.training.checkpoint import load_newest
from squeezenet_paddle.training.inputs import Inputs, image_inputs
from squeezenet_paddle.training.run import Run, finished_result
from squeezenet_paddle.training.solver import balanced_weights
from squeezenet_paddle.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_data(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory to start from."""
    paddle.seed(5)
    config = ModelConfig(num_classes=10)
    folder = tmp_path_factory.mktemp("start") / "model"
    preprocess = Preprocess(resize_size=36, crop_size=36)
    network = SqueezeNet(config, "xavier_normal", classifier_bias=1.0)
    write_model_dir(folder, ModelInfo(config, preprocess), network.state_dict())
    return folder


def tuned(data: Path, start: Path, output_dir: Path, *more: object) -> list[str]:
    return flags(data, output_dir, "--pretrained", start, "--eval_interval", 4, *more)


@pytest.mark.parametrize(
    ("trainable", "more"),
    [
        ("fire8+", ("--optimizer", "adamw", "--weight_decay", 0.1, "--ema_decay", 0.9)),
        ("head", ("--head", "multiscale", "--optimizer", "momentum")),
        ("fire9", ("--data_format", "NHWC")),
        ("fire9", ("--to_static", "--head", "conv_bn")),
    ],
)
def test_frozen_layers_stay_bit_for_bit(
    data: Path, start: Path, tmp_path: Path, trainable: str, more: tuple[object, ...]
) -> None:
    arguments = ("--trainable", trainable, "--max_steps", 3, "--flip", 0.5, *more)
    assert train(tuned(data, start, tmp_path, *arguments))
    before, after = weights(start), weights(tmp_path / "final")
    stages = state_stages(read_info(tmp_path / "final").network)
    found = load_newest(tmp_path / "checkpoints")
    assert found is not None
    states = [name for name in found.arrays if name.startswith(("optimizer/", "ema/"))]
    for key, stage in stages.items():
        if is_trained(stage, trainable.rstrip("+")):
            assert key not in before or after[key].tobytes() != before[key].tobytes(), key
        else:
            assert after[key].tobytes() == before[key].tobytes(), key
            assert not any(name.split("/")[1] == key for name in states)
    if "--ema_decay" in more:
        assert "ema/fire8.squeeze1x1.bias" in states


def test_another_head_takes_the_trunk_alone(
    data: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--head", "multiscale", "--trainable", "head", "--max_steps", 1)
    assert train(tuned(data, start, tmp_path, *arguments))
    told = capsys.readouterr().err
    assert "head conv -> multiscale (new); training head only" in told
    assert read_info(tmp_path / "final").network.head == "multiscale"
    state = weights(tmp_path / "final")
    assert state["fc.weight"].shape == (1024, 10)
    assert state["bn_pools._mean"].any()


def test_a_stop_changes_nothing(data: Path, start: Path, tmp_path: Path) -> None:
    common = ("--head", "multiscale", "--trainable", "fire9", "--head_lr_mult", 10, "--balance")
    common += ("--lr", 1e-12, "--patience", 2, "--max_steps", 40, "--ema_decay", 0.5)
    common += ("--eval_interval", 3, "--save_interval", 2, "--optimizer", "momentum")
    assert train(tuned(data, start, tmp_path / "whole", *common))
    for stop in (3, 8):
        assert not train_until(tuned(data, start, tmp_path / "parts", *common), stop)
    assert train(tuned(data, start, tmp_path / "parts", *common))
    assert_same_weights(tmp_path / "whole/final", tmp_path / "parts/final")
    ends = [read_info(tmp_path / run / "final").source["step"] for run in ("whole", "parts")]
    assert ends[0] == ends[1] < 40


def test_patience_ends_a_run(
    data: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The weights hardly change, so no evaluation after the first one is better."""
    common = ("--trainable", "head", "--optimizer", "momentum", "--lr", 1e-15, "--max_steps", 30)
    common += ("--eval_interval", 2, "--patience")
    assert train(tuned(data, start, tmp_path, *common, 2))
    told = capsys.readouterr().err
    assert "finished; after update 6, 2 evaluations without a better score; best" in told
    assert [r["step"] for r in metrics(tmp_path) if r["kind"] == "val"] == [2, 4, 6]
    assert read_info(tmp_path / "final").source["step"] == 6
    assert finished_result(plan_of(tuned(data, start, tmp_path, *common, 2))) is not None
    more = tuned(data, start, tmp_path, *common, 4)
    assert finished_result(plan_of(more)) is None
    assert train(more)
    assert read_info(tmp_path / "final").source["step"] == 10


def test_other_stages_are_another_run(data: Path, start: Path, tmp_path: Path) -> None:
    common = ("--max_steps", 1, "--trainable")
    assert train(tuned(data, start, tmp_path, *common, "head"))
    with pytest.raises(InputError, match="`trainable` was head, is fire9"):
        finished_result(plan_of(tuned(data, start, tmp_path, *common, "fire9+")))


def test_the_head_has_a_learning_rate_of_its_own(data: Path, start: Path, tmp_path: Path) -> None:
    common = ("--optimizer", "momentum", "--lr", 1e-3, "--max_steps", 1, "--dropout", 0)
    changes = []
    for mult in (1, 10):
        run = tmp_path / str(mult)
        assert train(tuned(data, start, run, *common, "--head_lr_mult", mult))
        before, after = weights(start), weights(run / "final")
        changes.append({key: after[key] - before[key] for key in before})
    for key, change in changes[0].items():
        factor = 10 if key.startswith("conv10") else 1
        limit = 1e-2 * factor * np.abs(change).max()
        np.testing.assert_allclose(changes[1][key], factor * change, rtol=0, atol=limit)


def test_weights_of_classes_by_hand() -> None:
    weights = balanced_weights(np.array([0, 0, 0, 0, 1, 1, 3, 0]), 5)
    np.testing.assert_allclose(weights, [8 / (3 * 5), 8 / (3 * 2), 0, 8 / 3, 0], rtol=1e-6)


def test_balanced_classes_count_the_same(data: Path, start: Path, tmp_path: Path) -> None:
    """The loss of an update over all images is the mean over classes of their mean losses."""
    lines = (data / "train_list.txt").read_text().splitlines(keepends=True)
    (tmp_path / "list.txt").write_text("".join(lines[:3] + lines[3:12:3] + lines[12:14]))
    arguments = ("--train_list", tmp_path / "list.txt", "--data_dir", data, "--lr", 1e-15)
    arguments += ("--dropout", 0, "--flip", 0, "--max_steps", 1, "--balance")
    arguments += ("--optimizer", "momentum", "--trainable", "head")
    given = tuned(data, start, tmp_path / "run", *arguments)
    assert train(given)
    with Run.start(plan_of(given)) as run, image_inputs(run) as inputs:
        [batch] = inputs.train.epoch()
    network = SqueezeNet(run.plan.info.network)
    network.set_state_dict(paddle.load(str(start / "model.pdparams")))
    network.eval()
    logits = network(paddle.to_tensor(batch.inputs)).numpy().astype("float64")
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(logits)), batch.labels]
    means = [losses[batch.labels == label].mean() for label in np.unique(batch.labels)]
    assert len(set(np.bincount(batch.labels))) > 2
    [found] = [r["loss"] for r in metrics(tmp_path / "run") if r["kind"] == "train"]
    assert found == pytest.approx(np.mean(means), rel=1e-5)


@dataclass
class Rows:
    """The features of a list in memory, in batches like those of a loader."""

    images: ImageList
    sampler: Sampler
    features: np.ndarray
    skipped: dict[int, str] = field(default_factory=dict)

    def epoch(self, epoch: int = 0, start: int = 0) -> Generator[Batch, None, None]:
        for indices in self.sampler.batches(epoch, start):
            yield Batch(indices, self.features[indices], self.images.labels[indices])


@pytest.mark.parametrize(("head", "trainable"), [("conv", "fire9"), ("multiscale", "fire8")])
def test_features_train_what_images_train(
    data: Path, start: Path, tmp_path: Path, head: str, trainable: str
) -> None:
    arguments = ("--head", head, "--trainable", trainable, "--max_steps", 4, "--flip", 0)
    arguments += ("--resize_size", 36, "--optimizer", "momentum", "--lr", 1e-3)
    assert train(tuned(data, start, tmp_path / "images", *arguments))

    plan = plan_of(tuned(data, start, tmp_path / "features", *arguments))
    with Run.start(plan) as run, image_inputs(run) as inputs:
        rows = []
        for batches in (inputs.train, inputs.val):
            features: dict[int, np.ndarray] = {}
            for batch in batches.epoch():
                with paddle.no_grad():
                    tensors = run.network.front(
                        paddle.to_tensor(batch.inputs), plan.solver.trained_from
                    )
                parts = [tensor.numpy().reshape(len(batch.indices), -1) for tensor in tensors]
                features.update(zip(batch.indices.tolist(), np.concatenate(parts, axis=1)))
            stacked = np.stack([features[i] for i in range(len(features))])
            rows.append(Rows(batches.images, batches.sampler, stacked))
        assert Trainer(run, Inputs(*rows, features_size=36)).train().finished
    first, second = weights(tmp_path / "images/final"), weights(tmp_path / "features/final")
    for key, wanted in first.items():
        assert np.abs(second[key] - wanted).max() <= 1e-3 * np.abs(wanted).max(), key
    losses = [[r["loss"] for r in metrics(tmp_path / run)] for run in ("images", "features")]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
