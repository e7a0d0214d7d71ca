"""Runs that are killed or interrupted, whose checkpoints are damaged or whose disk is full."""

from __future__ import annotations

import os
import pty
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import killed
import numpy as np
import pytest
from conftest import ROOT
from forks import FORKS
from runs import assert_same_weights, flags, make_tiny_data, metrics, weights

from squeezenet_paddle.temporaries import temporary_directory

KILLS = 20
PATIENCE = 600  # seconds; only a process that hangs takes as long


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_data(tmp_path_factory.mktemp("tiny") / "data")


def start(arguments: list[str], output: Path = Path(os.devnull), kill_at: int = 0) -> BaseProcess:
    """Starts the run in a process of its own.

    Args:
        arguments: of train.py.
        output: gets its standard error.
        kill_at: before which of its file events it is killed; 0: it is not.
    """
    run = Path(arguments[arguments.index("--output_dir") + 1])
    process = FORKS.Process(target=killed.train, args=(arguments, output, run, kill_at))
    process.start()
    return process


def finish(arguments: list[str], output: Path = Path(os.devnull), kill_at: int = 0) -> int | None:
    """Runs to the end and returns the exit code; see `start` for the arguments."""
    process = start(arguments, output, kill_at)
    process.join(PATIENCE)
    return process.exitcode


def steps(run: Path) -> int:
    """Updates recorded in metrics.jsonl."""
    try:
        return (run / "metrics.jsonl").read_bytes().count(b'"train"')
    except FileNotFoundError:
        return 0


def wait_for_step(run: Path, step: int, process: BaseProcess) -> None:
    deadline = time.monotonic() + PATIENCE
    while steps(run) < step and process.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_killed_again_and_again_it_ends_with_the_same_weights(data: Path, tmp_path: Path) -> None:
    """Kills before files are opened, renamed and removed, in the middle of updates in between."""
    common = ("--max_steps", 60, "--save_interval", 3, "--eval_interval", 7, "--ema_decay", 0.9)
    assert finish(flags(data, tmp_path / "whole", *common)) == 0
    # With so few events in a process, all kills together end about half way through the run.
    run, rng, done = tmp_path / "killed", random.Random(0), []
    for _ in range(KILLS):
        kill_at = rng.randint(1, 60)
        assert finish(flags(data, run, *common), Path(os.devnull), kill_at) == -signal.SIGKILL
        done.append(steps(run))
    assert len(set(done)) > 5
    assert finish(flags(data, run, *common)) == 0
    for model in ("final", "best"):
        assert_same_weights(tmp_path / "whole" / model, run / model)
    assert [r["step"] for r in metrics(run) if r["kind"] == "train"] == list(range(1, 61))
    leftovers = [p.name for p in (*run.iterdir(), *(run / "checkpoints").iterdir())]
    assert not [name for name in leftovers if name.startswith(".") and name != ".lock"]


def test_a_damaged_checkpoint_is_passed_over(data: Path, tmp_path: Path) -> None:
    arguments = flags(data, tmp_path / "run", "--max_steps", 6, "--save_interval", 2)
    assert finish(flags(data, tmp_path / "whole", "--max_steps", 6)) == 0
    assert finish(arguments) == 0
    run = tmp_path / "run"
    newest = run / "checkpoints" / "step_00000006.ckpt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    (run / "final" / "model.pdparams").unlink()
    (run / "final" / "config.json").unlink()
    (run / "final").rmdir()
    assert finish(arguments, tmp_path / "log") == 0
    told = (tmp_path / "log").read_text()
    assert "step_00000006.ckpt" in told
    assert "goes on after update 4" in told
    assert_same_weights(tmp_path / "whole/final", run / "final")
    assert [r["step"] for r in metrics(run) if r["kind"] == "train"] == [1, 2, 3, 4, 5, 6]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MB, of which a checkpoint of Adam takes 15."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_ends_the_run_and_leaves_the_older_checkpoints(
    data: Path, tmp_path: Path, small_disk: Path
) -> None:
    run = small_disk / "run"
    common = ("--save_interval", 1, "--eval_interval", 9, "--keep_checkpoints", 9)
    assert finish(flags(data, run, "--max_steps", 9, *common), tmp_path / "log") == 1
    told = (tmp_path / "log").read_text()
    assert "No space left on device" in told
    assert "Traceback" not in told
    there = sorted((run / "checkpoints").iterdir())
    assert len(there) >= 1
    assert all(path.name.startswith("step_") for path in there)
    # With room again, it goes on where it was.
    subprocess.run(["mount", "-o", "remount,size=400m", str(small_disk)], check=True)
    assert finish(flags(data, run, "--max_steps", 9, *common), tmp_path / "log2") == 0
    assert f"goes on after update {len(there)}" in (tmp_path / "log2").read_text()
    assert finish(flags(data, tmp_path / "whole", "--max_steps", 9, *common)) == 0
    assert_same_weights(tmp_path / "whole/final", run / "final")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_and_goes_on(
    data: Path, tmp_path: Path, number: signal.Signals
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    arguments = flags(data, run, "--max_steps", 1_000_000, "--save_interval", 1_000_000)
    process = start(arguments, log)
    wait_for_step(run, 5, process)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(PATIENCE)
    assert process.exitcode == 130
    done = steps(run)
    assert done >= 5
    told = log.read_text()
    assert f"stopped after update {done} of 1000000 and saved; the same command goes on" in told
    assert "Traceback" not in told
    assert finish([*arguments, "--max_steps", str(done + 2)], log) == 0
    assert f"goes on after update {done}" in log.read_text()


def test_the_tool_from_a_shell(data: Path, tmp_path: Path) -> None:
    """The command as a user gives it, reader processes included; then again."""
    arguments = flags(data, tmp_path / "run", "--num_workers", 2, "--num_epochs", 2)
    command: list[Any] = [sys.executable, ROOT / "tools" / "train.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert "finished; best validation top-1" in done.stderr
    again = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert again.returncode == 0
    assert "this run is finished" in again.stdout


def test_a_finished_run_is_checked_before_it_is_called_so(data: Path, tmp_path: Path) -> None:
    run, arguments = tmp_path / "run", flags(data, tmp_path / "run", "--max_steps", 4)
    assert finish(arguments) == 0
    whole = weights(run / "final")
    (run / "final" / "model.pdparams").write_bytes(b"")  # what a loss of power may leave
    (run / "curves.png").unlink()  # and a kill before they were drawn
    log = tmp_path / "log"
    assert finish(arguments, log) == 0
    assert "goes on after update 4" in log.read_text()
    assert (run / "curves.png").is_file()
    again = weights(run / "final")
    assert all(np.array_equal(whole[key], again[key]) for key in whole)
    (run / "best" / "model.pdparams").write_bytes(b"")
    assert finish(arguments, log) == 2
    told = log.read_text().splitlines()[-1]
    assert "best/model.pdparams" in told
    assert re.search("(`overwrite`|--overwrite) trains it from scratch", told)


def test_a_lost_best_model_is_told_and_written_again(data: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    arguments = flags(data, run, "--eval_interval", 2)
    assert finish([*arguments, "--max_steps", "4"]) == 0
    (run / "best" / "config.json").write_bytes(b"")
    assert finish([*arguments, "--max_steps", "6"], log) == 0
    assert "best/config.json" in log.read_text()
    assert "The best model from now on is kept in its place" in log.read_text()
    assert weights(run / "best").keys() == weights(run / "final").keys()


def test_an_export_of_a_run_that_is_training_does_not_end_it(data: Path, tmp_path: Path) -> None:
    """Nor does what an export that was killed has left."""
    run, log = tmp_path / "run", tmp_path / "log"
    arguments = flags(data, run, "--eval_interval", 1, "--max_steps", 1_000_000)
    process = start(arguments, log)
    wait_for_step(run, 3, process)
    with temporary_directory(run / "best"):  # as an export that is being written
        process_steps = steps(run)
        wait_for_step(run, process_steps + 3, process)
    (run / "best" / ".a1b2c3d4.sqz-tmp").mkdir()
    wait_for_step(run, steps(run) + 3, process)
    assert process.is_alive()
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(PATIENCE)
    (run / "best" / ".a1b2c3d4.sqz-tmp").mkdir(exist_ok=True)
    assert finish([*arguments, "--max_steps", str(steps(run) + 1)], log) == 0
    assert not (run / "best" / ".a1b2c3d4.sqz-tmp").exists()


def start_in_shell(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Starts the command with a reader in a process group of its own, as a shell or Slurm does."""
    command: list[Any] = [sys.executable, ROOT / "tools" / "train.py", *arguments]
    with log.open("ab") as file:
        return subprocess.Popen(
            [*command, "--num_workers", "1"], stderr=file, start_new_session=True
        )


def readers(parent: int) -> list[int]:
    """The reader processes of a run."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [n for n in map(int, children) if b"spawn_main" in command_line(n)]


def command_line(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which processes there are")
def test_a_signal_to_the_whole_group_and_a_stopped_reader(data: Path, tmp_path: Path) -> None:
    """SIGTERM to all processes, twice, as systemd and Slurm send it, once a reader was stopped."""
    run, log = tmp_path / "run", tmp_path / "log"
    process = start_in_shell(flags(data, run, "--max_steps", 1_000_000), log)
    wait_for_steps(run, 3)
    stopped = min(readers(process.pid))  # of the training list; those of the other one come later
    os.kill(stopped, signal.SIGSTOP)
    wait_for_steps(run, steps(run) + 5)
    for _ in range(2):
        os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(PATIENCE) == 130
    told = log.read_text()
    assert f"reader process {stopped} was stopped" in told
    assert f"stopped after update {steps(run)} of 1000000 and saved" in told


def wait_for_steps(run: Path, step: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while steps(run) < step:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_run_whose_terminal_goes_saves(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = flags(data, run, "--max_steps", 1_000_000, "--num_workers", 1)
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, str(ROOT / "tools" / "train.py"), *arguments])
    wait_for_steps(run, 3)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
    assert f"stopped after update {steps(run)} of 1000000 and saved" in (
        run / "train.log"
    ).read_text("utf-8")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_paddle_is_loaded(tmp_path: Path, number: signal.Signals) -> None:
    """It waits until Paddle is, and then ends the process, without Paddle's stack trace.

    SIGHUP in a command, which handles it; SIGTERM in a process that does not.
    """
    in_command = number == signal.SIGHUP
    code = (
        "import os, signal, sys\n"
        "from squeezenet_paddle.cli import common\n"
        "from squeezenet_paddle.process_settings import keep_signals_from_paddle\n"
        "keep_signals_from_paddle()\n"
        "def audit(event, args):\n"
        "    if event == 'import' and args[0] == 'paddle.nn':\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "        print('sent', flush=True)\n"
        "sys.addaudithook(audit)\n"
        "def main():\n"
        "    import paddle\n"
        "    print('loaded', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        f"{'common.run(main)' if in_command else 'main()'}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == (128 + number if in_command else -number)
    assert done.stdout.split("\n")[0] == "sent"
    assert "loaded" not in done.stdout
    assert "Traceback" not in done.stderr
    assert "SIGTERM" not in done.stderr
    if in_command:
        assert done.stderr.splitlines()[-1] == "-c: stopped by SIGHUP."


def test_ctrl_c_while_paddle_is_loaded(tmp_path: Path) -> None:
    """It waits, as Paddle would take it for a library that cannot be loaded."""
    code = (
        "import os, signal, sys\n"
        "from squeezenet_paddle.process_settings import keep_signals_from_paddle\n"
        "keep_signals_from_paddle()\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def audit(event, args):\n"
        "    if event == 'import' and args[0] == 'paddle.nn':\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        print('sent', flush=True)\n"
        "sys.addaudithook(audit)\n"
        "try:\n"
        "    import paddle\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.stdout.split() == ["sent", "interrupted"]
    assert done.stderr == ""
