"""The command `squeezenet`: its verbs, its help without Paddle, and what is not installed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from networks import VARIANTS, small_model_dir

from squeezenet_paddle.cli import main as command_line

# Runs the command with packages that cannot be imported, as where they are not installed.
WITHOUT = """
import sys
sys.modules.update(dict.fromkeys({packages!r}))
sys.argv = ["squeezenet", *{arguments!r}]
from squeezenet_paddle.cli.main import main
main()
"""


def squeezenet(
    *arguments: object, without: tuple[str, ...] = (), cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    words = [str(argument) for argument in arguments]
    start = ["-m", "squeezenet_paddle", *words]
    if without:
        start = ["-c", WITHOUT.format(packages=without, arguments=words)]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *start],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
    )


def test_help_lists_every_verb_and_loads_next_to_nothing() -> None:
    done = squeezenet("--help", without=("paddle", "cv2", "numpy"))
    assert done.returncode == 0, done.stderr
    for verb in command_line.VERBS:
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"  {verb} ")]
        assert len(line.split()) > 3


def test_every_command_is_a_verb_and_a_tool() -> None:
    for module in command_line.VERBS.values():
        assert callable(import_module(f"squeezenet_paddle.cli.{module}").main)
    assert sorted(command_line.VERBS.values()) == sorted(p.stem for p in ROOT.glob("tools/*.py"))


@pytest.mark.parametrize("verb", ["eval", "make-lists", "make_lists", "caffe2paddle"])
def test_a_verb_shows_its_manual(verb: str) -> None:
    done = squeezenet(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: squeezenet {verb.replace('_', '-')} ")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["evl"], "squeezenet: evl: no such verb; did you mean eval?\n"),
        (["../eval"], "squeezenet: ../eval: no such verb; did you mean eval?\n"),
        (["common"], "squeezenet: common: no such verb; squeezenet --help lists the verbs.\n"),
        (["summary", "--version", "9"], "squeezenet summary: argument --version: "),
    ],
)
def test_an_error_is_one_line_that_names_the_verb(arguments: list[str], error: str) -> None:
    done = squeezenet(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(error)
    assert done.stderr.count("\n") == 1


def test_what_needs_paddle_says_which_extra_installs_it(tmp_path: Path) -> None:
    made = squeezenet("make-sample-data", "--output_dir", "data", "--train_images", 1, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    done = squeezenet(
        *("train", "--train_list", "data/train_list.txt", "--output_dir", "run"),
        without=("paddle",),
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "squeezenet train: PaddlePaddle is not installed: pip install 'squeezenet_paddle[cpu]', "
        "or 'squeezenet_paddle[gpu]' for an NVIDIA GPU.\n"
    )


def test_eval_needs_the_extra_report_for_a_report_alone(tmp_path: Path) -> None:
    """And says so before it scores."""
    model = small_model_dir(tmp_path / "model", VARIANTS[0])
    cv2.imwrite(str(tmp_path / "image.png"), np.zeros((50, 50, 3), "uint8"))
    (tmp_path / "list.txt").write_text("image.png 0\n")
    command = ("eval", "--model_dir", model, "--test_list", tmp_path / "list.txt")
    extra = ("jinja2", "matplotlib", "sklearn")
    done = squeezenet(*command, "--num_workers", 0, without=(*extra, "paddle"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("top-1 ")
    for package in extra:
        done = squeezenet(*command, "--report_dir", tmp_path / "report", without=(package,))
        error = f"{package} is not installed: pip install 'squeezenet_paddle[report]'."
        assert done.returncode == 2
        assert done.stderr == f"squeezenet eval: {error}\n"
        assert done.stdout == ""
    assert not (tmp_path / "report").exists()


def test_a_module_of_ours_that_is_missing_is_a_defect() -> None:
    done = squeezenet("summary", without=("squeezenet_paddle.network.config",))
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_processes_of_a_run_start_from_any_folder(tmp_path: Path) -> None:
    """They are started by the path of `__main__.py`, beside which `onnx/` and `data/` lie."""
    made = squeezenet("make-sample-data", "--output_dir", "data", "--train_images", 1, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    done = squeezenet(
        *("train", "--train_list", "data/train_list.txt", "--output_dir", "run"),
        *("--resize_size", 32, "--crop_size", 32, "--batch_size", 10, "--num_epochs", 1),
        *("--device", "cpu", "--num_procs", 2, "--num_workers", 0),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "final" / "model.pdparams").is_file()


@pytest.mark.parametrize(
    ("loaded", "code_of_exit"), [("squeezenet_paddle.cli.common", -signal.SIGINT), ("cv2", 130)]
)
def test_ctrl_c_while_the_command_starts_is_no_traceback(loaded: str, code_of_exit: int) -> None:
    code = (
        "import os, signal, sys\n"
        "from squeezenet_paddle.cli.main import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def audit(event, args):\n"
        f"    if event == 'import' and args[0] == {loaded!r}:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.addaudithook(audit)\n"
        "sys.argv = ['squeezenet', 'summary']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (code_of_exit, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_in_one_line(number: signal.Signals, tmp_path: Path) -> None:
    """Sent twice, as job schedulers do; what was being written is cleared up."""
    code = (
        "import os\n"
        "from squeezenet_paddle.cli import common\n"
        "from squeezenet_paddle.files import atomic_path\n"
        "from pathlib import Path\n"
        "def main():\n"
        f"    with atomic_path(Path({str(tmp_path / 'result')!r})):\n"
        "        for _ in range(2):\n"
        f"            os.kill(os.getpid(), {int(number)})\n"
        "common.run(main, 'squeezenet infer')\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 128 + number
    assert done.stderr == f"squeezenet infer: stopped by {number.name}.\n"
    assert list(tmp_path.iterdir()) == []


def test_closed_standard_output_is_no_traceback(tmp_path: Path) -> None:
    """As the shell's ">&-" leaves it."""
    model = small_model_dir(tmp_path / "model", VARIANTS[0])
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((50, 50, 3), 128, np.uint8))
    command = [sys.executable, "-m", "squeezenet_paddle", "infer", "--model_dir", str(model)]
    done = subprocess.run(
        [*command, "--image", str(tmp_path / "grey.png")],
        preexec_fn=lambda: os.close(1),
        stderr=subprocess.PIPE,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0
    assert b"Traceback" not in done.stderr
