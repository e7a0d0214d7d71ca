"""What happens to a command whose disk, folder, clock or neighbour does the unexpected.

The rows of docs/interruptions.md that no other test is for; the page names those.
"""

from __future__ import annotations

import ctypes
import glob
import itertools
import os
import resource
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from forks import FORKS
from runs import (
    assert_same_weights,
    finetune_flags,
    flags,
    make_image_folder,
    make_pretrained,
    make_tiny_data,
    tool,
    train,
)

from squeezenet_paddle.cli import common
from squeezenet_paddle.errors import RunError
from squeezenet_paddle.temporaries import is_temporary
from squeezenet_paddle.training.log import RunLog

PATIENCE = 300  # seconds; only a process that hangs takes as long


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_data(tmp_path_factory.mktemp("tiny") / "data")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pretrained(tmp_path_factory.mktemp("pretrained") / "model")


def _run(arguments: list[str], output: str, most: int) -> None:
    with Path(output).open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    drop_privileges()
    common.run(lambda: tool(arguments[0]).main(arguments[1:]))


def drop_privileges() -> None:
    """Makes permissions hold for root, too."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    none = (ctypes.c_uint32 * 6)()
    if os.geteuid() == 0 and ctypes.CDLL(None, use_errno=True).capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")


def with_files_of_at_most(most: int, *arguments: object, output: Path) -> int | None:
    """Runs a command that can write no more bytes to a file, as on a full disk."""
    given = ([*map(str, arguments)], str(output), most)
    process = FORKS.Process(target=_run, args=given)
    process.start()
    process.join(PATIENCE)
    return process.exitcode


def test_a_full_disk_where_the_graph_of_an_engine_is_written(model: Path, tmp_path: Path) -> None:
    """Paddle tells of a graph that it cannot write, and not of parameters that are cut off."""
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((50, 50, 3), 128, "uint8"))
    infer = ["infer", "--model_dir", model, "--image", tmp_path / "grey.png", "--engine"]
    for most, message in ((2_000, "cannot be written"), (200_000, "cannot read what it has")):
        output = tmp_path / "output"
        assert with_files_of_at_most(most, *infer, "paddle", output=output) == 2
        told = output.read_text()
        assert message in told.splitlines()[-1], told
        assert "Traceback" not in told
    assert with_files_of_at_most(2_000, *infer, "onnxruntime", output=output) == 0  # in memory


def arguments_of(command: str, data: Path, model: Path, folder: Path) -> list[str]:
    lists = [str(data / f"{part}_list.txt") for part in ("train", "val")]
    if command == "train":
        return ["train", *flags(data, folder, "--max_steps", 2)]
    if command == "prepare_images":
        size = ("--resize_size", "500", "--format", "png", "--num_workers", "1")
        return ["prepare_images", "--list", *lists, "--output_dir", str(folder), *size]
    if command == "make_sample_data":
        return ["make_sample_data", "--output_dir", str(folder), "--train_images", "1"]
    shutil.copytree(model, folder)
    return ["export", "--model_dir", str(folder), "--format", command.split()[1]]


COMMANDS = ("train", "prepare_images", "make_sample_data", "export onnx", "export paddle")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_cannot_be_written_in_full_is_told_in_one_line(
    data: Path, model: Path, tmp_path: Path, command: str
) -> None:
    """And nothing of it is left: the next run of the command does its work."""
    folder, output = tmp_path / "out", tmp_path / "output"
    arguments = arguments_of(command, data, model, folder)
    before = {p.name for p in folder.iterdir()} if folder.exists() else set()
    most = 2_000 if command == "make_sample_data" else 100_000
    assert with_files_of_at_most(most, *arguments, output=output) in (1, 2)
    told = output.read_text()
    assert "Traceback" not in told
    assert str(folder) in told.splitlines()[-1] or "cannot" in told.splitlines()[-1]
    left = [p.name for p in folder.rglob("*")] if folder.exists() else []
    assert not [name for name in left if is_temporary(name)]
    if command.startswith("export"):
        assert set(left) == before
    if command == "make_sample_data":
        assert not folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="takes root's privileges as Linux knows them")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_is_read_only(data: Path, model: Path, tmp_path: Path, command: str) -> None:
    arguments = arguments_of(command, data, model, tmp_path / "closed" / "out")
    (tmp_path / "closed").mkdir(exist_ok=True)
    for folder in (tmp_path / "closed" / "out", tmp_path / "closed"):
        if folder.exists():
            folder.chmod(0o555)
    output = tmp_path / "output"
    assert with_files_of_at_most(1 << 40, *arguments, output=output) == 2
    assert len(output.read_text().splitlines()) == 1


@pytest.mark.parametrize("moved", [False, True])
def test_a_directory_that_is_removed_or_moved_ends_the_run(tmp_path: Path, moved: bool) -> None:
    with RunLog(tmp_path / "run", max_steps=9) as log:
        log.tick(1)
        if moved:
            (tmp_path / "run").rename(tmp_path / "elsewhere")
        else:
            shutil.rmtree(tmp_path / "run")
        with pytest.raises(RunError, match=r"run/metrics.jsonl: it was moved or removed.*update 2"):
            log.tick(2)
    assert not (tmp_path / "run").exists()


def _with_signal(arguments: list[str], output: str, number: int, after: str) -> None:
    """Runs a command that gets a signal at the 20th image after there is something at a path."""
    with Path(output).open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" has it ignored
    images = itertools.count(1)

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and str(args[0]).endswith(".jpg") and has_come() and next(images) == 20:
            os.kill(os.getpid(), number)

    def has_come() -> bool:
        return any(Path(name).stat().st_size for name in glob.glob(after))

    if number:
        sys.addaudithook(audit)
    common.run(lambda: tool("finetune").main(arguments), "squeezenet finetune")


def test_a_fine_tuning_that_is_stopped_before_and_after_training_goes_on(
    tmp_path: Path, model: Path
) -> None:
    images, output = make_image_folder(tmp_path / "images"), tmp_path / "output"

    def run(name: str, number: int = 0, after: str = "") -> tuple[int | None, str]:
        arguments = finetune_flags(images, model, tmp_path / name, "--no_check", "--views", 2)
        given = (arguments, str(output), number, str(tmp_path / name / after))
        process = FORKS.Process(target=_with_signal, args=given)
        process.start()
        process.join(PATIENCE)
        return process.exitcode, output.read_text()

    for number, after in (
        (signal.SIGHUP, ""),  # while the images are checked
        (signal.SIGTERM, "features/views*.f16"),
        (signal.SIGINT, "final"),  # while the model is calibrated
    ):
        code, told = run("run", number, after)
        assert code == 128 + number, told
        assert told.splitlines()[-1] == (
            f"squeezenet finetune: stopped by {number.name}; the same command goes on from there."
        )
        assert "Traceback" not in told
        if number == signal.SIGHUP:
            assert "features" not in told
            assert (tmp_path / "run" / "contents.json").exists()
    assert " 2 views of " in told
    assert " of validation, 50 of them new" in told  # the first view of those of training is there
    code, told = run("run")
    assert code == 0
    assert "this run is finished" in told
    assert run("whole")[0] == 0
    for name in ("final", "best"):
        assert_same_weights(tmp_path / "whole" / name, tmp_path / "run" / name)
        one, other = (tmp_path / folder / name for folder in ("whole", "run"))
        assert _files(one) == _files(other)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_clock_that_jumps_back_changes_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constant = ("--lr_policy", "constant")
    assert train(flags(data, tmp_path / "whole", "--max_steps", 4, *constant))
    assert train(flags(data, tmp_path / "run", "--max_steps", 2, *constant))
    now = iter(range(2_000_000_000, 0, -86_400))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    assert train(flags(data, tmp_path / "run", "--max_steps", 4, *constant))
    for name in ("final", "best"):
        assert_same_weights(tmp_path / "whole" / name, tmp_path / "run" / name)


def test_two_that_prepare_the_same_images(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = arguments_of("prepare_images", data, data, out)[1:]
    tool("prepare_images").main([*arguments[:-6], "--num_workers", "1", "--format", "png"])
    for file in out.rglob("*.png"):
        file.unlink()
    arguments = [*arguments[:-6], "--num_workers", "1", "--format", "png"]
    both = [threading.Thread(target=tool("prepare_images").main, args=(arguments,)) for _ in "12"]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(list(out.rglob("*.png"))) == 40
    assert not [p for p in out.rglob("*") if is_temporary(p.name)]


def test_this_page_is_of_these_tests() -> None:
    """The page of interruptions names tests that there are."""
    root = Path(__file__).parent
    page = (root.parent / "docs" / "interruptions.md").read_text("utf-8")
    named = [line.split("`")[-2] for line in page.splitlines() if "| `tests/" in line]
    assert len(named) > 12
    for name in named:
        file, _, test = name.partition("::")
        assert f"def {test}(" in (root.parent / file).read_text("utf-8"), name
