"""The trainer: what it computes, what it keeps, and that a resume changes nothing."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
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

from squeezenet_paddle.data.augment import TrainTransform
from squeezenet_paddle.data.lists import read_list
from squeezenet_paddle.data.loader import Loader
from squeezenet_paddle.data.sampler import Sampler
from squeezenet_paddle.errors import InputError, RunError
from squeezenet_paddle.model_dir import ModelInfo, read_info, write_model_dir
from squeezenet_paddle.training import report, trainer
from squeezenet_paddle.training.checkpoint import load_newest
from squeezenet_paddle.training.run import changes_since, finished_result

pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_data(tmp_path_factory.mktemp("tiny") / "data")


def test_a_run_leaves_its_models_and_its_records(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = flags(data, run, "--max_steps", 9, "--save_interval", 2, "--seed", 3)
    assert train(arguments)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == [
        f"step_{step:08d}.ckpt" for step in (6, 8, 9)
    ]
    records = metrics(run)
    assert [r["step"] for r in records if r["kind"] == "train"] == list(range(1, 10))
    validations = [r for r in records if r["kind"] == "val"]
    assert [r["step"] for r in validations] == [4, 8, 9]  # 30 images are 4 updates an epoch
    assert all(r["images"] == 10 for r in validations)
    best = max(r["top1"] for r in validations)
    info = read_info(run)  # of best/
    assert info.scores["val"]["top1"] == best
    assert read_info(run / "final").source["step"] == 9


def test_of_equal_scores_the_first_is_the_best(data: Path, tmp_path: Path) -> None:
    """With a learning rate that rounding swallows, every evaluation finds the same."""
    assert train(flags(data, tmp_path, "--max_steps", 9, "--lr", 1e-30))
    validations = [r for r in metrics(tmp_path) if r["kind"] == "val"]
    assert len({r["top1"] for r in validations}) == 1
    assert [r["step"] for r in validations] == [4, 8, 9]
    assert read_info(tmp_path / "best").source["step"] == 4


def test_of_equal_scores_the_one_with_the_least_loss_is_the_best(
    data: Path, tmp_path: Path
) -> None:
    assert train(flags(data, tmp_path, "--max_steps", 12, "--lr", 1e-6))
    validations = [r for r in metrics(tmp_path) if r["kind"] == "val"]
    assert len({r["top1"] for r in validations}) == 1
    least = min(validations, key=lambda r: r["loss"])
    assert least["step"] > 4
    assert read_info(tmp_path / "best").source["step"] == least["step"]
    # A resume knows it.
    assert train(flags(data, tmp_path, "--max_steps", 13, "--lr", 1e-6))
    validations = [r for r in metrics(tmp_path) if r["kind"] == "val"]
    least = min(validations, key=lambda r: r["loss"])
    assert read_info(tmp_path / "best").source["step"] == least["step"]


def test_eight_images_are_learnt_by_heart(data: Path, tmp_path: Path) -> None:
    lines = (data / "train_list.txt").read_text().splitlines(keepends=True)
    (tmp_path / "list.txt").write_text("".join(lines[::4]))
    arguments = ("--train_list", tmp_path / "list.txt", "--data_dir", data, "--max_steps", 60)
    arguments += ("--lr", 2e-3, "--std", 64, 64, 64, "--init", "xavier_normal", "--flip", 0)
    arguments += ("--classifier_bias", 3, "--eval_interval", 60, "--save_interval", 60)
    assert train(flags(data, tmp_path, *arguments, "--resize_size", 36, "--dropout", 0))
    losses = [r["loss"] for r in metrics(tmp_path) if r["kind"] == "train"]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("optimizer", ["momentum", "adamw"])
def test_a_stop_in_the_middle_of_an_epoch_changes_nothing(
    data: Path, tmp_path: Path, optimizer: str
) -> None:
    common = ("--max_steps", 11, "--optimizer", optimizer, "--lr", 1e-3, "--ema_decay", 0.9)
    common += ("--iter_size", 2, "--log_interval", 4, "--rotation", 20)
    assert train(flags(data, tmp_path / "whole", *common))
    for stop in (3, 6, 7):
        assert not train_until(flags(data, tmp_path / "parts", *common), stop)
        assert len(metrics(tmp_path / "parts")) >= stop // 4
    assert train(flags(data, tmp_path / "parts", *common))
    assert_same_weights(tmp_path / "whole/final", tmp_path / "parts/final")
    assert_same_weights(tmp_path / "whole/best", tmp_path / "parts/best")
    timeless = [
        [{k: r[k] for k in ("kind", "step", "loss", "top1")} for r in metrics(tmp_path / name)]
        for name in ("whole", "parts")
    ]
    assert timeless[0] == timeless[1]


def test_one_update_is_the_gradient_of_the_mean_loss(data: Path, tmp_path: Path) -> None:
    """Against Paddle's own network and loss; the batch is uneven: 30 images, 28 a batch."""
    import paddle
    import paddle.nn.functional as F

    from squeezenet_paddle.network.model import SqueezeNet

    arguments = ("--batch_size", 28, "--iter_size", 7, "--optimizer", "momentum", "--lr", 0.01)
    arguments += ("--dropout", 0, "--weight_decay", 0.1, "--momentum", 0, "--lr_policy", "constant")
    plan = plan_of(flags(data, tmp_path, *arguments, "--max_steps", 2))
    paddle.seed(0)
    network = SqueezeNet(plan.info.network)
    transform = TrainTransform(plan.info.preprocess, plan.config.augmentation, plan.solver.seed)
    sampler = Sampler(len(plan.train), batch_size=4, shuffle=True, seed=plan.solver.seed)
    with Loader(plan.train, transform, sampler) as loader:
        parts = [(batch.inputs, batch.labels) for batch in loader.epoch()]
    assert [len(labels) for _, labels in parts] == [4] * 7 + [2]
    for parts_of_update in (parts[:7], parts[7:]):
        inputs, labels = (np.concatenate(arrays) for arrays in zip(*parts_of_update))
        loss = F.cross_entropy(network(paddle.to_tensor(inputs)), paddle.to_tensor(labels))
        loss.backward()
        for parameter in network.parameters():
            change = parameter.grad + 0.1 * parameter
            parameter.set_value(parameter - 0.01 * change)
            parameter.clear_gradient(False)
    assert train(flags(data, tmp_path, *arguments, "--max_steps", 2))
    found = weights(tmp_path / "final")
    for name, parameter in network.named_parameters():
        wanted = parameter.numpy()
        assert np.abs(found[name] - wanted).max() <= 1e-4 * np.abs(wanted).max(), name


@pytest.mark.parametrize("other", [("--iter_size", 4), ("--data_format", "NHWC"), ("--to_static",)])
def test_how_it_is_computed_changes_only_the_last_digits(
    data: Path, tmp_path: Path, other: tuple[object, ...]
) -> None:
    # With ReLU a value near 0 may come to lie on the other side of the kink.
    common = ("--max_steps", 4, "--optimizer", "momentum", "--lr", 1e-3, "--activation", "elu")
    assert train(flags(data, tmp_path / "a", *common))
    assert train(flags(data, tmp_path / "b", *common, *other))
    first, second = weights(tmp_path / "a/final"), weights(tmp_path / "b/final")
    for name, wanted in first.items():
        assert np.abs(second[name] - wanted).max() <= 1e-4 * np.abs(wanted).max(), name
    losses = [[r["loss"] for r in metrics(tmp_path / run)] for run in "ab"]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_a_finished_run_does_nothing_and_an_extended_one_goes_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = flags(data, tmp_path, "--max_steps", 3, "--eval_interval", 3)
    assert not finished_result(plan_of(arguments))
    assert train(arguments)
    assert finished_result(plan_of(arguments))
    longer = flags(data, tmp_path, "--max_steps", 5, "--eval_interval", 3)
    assert not finished_result(plan_of(longer))
    assert train(longer)
    assert "changed: --max_steps was 3, is 5" in capsys.readouterr().err
    assert read_info(tmp_path / "final").source["step"] == 5
    with pytest.raises(InputError, match=r"has done 5 updates, and the settings ask for 3"):
        finished_result(plan_of(arguments))


def test_what_a_kill_between_saving_and_removing_has_left(data: Path, tmp_path: Path) -> None:
    arguments = flags(data, tmp_path, "--max_steps", 2, "--save_interval", 1)
    assert train([*arguments, "--keep_checkpoints", "1"])
    (tmp_path / "checkpoints" / "step_00000001.ckpt").touch()
    shutil.rmtree(tmp_path / "final")
    assert train([*arguments, "--keep_checkpoints", "1"])
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000002.ckpt"]


def test_what_would_change_the_past_is_refused(data: Path, tmp_path: Path) -> None:
    assert train(flags(data, tmp_path, "--max_steps", 1))
    for changed, text in (
        (("--seed", 1), "`seed` was 0, is 1"),
        (("--batch_size", 4), "`batch_size` was 8, is 4"),
        (("--bypass", "simple"), "`bypass` was none, is simple"),
        (("--rotation", 5), "`rotation` was 0.0, is 5.0"),
        (("--train_list", data / "val_list.txt"), "the content of `train_list` was"),
    ):
        with pytest.raises(InputError, match=text):
            finished_result(plan_of(flags(data, tmp_path, "--max_steps", 1, *changed)))


def test_what_changed_between_kill_and_resume_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_tiny_data(tmp_path / "data")
    arguments = flags(data, tmp_path / "run", "--eval_interval", 2)
    assert train([*arguments, "--max_steps", "2"])
    first = read_list(data / "train_list.txt").path(0)
    first.write_bytes(read_list(data / "train_list.txt").path(5).read_bytes())
    lines = (data / "val_list.txt").read_text().splitlines(keepends=True)
    (data / "val_list.txt").write_text("".join(lines[:8]))
    longer = plan_of([*arguments, "--max_steps", "4"])
    newest = load_newest(tmp_path / "run" / "checkpoints")
    assert newest is not None
    told = "; ".join(changes_since(newest, longer))
    assert re.search(r"what the images of `train_list` are was 30 files, .*, is 30 files, ", told)
    assert "the content of `val_list` was" in told
    assert "what the images of `val_list` are was 10 files" in told
    assert train([*arguments, "--max_steps", "4"])
    assert "the best score so far is of another list" in caplog.text
    assert read_info(tmp_path / "run" / "best").source["step"] == 4


def test_starting_anew_needs_an_empty_directory_or_a_word(data: Path, tmp_path: Path) -> None:
    arguments = flags(data, tmp_path, "--max_steps", 1)
    assert train(arguments)
    (tmp_path / "mine.txt").write_text("stays")
    with pytest.raises(InputError, match=r"`resume`: .* holds a run already"):
        finished_result(plan_of([*arguments, "--no_resume"]))
    again = flags(data, tmp_path, "--max_steps", 2, "--seed", 5, "--overwrite")
    assert not finished_result(plan_of(again))
    assert train(again)
    assert [r["step"] for r in metrics(tmp_path) if r["kind"] == "train"] == [1, 2]
    assert (tmp_path / "mine.txt").read_text() == "stays"


def test_a_loss_that_is_not_finite_ends_the_run(data: Path, tmp_path: Path) -> None:
    common = ("--optimizer", "momentum", "--save_interval", 1, "--lr_policy", "constant")
    assert train(flags(data, tmp_path, "--max_steps", 2, "--lr", 1e-3, *common))
    with pytest.raises(RunError) as error:
        train(flags(data, tmp_path, "--max_steps", 9, "--lr", 1e9, *common))
    text = str(error.value)
    assert "finite" in text or "nan" in text or "inf" in text
    assert "at a learning rate of 1e+09" in text
    checkpoints = sorted((tmp_path / "checkpoints").iterdir())
    assert str(checkpoints[-1]) in text
    state = np.load(checkpoints[-1], allow_pickle=False)
    assert all(np.isfinite(state[name]).all() for name in state.files)


def test_a_loss_that_does_not_move_gets_a_hint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trainer, "STUCK_AFTER", 3)
    rate = ("--optimizer", "momentum", "--lr", 1e-9, "--scale", 1e-3)
    assert train(flags(data, tmp_path, "--max_steps", 5, *rate))
    hints = [line for line in capsys.readouterr().err.splitlines() if "hint" in line]
    assert len(hints) == 1
    assert "after 3 updates" in hints[0]
    assert f"ln(10) = {math.log(10):.2f}" in hints[0]


@pytest.mark.parametrize(("classes", "kept"), [(10, True), (7, False)])
def test_fine_tuning_keeps_a_fitting_classifier_and_replaces_another(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], classes: int, kept: bool
) -> None:
    from squeezenet_paddle.network.model import SqueezeNet

    plan = plan_of(flags(data, tmp_path / "x", "--num_classes", 10))
    config = {**vars(plan.info.network), "num_classes": classes, "version": "1.0"}
    info = ModelInfo(type(plan.info.network)(**config), plan.info.preprocess, source={"a": 1})
    network = SqueezeNet(info.network)
    write_model_dir(tmp_path / "start", info, network.state_dict())
    arguments = ("--pretrained", tmp_path / "start", "--max_steps", 1, "--lr", 1e-12)
    assert train(flags(data, tmp_path / "run", *arguments))
    assert ("-> 10 (new)" in capsys.readouterr().err) is not kept
    found, start = weights(tmp_path / "run/final"), weights(tmp_path / "start")
    assert found["conv10.weight"].shape[0] == 10
    assert np.allclose(found["fire5.expand3x3.weight"], start["fire5.expand3x3.weight"], atol=1e-9)
    if kept:
        assert np.allclose(found["conv10.weight"], start["conv10.weight"], atol=1e-9)
    trained = read_info(tmp_path / "run/final")
    assert trained.network.version == "1.0"
    assert trained.source["pretrained"] == {"a": 1}


def test_mixed_precision_is_refused_on_a_cpu(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="amp.* GPU"):
        train(flags(data, tmp_path, "--max_steps", 1, "--device", "cpu", "--amp", "O1"))


def test_an_unreadable_image_ends_the_run_or_is_named_and_left_out(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (data / "train_list.txt").read_text().splitlines()
    (tmp_path / "bad.jpg").write_text("no image")
    lines[4] = f"{tmp_path / 'bad.jpg'} 0"
    (tmp_path / "list.txt").write_text("\n".join(lines))
    arguments = ("--train_list", tmp_path / "list.txt", "--data_dir", data, "--max_steps", 4)
    with pytest.raises(InputError, match=r"list\.txt, line 5: .*bad\.jpg"):
        train(flags(data, tmp_path / "a", *arguments))
    assert train(flags(data, tmp_path / "b", *arguments, "--skip_unreadable"))
    told = capsys.readouterr().err
    assert "line 5" in told
    assert "1 images could not be read and were left out" in told


@pytest.mark.parametrize("name", ["train", "val"])
def test_a_list_of_which_nothing_can_be_read(data: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "bad.jpg").write_text("no image")
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'bad.jpg'} 0\n{tmp_path / 'bad.jpg'} 1\n" * 5)
    arguments = (f"--{name}_list", tmp_path / "list.txt", "--data_dir", data, "--skip_unreadable")
    with pytest.raises(InputError, match="none of the 10 images of the (training|validation)"):
        train(flags(data, tmp_path / "run", *arguments, "--num_epochs", 1))


def test_the_first_batch_may_be_unreadable(data: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no image")
    lines = (data / "train_list.txt").read_text().splitlines()
    for i in next(iter(Sampler(len(lines), 8, shuffle=True, seed=0).batches(0))):
        lines[i] = f"{tmp_path / 'bad.jpg'} 0"
    (tmp_path / "list.txt").write_text("\n".join(lines))
    arguments = ("--train_list", tmp_path / "list.txt", "--data_dir", data, "--skip_unreadable")
    assert train(flags(data, tmp_path / "run", *arguments, "--max_steps", 2, "--seed", 0))


@pytest.mark.parametrize(("first", "pause", "drawings"), [(1e9, 0, 1), (0, 0, 4), (0, 1e9, 2)])
def test_how_often_the_curves_are_drawn(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    first: float,
    pause: float,
    drawings: int,
) -> None:
    """Of four evaluations: at the end alone, after each, or after the first and at the end."""
    monkeypatch.setattr(report, "_FIRST", first)
    monkeypatch.setattr(report, "_PAUSE", pause)
    drawn, write = [], report.write_curves

    def counted(folder: Path) -> None:
        drawn.append(len(metrics(folder)))
        write(folder)

    monkeypatch.setattr(report, "write_curves", counted)
    assert train(flags(data, tmp_path, "--max_steps", 4, "--eval_interval", 1))
    assert len(drawn) == drawings
    assert drawn[-1] == len(metrics(tmp_path))  # the last drawing shows all there is


def test_batch_statistics_are_trained_and_kept(data: Path, tmp_path: Path) -> None:
    assert train(flags(data, tmp_path, "--head", "conv_bn", "--max_steps", 3))
    state = weights(tmp_path / "final")
    assert not np.allclose(state["bn9._mean"], 0)
    config = json.loads((tmp_path / "final/config.json").read_text())
    assert config["network"]["head"] == "conv_bn"
