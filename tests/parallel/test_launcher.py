"""The launcher of several processes: what it shows and returns, and that no process is left."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import distributed_worker
import pytest
from conftest import assert_user_error

from squeezenet_paddle.errors import InputError
from squeezenet_paddle.parallel import launcher

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the worker with an action and a number of processes."""
    started = []

    def start(action: str, count: int = 2, **env: str) -> subprocess.Popen[str]:
        command = [sys.executable, distributed_worker.__file__, action, str(tmp_path), str(count)]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **{f"WORKER_{key}": value for key, value in env.items()}},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=90)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.02)


def reports(folder: Path, count: int = 2) -> list[dict[str, Any]]:
    """What the processes have written, once all have."""
    paths = [folder / f"{rank}.json" for rank in range(count)]
    wait_for(lambda: all(path.is_file() for path in paths))
    return [json.loads(path.read_text()) for path in paths]


def runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("rank", "how", "message"),
    [
        ("0", "kill", "distributed_worker.py: process 0 (the first is 0) was killed by signal 9"),
        ("1", "kill", "distributed_worker.py: process 1 (the first is 0) was killed by signal 9"),
        ("1", "7", "distributed_worker.py: process 1 (the first is 0) ended with code 7"),
        ("1", "defect", "AssertionError: a defect"),
    ],
)
def test_the_death_of_one_ends_all(
    rank: str, how: str, message: str, start: Start, tmp_path: Path
) -> None:
    process = start("fail", RANK=rank, HOW=how)
    pids = [report["pid"] for report in reports(tmp_path)]
    done = ended(process)
    assert done.returncode == 1
    assert done.stderr.count(message) == 1, done.stderr
    assert (done.stdout + done.stderr).count(f"last words of process {rank}") == 1
    assert len(done.stderr.splitlines()) < (20 if how == "defect" else 3)
    assert not any(runs(pid) for pid in pids)


@pytest.mark.parametrize("rank", ["0", "1", None])
def test_a_mistake_is_told_once(rank: str | None, start: Start) -> None:
    done = ended(start("fail", HOW="mistake", **({} if rank is None else {"RANK": rank})))
    assert_user_error(done, "distributed_worker.py: cat.jpg is a dog.")


def test_one_that_does_not_end_with_the_others_is_killed(start: Start, tmp_path: Path) -> None:
    process = start("train", HOW="stubborn")
    pids = [report["pid"] for report in reports(tmp_path)]
    os.kill(pids[1], signal.SIGKILL)
    done = ended(process)
    assert done.returncode == 1
    assert "process 1 (the first is 0) was killed by signal 9" in done.stderr
    assert not any(runs(pid) for pid in pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_lets_all_save(number: int, start: Start, tmp_path: Path) -> None:
    process = start("train")
    reports(tmp_path)
    process.send_signal(number)
    done = ended(process)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    passed_on = signal.SIGTERM if number == signal.SIGINT else number
    assert [report["came"] for report in reports(tmp_path)] == [[passed_on]] * 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_before_all_handle_it_is_no_failure(
    number: int, start: Start, tmp_path: Path
) -> None:
    process = start("save_together", RANK="1")
    reports(tmp_path)
    process.send_signal(number)
    done = ended(process)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_in_a_terminal_reaches_each_once(tmp_path: Path) -> None:
    parent, terminal = pty.openpty()
    command = [sys.executable, distributed_worker.__file__, "train", str(tmp_path), "2"]
    process = subprocess.Popen(
        command,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    try:
        reports(tmp_path)
        os.write(parent, b"\x03")
        assert process.wait(timeout=60) == 130
    finally:
        process.kill()
        os.close(parent)
        os.close(terminal)
    assert [report["came"] for report in reports(tmp_path)] == [[signal.SIGTERM]] * 2


def test_a_second_signal_kills(start: Start, tmp_path: Path) -> None:
    process = start("train", HOW="stubborn")
    pids = [report["pid"] for report in reports(tmp_path)]
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert ended(process).returncode == 130
    assert not any(runs(pid) for pid in pids)


def test_nothing_outlives_the_parent(start: Start, tmp_path: Path) -> None:
    process = start("train", HOW="stubborn")
    pids = [report["pid"] for report in reports(tmp_path)]
    assert all(runs(pid) for pid in pids)
    process.kill()
    wait_for(lambda: not any(runs(pid) for pid in pids))


def test_each_process_has_cores_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 5, 7, 11})
    shares = [launcher._share_of_cores(rank, 2) for rank in range(2)]
    assert shares == [{2, 3}, {5, 7, 11}]
    shares = [launcher._share_of_cores(rank, 7) for rank in range(7)]
    assert shares == [{2}, {2}, {3}, {5}, {5}, {7}, {11}]


def test_the_port_is_kept_from_others_until_the_first_process_listens() -> None:
    with launcher._reserved_port() as port, socket.socket() as other, socket.socket() as first:
        with pytest.raises(OSError):
            other.bind(("", port))
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(("", port))
        first.listen()
        with launcher._reserved_port() as second:
            assert second != port


def test_flags_that_do_not_go_together() -> None:
    assert launcher.processes(None, None, None) == 1
    assert launcher.processes("cpu", None, 3) == 3
    for device, found in ((None, "no `device`"), ("gpu", "`device` gpu")):
        with pytest.raises(InputError, match=f"`num_procs` 2 is for `device` cpu, found {found};"):
            launcher.processes(device, None, 2)
    for device in ("cpu", "gpu:1"):
        with pytest.raises(InputError, match=f"`num_gpus` 2 .* found `device` {device}"):
            launcher.processes(device, 2, None)


def test_gpus_that_are_not_there_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    import paddle

    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 3)
    assert launcher.processes("gpu", 3, None) == 3
    with pytest.raises(InputError, match="`num_gpus` 4: Paddle finds 3 GPUs on this machine"):
        launcher.processes(None, 4, None)
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: False)
    with pytest.raises(InputError, match="`num_gpus` 1: Paddle finds 0 GPUs on this machine"):
        launcher.processes(None, 1, None)
