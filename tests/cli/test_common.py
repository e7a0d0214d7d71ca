"""What the commands share."""

from __future__ import annotations

import argparse

import pytest

from squeezenet_paddle.cli import common


def test_messages_name_settings_by_their_flags() -> None:
    parser = common.parser("A tool.")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--init", dest="pretrained")
    parser.parse_args(["--lr", "1"])
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
