"""From the flags of train.py to a plan: defaults, what a pretrained model brings, mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import flags, plan_of

from squeezenet_paddle.cli import common
from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.model_dir import ModelInfo, write_model_dir
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.training.config import SolverConfig


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """List files; a plan does not look for the images."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train_list.txt").write_text("".join(f"{i}.jpg {i % 5}\n" for i in range(100)))
    (folder / "val_list.txt").write_text("a.jpg 4\n")
    return folder


def plain(data: Path, *more: object) -> list[str]:
    return [
        *("--train_list", str(data / "train_list.txt"), "--output_dir", str(data.parent / "run")),
        *map(str, more),
    ]


def test_the_defaults_are_the_authors_solver(data: Path) -> None:
    plan = plan_of(plain(data))
    solver = plan.solver
    assert (solver.lr_policy, solver.lr, solver.power) == ("poly", 0.04, 1.0)
    assert (plan.max_steps, solver.warmup_steps) == (170_000, 0)
    assert (solver.optimizer, solver.momentum, solver.weight_decay) == ("momentum", 0.9, 2e-4)
    assert (solver.batch_size, solver.parts) == (512, 16)
    assert plan.info.network == ModelConfig(num_classes=5)
    assert plan.info.preprocess == Preprocess()
    run = plan.config.run
    assert plan.updates(run.eval_interval) == plan.updates(run.save_interval) == 1  # of 100 images
    assert run.resume


def test_lengths_and_intervals_count_updates_or_epochs(data: Path) -> None:
    arguments = ("--batch_size", 8, "--num_epochs", 4, "--eval_interval", "0.5e")
    plan = plan_of(plain(data, *arguments, "--save_interval", "2e", "--log_interval", 7))
    run = plan.config.run
    assert plan.max_steps == 4 * 13
    assert plan.updates(run.eval_interval) == 6
    assert plan.updates(run.save_interval) == 26
    assert plan.updates(run.log_interval) == 7


@given(st.integers(1, 2000))
def test_a_batch_is_split_evenly_into_parts_of_at_most_32(batch_size: int) -> None:
    parts = SolverConfig(batch_size=batch_size).parts
    assert batch_size % parts == 0
    assert batch_size // parts <= 32
    assert all(batch_size % k or batch_size // k > 32 for k in range(1, parts))


def test_a_pretrained_model_brings_network_and_preprocessing(data: Path, tmp_path: Path) -> None:
    from squeezenet_paddle.network.model import SqueezeNet

    config = ModelConfig(version="1.0", num_classes=5, bypass="simple")
    info = ModelInfo(config, Preprocess(crop_size=200), [f"class{i}" for i in range(5)])
    write_model_dir(tmp_path / "model", info, SqueezeNet(config).state_dict())
    model = ("--pretrained", tmp_path / "model")
    plan = plan_of(plain(data, *model, "--dropout", 0.2))
    assert plan.info.network == ModelConfig(
        version="1.0", num_classes=5, bypass="simple", dropout=0.2
    )
    assert plan.info.preprocess.crop_size == 200
    assert plan.info.names == info.names
    assert plan_of(plain(data, *model, "--num_classes", 9)).info.names is None
    layout = plan_of(plain(data, *model, "--data_format", "NHWC"))
    assert layout.info.preprocess.data_format == "NHWC"
    with pytest.raises(InputError, match=r"`bypass` none: the model of `pretrained` has .*simple"):
        plan_of(plain(data, *model, "--bypass", "none"))
    for new in (("--init", "xavier_normal"), ("--classifier_bias", 3)):
        plan_of(plain(data, *model, "--num_classes", 9, *new))
        with pytest.raises(InputError, match=f"`{new[0][2:]}` {new[1]}: .*`pretrained` .*kept"):
            plan_of(plain(data, *model, *new))


def test_names_give_the_number_of_classes(data: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("".join(f"n{i}\n" for i in range(8)))
    plan = plan_of(plain(data, "--synset_word_list", tmp_path / "names.txt"))
    assert plan.info.network.num_classes == 8
    assert plan.info.names == [f"n{i}" for i in range(8)]


@pytest.mark.parametrize("order", ["BGR", "RGB"])
def test_a_mean_file_is_put_in_order_and_scale(data: Path, tmp_path: Path, order: str) -> None:
    (tmp_path / "mean.json").write_text(json.dumps({"mean": [100, 110, 120], "std": [1, 2, 3]}))
    arguments = ("--mean_json", tmp_path / "mean.json", "--channel_order", order, "--scale", 0.5)
    mean = plan_of(plain(data, *arguments)).info.preprocess.mean
    assert mean == ((50, 55, 60) if order == "BGR" else (60, 55, 50))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--iter_size", 3), "--iter_size 3: a divisor of --batch_size 512"),
        (("--crop_size", 12), "--crop_size: SqueezeNet v1.1 needs at least 17 pixels, found 12"),
        (("--crop_size", 300, "--resize_size", 256), "crop_size must be at most resize_size"),
        (("--num_classes", 3), "the label must lie in 0..2, found 3"),
        (("--dropout", 1), "--dropout: at least 0 and below 1 was expected, found 1.0"),
        (("--momentum", 1), "--momentum: at least 0 and below 1 was expected, found 1.0"),
        (("--label_smoothing", -1), "--label_smoothing: at least 0 and below 1"),
        (("--weight_decay", -1), "--weight_decay: at least 0 was expected"),
        (("--clip_norm", 0), "--clip_norm: above 0"),
        (("--ema_decay", 1), "--ema_decay: at least 0 and below 1"),
        (("--lr", 0), "--lr"),
        (("--max_steps", 0), "--max_steps: a whole number of at least 1 was expected, found 0"),
        (("--lr_policy", "step"), "--step_size"),
        (("--max_steps", 9, "--warmup_steps", 10), "--warmup_steps: at most the 9 updates of the"),
        (("--flip", 2), "flip"),
        (("--mean", 1, 2, 3, "--mean_json", "x"), "--mean and --mean_json both give the mean"),
        (("--mean_json", "/nowhere.json"), "/nowhere.json"),
        (("--pretrained", "/nowhere"), "/nowhere"),
        (
            ("--trainable", "fire10"),
            "--trainable: head, fire9, fire8+, ..., fire2+ or all was expected",
        ),
        (("--trainable", "head"), "--trainable head: the other layers would keep their random"),
        (("--head_lr_mult", 0), "--head_lr_mult: above 0 was expected, found 0.0"),
        (("--head_lr_mult", "nan"), "--head_lr_mult: above 0 was expected, found nan"),
        (("--patience", 3), "--patience: --val_list was expected with it"),
        (("--head", "multiscale", "--classifier_bias", 3), "--classifier_bias 3: it is that of"),
        (("--head", "conv_bn", "--dropout", 0.3), "--dropout: the head conv_bn has none"),
        (("--val_list", "/nowhere"), "/nowhere"),
    ],
)
def test_a_mistake_is_named(
    data: Path, arguments: tuple[object, ...], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((InputError, SystemExit)) as error:
        plan_of(plain(data, *arguments))
    assert text in common.with_flags(str(error.value)) + capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "-1", "x"])
def test_patience_is_a_number_above_0(
    data: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        plan_of(flags(data, data.parent / "run", "--patience", text))
    assert error.value.code == 2
    assert "--patience" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "e", "0e", "nane", "infe", "x"])
def test_an_interval_is_a_number_above_0(
    data: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as error:
        plan_of(plain(data, "--eval_interval", text))
    assert error.value.code == 2
    assert "--eval_interval" in capsys.readouterr().err


def test_settings_are_json(data: Path) -> None:
    settings = plan_of(flags(data, data.parent / "run")).settings
    assert settings.must_match["trainable"] == "all"
    assert settings.may_change["patience"] is None
    for values in (settings.must_match, settings.may_change):
        assert json.loads(json.dumps(values)) == values
    assert np.isclose(settings.may_change["lr"], 1e-3)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("head", "head"),
        ("fire9", "fire9"),
        ("fire8+", "fire8"),
        ("all", "conv1"),
        ("conv1", "conv1"),
    ],
)
def test_what_trainable_takes(text: str, first: str) -> None:
    assert SolverConfig(trainable=text).trained_from == first


@pytest.mark.parametrize("text", ["fire10", "fire1", "", "+", "all+", "fire8++", "Head", "conv10"])
def test_what_trainable_refuses(text: str) -> None:
    with pytest.raises(InputError, match="`trainable`: head, fire9, .* was expected"):
        SolverConfig(trainable=text)
