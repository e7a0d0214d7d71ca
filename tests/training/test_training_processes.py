"""One run in several processes: the results of one, and the end of all when one dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable

import netns
import numpy as np
import pytest
from conftest import ROOT, Run
from runs import flags, make_pretrained, metrics, plan_of, weights

from squeezenet_paddle.datasets.samples import make_sample_data
from squeezenet_paddle.training import run as training_run

Alone = Callable[[list[str]], str]
# The order of float sums differs, and with it the rounding of each sum: a few 1e-6 of a change, and
# a percent once that moves a value over a kink of the network. ReLU has one at 0, where thirty
# updates of these images differ by up to 3 %; ELU has none, and only ties in pools are left.
SMOOTH = ("--activation", "elu")
LOSS_TOLERANCE = 1e-5
CHANGE_TOLERANCE = 0.01  # of the largest change of a parameter since the start


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """76 training images, whose last batch of 32 is uneven over two processes, and 15 others."""
    folder = tmp_path_factory.mktemp("data") / "data"
    make_sample_data(folder, seed=0, train=8, val=2)
    for name, count in (("train", 77), ("val", 15)):
        lines = (folder / f"{name}_list.txt").read_text().splitlines(keepends=True)
        (folder / f"{name}_list.txt").write_text("".join(lines[:count]))
    return folder


def command(arguments: list[str]) -> list[str]:
    return [sys.executable, str(ROOT / "tools" / "train.py"), *arguments]


def finish(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(arguments), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def finish_alone(call_tool: Run, blank_figures: None) -> Alone:
    """Runs it in this process, which has loaded Paddle, and gives back what it prints."""

    def run(arguments: list[str]) -> str:
        done = call_tool("train", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stderr

    return run


def test_two_processes_do_what_one_does(data: Path, tmp_path: Path, finish_alone: Alone) -> None:
    common = ("--device", "cpu", "--batch_size", 32, "--max_steps", 9, "--optimizer", "momentum")
    common += ("--lr", 2e-3, "--log_interval", 2, "--eval_interval", 3, "--clip_norm", 20, *SMOOTH)
    runs = [tmp_path / str(count) for count in (1, 2)]
    assert "1 process" in finish_alone(flags(data, runs[0], *common, "--num_procs", 1))
    done = finish(flags(data, runs[1], *common, "--num_procs", 2))
    assert done.returncode == 0, done.stderr
    assert "2 process" in done.stderr
    keys = ("kind", "step", "loss", "top1")
    for one, two in zip(*(metrics(run) for run in runs)):
        assert [one[k] for k in keys[:2]] == [two[k] for k in keys[:2]]
        np.testing.assert_allclose(
            [one[k] for k in keys[2:]], [two[k] for k in keys[2:]], rtol=LOSS_TOLERANCE
        )
        assert one.get("images") in (None, 15)
    for model in ("final", "best"):
        assert_same_training(data, *(run / model for run in runs))


def assert_same_training(data: Path, one: Path, two: Path) -> None:
    """What training changed is the same, to the tolerance; both start from seed 0."""
    arguments = flags(data, one, *SMOOTH)
    network, _ = training_run.start_network(plan_of(arguments))
    first, second = weights(one), weights(two)
    for name, tensor in network.state_dict().items():
        change = np.abs(first[name] - tensor.numpy()).max()
        assert change > 0, name
        rounding = 1e-6 * np.abs(first[name]).max()
        difference = np.abs(second[name] - first[name]).max()
        assert difference <= CHANGE_TOLERANCE * change + rounding, name


def test_a_process_that_dies_takes_the_run_with_it_and_it_goes_on(
    data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    common = ("--device", "cpu", "--num_procs", 2, "--batch_size", 32, "--save_interval", 5)
    arguments = flags(data, run, *common, "--max_steps", 4000, "--eval_interval", 4000)
    process = subprocess.Popen(command(arguments), stderr=subprocess.PIPE, text=True)
    checkpoints = run / "checkpoints"
    deadline = time.monotonic() + 60
    while not (checkpoints.is_dir() and any(checkpoints.glob("step_*"))):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    second = max(children(process.pid))
    start = time.monotonic()
    os.kill(second, signal.SIGKILL)
    _, told = process.communicate(timeout=60)
    assert time.monotonic() - start < 60
    assert process.returncode == 1
    assert "process 1" in told
    assert "killed by signal 9" in told
    assert "Traceback" not in told
    step = max(int(path.stem[5:]) for path in checkpoints.glob("step_*"))
    again = finish(flags(data, run, *common, "--max_steps", step + 2, "--eval_interval", 4000))
    assert again.returncode == 0, again.stderr
    assert f"goes on after update {step}" in again.stderr


def children(pid: int) -> list[int]:
    """The processes that a process has started, reader processes of theirs not included."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def test_an_interrupt_reaches_all_and_saves(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    common = ("--device", "cpu", "--num_procs", 2, "--max_steps", 4000, "--eval_interval", 4000)
    process = subprocess.Popen(
        command(flags(data, run, *common)), stderr=subprocess.PIPE, text=True
    )
    while not (run / "metrics.jsonl").exists() or not metrics(run):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "and saved; the same command goes on from there" in told
    assert len(list((run / "checkpoints").iterdir())) == 1


def test_more_gpus_than_there_are_is_an_error(data: Path, tmp_path: Path) -> None:
    done = finish(flags(data, tmp_path / "run", "--num_gpus", 99))
    assert done.returncode == 2
    assert "--num_gpus 99: Paddle finds" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_mistake_is_told_once(data: Path, tmp_path: Path) -> None:
    arguments = ("--device", "cpu", "--num_procs", 2, "--max_steps", 2)
    done = finish([*flags(data, tmp_path, *arguments), "--data_dir", str(tmp_path)])
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("train.py:")]
    assert len(lines) == 1
    assert "line" in lines[0]


def test_two_hosts_train_together(data: Path, tmp_path: Path, finish_alone: Alone) -> None:
    common = ("--device", "cpu", "--batch_size", 32, "--max_steps", 4, "--eval_interval", 4)
    common += ("--optimizer", "momentum", "--lr", 2e-3, *SMOOTH)
    finish_alone(flags(data, tmp_path / "one", *common))
    with netns.two_hosts() as hosts:
        script = command(flags(data, tmp_path / "two", *common))[1:]
        for code, output in netns.run_job(hosts, tmp_path, *script):
            assert code == 0, output
    assert_same_training(data, tmp_path / "one/final", tmp_path / "two/final")
    assert [r["step"] for r in metrics(tmp_path / "two") if r["kind"] == "train"] == [1, 2, 3, 4]


def test_a_standardised_head_does_not_depend_on_the_processes(
    data: Path, tmp_path: Path, finish_alone: Alone
) -> None:
    common = ("--pretrained", make_pretrained(tmp_path / "start"), "--head", "compact")
    common += ("--trainable", "head", "--device", "cpu", "--batch_size", 32, "--max_steps", 6)
    common += ("--eval_interval", 6, "--log_interval", 3)
    finish_alone(flags(data, tmp_path / "1", *common))
    done = finish(flags(data, tmp_path / "2", *common, "--num_procs", 2))
    assert done.returncode == 0, done.stderr
    one, two = (metrics(tmp_path / str(count)) for count in (1, 2))
    assert len(one) == 3
    for key in ("loss", "top1"):
        np.testing.assert_allclose([r[key] for r in one], [r[key] for r in two], rtol=1e-3)
    states = [weights(tmp_path / str(count) / "final") for count in (1, 2)]
    for key in ("bn_pools._mean", "bn_pools._variance"):
        np.testing.assert_array_equal(*(state[key] for state in states))
