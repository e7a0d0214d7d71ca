"""Helper processes: what they give, and what is left when they or their parent are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from killed import alive

from squeezenet_paddle.errors import InputError
from squeezenet_paddle.processes import ProcessDiedError, map_in_processes

PATIENCE = 120  # seconds; only a process that hangs takes as long

NAPPING = """
import signal, sys, time
from squeezenet_paddle.processes import map_in_processes
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" has it ignored
    for done in map_in_processes(time.sleep, [0.0, 0.0, 600.0, 600.0], [bool] * 2):
        print("semaphores" if "multiprocessing.synchronize" in sys.modules else "none", flush=True)
"""


def square(number: int) -> int:
    if number == 7:
        raise InputError("seven is not taken.")
    if number == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def test_results_come_in_order_and_errors_as_they_are() -> None:
    assert list(map_in_processes(square, [5, 3, 1, 4, 6], [bool] * 2)) == [25, 9, 1, 16, 36]
    with pytest.raises(InputError, match="seven is not taken"):
        list(map_in_processes(square, [5, 7]))
    with pytest.raises(ProcessDiedError, match=r"exit code -9\)"):
        list(map_in_processes(square, [5, 9]))


def wait_for_the_end_of(number: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while alive(number):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which processes there are")
@pytest.mark.parametrize("whole_group", [False, True])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_helper_outlives_its_parent(
    tmp_path: Path, number: signal.Signals, whole_group: bool
) -> None:
    (tmp_path / "napping.py").write_text(NAPPING)
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "napping.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert parent.stdout is not None
    assert [parent.stdout.readline() for _ in range(2)] == [b"none\n"] * 2
    assert len(alive(parent.pid)) >= 3
    (os.killpg if whole_group else os.kill)(parent.pid, number)
    parent.wait(PATIENCE)
    parent.stdout.close()
    wait_for_the_end_of(parent.pid)
