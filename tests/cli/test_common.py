"""What the commands share."""

from __future__ import annotations

import pytest

from squeezenet_paddle.cli import common


def test_messages_name_settings_by_their_flags() -> None:
    parser = common.parser("A tool.")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--init", dest="pretrained")
    parser.parse_args(["--lr", "1"])
    text = "`solver.lr` and `pretrained`, not `other` or `/a b`."
    assert common.with_flags(text) == "--lr and --init, not `other` or `/a b`."


def test_an_error_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        common.fail("two\nlines")
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(": two lines\n")
