"""Kills a process at its file operations, and finds the processes that are left."""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

_FILE_EVENTS = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}
_EVENTS = {"open", "os.remove", "os.rename", "os.rmdir", "os.mkdir", "fcntl.flock", "ctypes.dlsym"}


def killed_at_each_step(action: Callable[[], object]) -> Iterator[int]:
    """Runs an action in forks of this process, the n-th of which is killed before its n-th step.

    Yields:
        n after each kill, until a fork comes to its end.
    """
    for n in itertools.count(1):
        if (child := os.fork()) == 0:
            _run(action, n)
        status = os.waitpid(child, 0)[1]
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return
        yield n


def _run(action: Callable[[], object], kill_at: int) -> None:
    steps = itertools.count(1)

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event in _EVENTS and next(steps) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    code = 1
    try:
        sys.addaudithook(audit)
        action()
        code = 0
    finally:
        os._exit(code)


def train(arguments: list[str], output: Path, run: Path, kill_at: int) -> None:
    """The body of a process that trains; figures are blank, as drawing takes half of the time.

    Args:
        arguments: of train.py.
        output: gets its standard error.
        run: the folder of the run.
        kill_at: before which of the events that concern its files it is killed; 0: it is not.
            Curves are drawn now and then by the clock and do not count.
    """
    from matplotlib.figure import Figure
    from runs import config, save_blank

    from squeezenet_paddle.cli import common
    from squeezenet_paddle.training import run as training_run

    with output.open("a") as file:
        os.dup2(file.fileno(), 2)

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event not in _FILE_EVENTS or not str(args[0]).startswith(str(run)):
            return
        if "curves.png" not in str(args[0]) and next(count) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def main() -> int:
        return 0 if training_run.train(config(arguments)).finished else 130

    count = itertools.count(1)
    Figure.savefig = save_blank
    sys.addaudithook(audit)
    common.run(main)


def alive(group: int) -> list[int]:
    """The processes of a group that have not ended."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, of = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(of) == group and state not in "ZX":
            found.append(int(entry.name))
    return found
