"""The flags of all commands: each is read, and errors name the flags that were typed."""

from __future__ import annotations

import ast
import dataclasses
import importlib
from pathlib import Path

import pytest

import squeezenet_paddle
from squeezenet_paddle.cli import common
from squeezenet_paddle.cli.config_flags import config_of
from squeezenet_paddle.data.augment import Augment
from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.finetuning.config import FinetuneConfig
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.settings import settings_of
from squeezenet_paddle.training.config import TrainConfig

PACKAGE = Path(squeezenet_paddle.__file__).parent
COMMANDS = sorted(
    path.stem
    for path in (PACKAGE / "cli").glob("*.py")
    if "def main(argv" in path.read_text(encoding="utf-8")
)


class ParsingError(Exception):
    """Carries the parser of a command that is about to parse."""


def parser_of(name: str, monkeypatch: pytest.MonkeyPatch) -> common.Parser:
    def stop(self: common.Parser, *_: object) -> None:
        raise ParsingError(self)

    monkeypatch.setattr(common.Parser, "parse_args", stop)
    with pytest.raises(ParsingError) as caught:
        importlib.import_module(f"squeezenet_paddle.cli.{name}").main([])
    return caught.value.args[0]


def names_read(*paths: Path) -> set[str]:
    """Attributes that code reads, and texts in it that may name one."""
    names = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                names.add(node.attr)
    return names


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_is_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = parser_of(name, monkeypatch)
    flags = {action.dest for action in parser._actions} - {"help", "verbose"}
    shared = [PACKAGE / "cli" / file for file in ("common.py", "shared_flags.py")]
    read = names_read(PACKAGE / "cli" / f"{name}.py", *shared)
    if name in ("train", "finetune"):  # their flags are the fields of a configuration
        config = TrainConfig if name == "train" else FinetuneConfig
        assert flags >= {setting for setting, _ in settings_of(config)}
        folders = ("training", "data") if name == "train" else ("finetuning", "data")
        read = names_read(*(path for folder in folders for path in (PACKAGE / folder).glob("*.py")))
        for cls in (ModelConfig, Preprocess, Augment):  # taken over field by field
            read |= {field.name for field in dataclasses.fields(cls)}
        if name == "finetune":
            read |= {setting for setting, _ in settings_of(TrainConfig)}  # handed on to training
    assert flags - read == set()


def test_two_commands_give_a_flag_one_meaning() -> None:
    """finetune.py's settings that train.py has too are of the same kind."""
    train, finetune = dict(settings_of(TrainConfig)), dict(settings_of(FinetuneConfig))
    traits = ("kind", "choices", "count", "at_least", "above", "at_most", "below")
    for name in train.keys() & finetune.keys() - {"head"}:  # of which finetune.py offers two
        for trait in traits:
            assert getattr(train[name], trait) == getattr(finetune[name], trait), name


def finetune_message(*arguments: str) -> str:
    given = ["--pretrained", "model", "--output_dir", "run", *arguments]
    parser = importlib.import_module("squeezenet_paddle.cli.finetune").parser()
    with pytest.raises(InputError) as error:
        config_of(parser.parse_args(given), FinetuneConfig)
    return common.with_flags(str(error.value))


@pytest.mark.parametrize("flag", ["--epochs", "--then_epochs"])
def test_the_length_of_a_second_stage_needs_one(flag: str) -> None:
    message = finetune_message("--images", "x", flag, "5")
    assert message.startswith(f"{flag} is for a second stage, and --then was not given")
    assert "--num_epochs" in message


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--then_lr", "0.1"), "--then_lr is for a second stage"),
        (("--then", "head"), "--then head: more than what --trainable head trains"),
        (("--trainable", "all", "--views", "3"), "--views is for features"),
        (("--trainable", "all", "--no_cache"), "--no_cache is for features"),
        (("--crop_scale", "0.5", "1"), "--crop_scale is for --resized_crop"),
        (("--border", "constant"), "--border is for --rotation"),
    ],
)
def test_a_setting_that_would_be_ignored_is_refused(arguments: tuple[str, ...], text: str) -> None:
    assert text in finetune_message("--images", "x", *arguments)


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adam", "momentum": 0.5},
        {"amp_dtype": "bfloat16"},
        {"num_epochs": 3, "max_steps": 3},
        {"num_gpus": 2, "num_procs": 2},
    ],
)
def test_settings_that_exclude_each_other(settings: dict[str, object]) -> None:
    with pytest.raises(InputError, match="|".join(f"`{name}`" for name in settings)):
        TrainConfig.from_settings(train_list="a", output_dir="b", **settings)


def test_an_unknown_setting_gets_the_nearest_one() -> None:
    with pytest.raises(InputError, match=r"no setting 'num_epoch'; did you mean `num_epochs`"):
        TrainConfig.from_settings(train_list="a", output_dir="b", num_epoch=3)


def test_old_spellings_still_work() -> None:
    parser = importlib.import_module("squeezenet_paddle.cli.train").parser()
    given = ["--train_list", "a", "--output_dir", "b", "--input_size", "64"]
    assert config_of(parser.parse_args(given), TrainConfig).input.crop_size == 64
    assert "--input_size" not in parser.format_help()
