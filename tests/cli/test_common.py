"""What the commands share."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import pytest
from conftest import Run, assert_user_error

from squeezenet_paddle.cli import common, shared_flags
from squeezenet_paddle.data import remarks
from squeezenet_paddle.progress import say


@pytest.fixture
def parser() -> common.Parser:
    parser = common.parser("A tool.", leading=("--model_dir", "--image"))
    parser.add_argument("--model_dir", required=True)
    parser.add_argument("--image", nargs="+")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--init", dest="pretrained")
    shared_flags.add_verbose(parser)
    shared_flags.add_old_flag(parser, "--rate", "lr", float)
    return parser


def refusal(parser: common.Parser, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a wrong command line ends with."""
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(arguments)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_messages_name_settings_by_their_flags(parser: common.Parser) -> None:
    parser.parse_args(["--model_dir", "x", "--lr", "1"])
    text = "`solver.lr` and `pretrained`, not `other` or `/a b`."
    assert common.with_flags(text) == "--lr and --init, not `other` or `/a b`."


def test_a_flag_with_two_spellings_is_named_as_it_was_typed() -> None:
    parser = common.parser("A tool.")
    parser.add_argument("--then_epochs", dest="then_epochs")
    parser.add_argument("--epochs", dest="then_epochs", help=argparse.SUPPRESS)
    parser.parse_args([])
    assert common.with_flags("`then_epochs`") == "--then_epochs"
    for typed in (["--epochs", "3"], ["--epochs=3"]):
        parser.parse_args(typed)
        assert common.with_flags("`then_epochs`") == "--epochs"


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        common.fail("two\nlines")
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(": two lines\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--modle_dir", "x"], "there is no --modle_dir, the nearest is --model_dir; --help"),
        (["--model_dir", "x", "--images=a"], "there is no --images, the nearest is --image;"),
        (["-image", "a"], "there is no -image, the nearest is --image;"),
        (["--ratte", "1"], "there is no --ratte; --help"),  # the old spelling is not advertised
        (["--xyz"], "there is no --xyz; --help"),
        (["--lr", "1"], "the following arguments are required: --model_dir;"),
    ],
)
def test_an_unknown_flag_gets_the_nearest(
    parser: common.Parser,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert f": {message}" in refusal(parser, arguments, capsys)


def test_values_are_no_flags(parser: common.Parser) -> None:
    args = parser.parse_args(["--model_dir", "-", "--lr", "-1.5", "--image", "-", "- b", "--x y"])
    assert (args.model_dir, args.lr, args.image) == ("-", -1.5, ["-", "- b", "--x y"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m"], "before 'm', as in --model_dir m;"),
        (["m", "a", "b c"], "before 'm', as in --model_dir m --image a 'b c';"),
        (["m", "a", "--lr", "1"], "before 'm', as in --model_dir m --image a;"),
    ],
)
def test_arguments_without_flags_are_told_what_to_type(
    parser: common.Parser,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert f"a flag was expected {message}" in refusal(parser, arguments, capsys)


def test_old_spellings_work_and_are_not_shown(parser: common.Parser) -> None:
    assert parser.parse_args(["--model_dir", "x", "--rate", "2"]).lr == 2
    assert parser.parse_args(["--model_dir", "x"]).lr is None
    assert "--rate" not in parser.format_help()
    assert common.with_flags("`lr`") == "--lr"


def test_verbose_is_of_one_call(parser: common.Parser) -> None:
    parser.parse_args(["--model_dir", "x", "--verbose"])
    assert remarks.logger.isEnabledFor(logging.INFO)
    parser.parse_args(["--model_dir", "x"])
    assert not remarks.logger.isEnabledFor(logging.INFO)


def test_what_the_library_says_comes_with_flags(
    parser: common.Parser, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hints of a fine-tuning named settings between backticks."""
    parser.parse_args(["--model_dir", "x"])
    say("hint: `lr` 0.001, or `pretrained`")
    assert capsys.readouterr().err == "hint: --lr 0.001, or --init\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["make_lists", "--val", "2"], "--val must lie in 0..1"),
        (["make_lists", "--class_name_pattern", "("], "--class_name_pattern '(' is not a regular"),
        (["prepare_images", "--list", "lists/a", "other/a"], "--data_dir must say where"),
    ],
)
def test_library_messages_come_with_flags(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call_tool: Run,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("images/a/1.jpg", "images/b/1.jpg", "lists/a", "other/a"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("1.jpg 0\n")
    if arguments[0] == "make_lists":
        arguments = [*arguments, "--images", "images"]
    assert_user_error(call_tool(*arguments, "--output_dir", "out"), message)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "C++ Traceback: ...\n(External) CUDA error(700), an illegal memory access.\n"
            "  [Hint: 'cudaErrorIllegalAddress'] (at /paddle/phi/gpu_info.cc:66)\n",
            "CUDA error(700), an illegal memory access.",
        ),
        (
            "ExternalError: NCCL error(5), invalid usage. (at /x.cc:1)",
            "NCCL error(5), invalid usage.",
        ),
        ("no space left", ""),
    ],
)
def test_an_error_of_the_gpu_is_one_line(text: str, reason: str) -> None:
    assert common.of_gpu(OSError(text)) == reason
