"""Progress on a terminal, in a pipe and in a file; a line above the bar."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from runs import flags, make_tiny_data, tool, train
from terminal import lines_left, shown_on_a_terminal

from squeezenet_paddle import progress
from squeezenet_paddle.cli.common import fail
from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.model_dir import ModelInfo, write_model_dir
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.network.model import SqueezeNet
from squeezenet_paddle.progress import Progress, printable, say, track


class Clock:
    """Stands for the `time` module: `seconds` says what time it is."""

    seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_a_line_every_15_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("checking", 1000) as shown:
        for _ in range(40):
            clock.seconds += 1
            shown.update(20)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == [
        "checking: 300 of 1000, 20.00 images/s, ETA 00:35",
        "checking: 600 of 1000, 20.00 images/s, ETA 00:20",
    ]


def test_short_work_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in track(range(14), "checking"):
        clock.seconds += 1
    assert capsys.readouterr().err == ""


def test_what_was_done_before_does_not_count_for_the_rate(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("file.bin", 10_000_000, "B", done=4_000_000) as shown:
        clock.seconds += 20
        shown.reach(6_000_000)
    assert capsys.readouterr().err == "file.bin: 6.00M of 10.0M, 100kB/s, ETA 00:40\n"


def test_a_bar_on_a_terminal() -> None:
    """It moves to the end, and a line that is written meanwhile stands above it, unbroken."""
    shown = shown_on_a_terminal(
        "from squeezenet_paddle.progress import *\n"
        "for i in track(range(5), 'checking'):\n"
        "    if i == 2: say('skipped: a.jpg')\n"
    )
    lines = lines_left(shown)
    assert lines[0] == b"skipped: a.jpg"
    assert lines[1].startswith(b"checking: 100%|")
    assert b"| 5/5 [" in lines[1]


def test_a_bar_below_another_one_goes_when_it_is_done() -> None:
    shown = shown_on_a_terminal(
        "from squeezenet_paddle.progress import *\n"
        "for i in track(range(2), 'training'):\n"
        "    for i in track(range(2), 'validating'): pass\n"
    )
    lines = str(lines_left(shown))
    assert "training: 100%|" in lines
    assert "validating: 100%|" not in lines


def test_no_semaphore_is_made() -> None:
    """One of a process that was not forked would stay in shared memory when that is killed."""
    code = (
        "import multiprocessing, sys\n"
        "multiprocessing.set_start_method('spawn')\n"
        "from squeezenet_paddle.progress import Progress, say\n"
        "with Progress('working', 1):\n"
        "    say('hello')\n"
        "sys.exit('multiprocessing.synchronize' in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_line_without_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    say("hello")
    assert capsys.readouterr() == ("", "hello\n")


def test_a_long_validation_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make_tiny_data(tmp_path / "data")
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    assert train(flags(data, tmp_path / "run", "--num_epochs", 1))
    lines = [line for line in capsys.readouterr().err.splitlines() if "validating: " in line]
    assert [line.split(",")[0] for line in lines] == [
        "validating: 1 of 2",
        "validating: 2 of 2",
    ]


def test_an_unreadable_image_does_not_stop_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --skip_unreadable the others are still read, to name all the bad ones at once."""
    data = make_tiny_data(tmp_path / "data")
    next((data / "val").glob("*/*.jpg")).write_bytes(b"no image")
    info = ModelInfo(ModelConfig(num_classes=10), Preprocess(resize_size=40, crop_size=36))
    write_model_dir(tmp_path / "model", info, SqueezeNet(info.network).state_dict())
    monkeypatch.setattr(progress, "INTERVAL", 0.0)  # a line after every batch
    arguments = ["--model_dir", str(tmp_path / "model"), "--test_list", str(data / "val_list.txt")]
    with pytest.raises(InputError, match="1 of 10 images cannot be read"):
        tool("eval").main([*arguments, "--batch_size", "2", "--num_workers", "0"])
    lines = [text for text in capsys.readouterr().err.splitlines() if " of 10, " in text]
    assert [line.split()[1] for line in lines] == ["2", "4", "6", "8", "10"]


def test_characters_that_a_terminal_obeys_are_shown() -> None:
    assert printable("a\x1b[31mb\x9b\x7f\u202ecat") == r"a\x1b[31mb\x9b\x7f\u202ecat"
    assert printable("Zoë\tKöln 東京\n") == "Zoë\tKöln 東京\n"


def test_messages_and_results_do_not_command_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say("class \x1b]0;title\x07")
    with pytest.raises(SystemExit):
        fail("layer 'a\x1b[2Jb'")
    assert "\x1b" not in capsys.readouterr().err


def test_a_class_name_on_a_terminal() -> None:
    code = "from squeezenet_paddle.cli.common import run; run(lambda: print('cat\\x1b[2J'))"
    assert shown_on_a_terminal(code, stream="stdout") == b"cat\\x1b[2J\r\n"
