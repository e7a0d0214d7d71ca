"""Starts the processes of a run on this machine and watches them until the last one has ended.

Each runs the current command again, with the environment that `group.join` reads. Paddle is loaded
only to count GPUs; that path, and so NCCL, has never been run.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Callable

from ..errors import InputError, RunError
from ..processes import handled_signals, leave_terminal
from .rendezvous import SECRET

INTERRUPTED = 130  # a shell's exit code after Ctrl-C
_HELD_LINES = 100  # how much output of each process but the first is kept
_SAVING_SECONDS = 30.0  # after Ctrl-C, between the end of the first process and of the last
_ENDING_SECONDS = 5.0  # between SIGTERM and SIGKILL
_TWIN_SECONDS = 1.0  # how long the first process has to report the same mistake itself
_PR_SET_PDEATHSIG = 1  # from Linux's prctl.h


def is_started() -> bool:
    """Whether a launcher has started this process, which then starts no others."""
    return "PADDLE_TRAINER_ID" in os.environ


def processes(device: str | None, num_gpus: int | None, num_procs: int | None) -> int:
    """How many processes these settings ask for.

    Raises:
        InputError: the settings contradict each other, or there are fewer GPUs.
    """
    if num_procs is not None and device != "cpu":
        raise InputError(
            f"`num_procs` {num_procs} is for `device` cpu, found "
            f"{'no `device`' if device is None else f'`device` {device}'}; for GPUs it is "
            "`num_gpus`."
        )
    if num_gpus is None:
        return num_procs or 1
    if device not in (None, "gpu"):
        raise InputError(
            f"`num_gpus` {num_gpus} takes the first GPUs, found `device` {device} beside it; "
            "CUDA_VISIBLE_DEVICES chooses others."
        )
    import paddle

    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    if num_gpus > gpus:
        raise InputError(f"`num_gpus` {num_gpus}: Paddle finds {gpus} GPUs on this machine.")
    return num_gpus


def launch(count: int, device: str) -> int:
    """Runs the current command in several processes; when one fails, all end.

    The output of the first process is shown as usual. Of the others, only the one that fails first
    shows its last lines. SIGTERM, SIGHUP and, as SIGTERM, SIGINT (Ctrl-C) are passed on, so that
    the processes can save and end; a second SIGINT kills them.

    Args:
        count: number of processes.
        device: "cpu" gives each process its share of the cores; "gpu" gives each one GPU among
            those in CUDA_VISIBLE_DEVICES.

    Returns:
        The exit code: 0; 130 after a signal; 1 or 2 if a process ended with it and said why.

    Raises:
        RunError: a process died in another way.
    """
    with _reserved_port() as port, collected_signals() as signals:
        job = _Job()
        try:
            for rank in range(count):
                job.start(rank, count, device, port)
            return job.watch(signals)
        finally:
            job.end(0.0)


class _Job:
    """The running processes, and the exit codes of those that have ended."""

    def __init__(self) -> None:
        self._running: list[_Process] = []
        self._codes: dict[int, int] = {}  # by rank
        self._secret = secrets.token_hex()

    def start(self, rank: int, count: int, device: str, port: int) -> None:
        self._running.append(_Process(rank, count, device, port, self._secret))

    def watch(self, signals: list[int]) -> int:
        """Waits for the end of all and returns the exit code; `signals` grows as they arrive."""
        for process in self._running:
            process.collect_output()
        passed_on, deadline = False, math.inf  # whether a signal was, and when to stop waiting
        while self._running:
            if signals and not passed_on:
                passed_on = True
                # SIGINT ends a process that does not handle it yet as if it had saved.
                self._send(signal.SIGTERM if signals[0] == signal.SIGINT else signals[0])
            for process, code in self._wait():
                if signals and -code in (*signals, signal.SIGTERM):
                    self.end(_ENDING_SECONDS)  # it has not saved, and without it nobody can
                    return INTERRUPTED
                if code not in (0, INTERRUPTED):
                    return self._fail(process, code)
                if passed_on:
                    deadline = min(deadline, time.monotonic() + _SAVING_SECONDS)
            if signals.count(signal.SIGINT) > 1 or time.monotonic() > deadline:
                return INTERRUPTED
        return INTERRUPTED if any(self._codes.values()) else 0

    def end(self, grace: float) -> None:
        """Terminates what still runs, and kills it after `grace` seconds."""
        until = time.monotonic() + grace
        if self._running and grace:
            self._send(signal.SIGTERM)
        while self._running and time.monotonic() < until:
            self._wait()
        self._send(signal.SIGKILL)
        while self._running:
            self._wait()

    def _fail(self, process: _Process, code: int) -> int:
        """Ends the job after `process` has failed; shows why, unless the first one has shown it."""
        has_message, shown = code in (1, 2), False
        if has_message and process.rank:
            until = time.monotonic() + _TWIN_SECONDS
            while 0 not in self._codes and time.monotonic() < until:
                self._wait()
            shown = self._codes.get(0) == code
        self.end(_ENDING_SECONDS)
        if not shown:
            process.show_output()
        if has_message:
            return code
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        hint = ", often by the system for lack of memory" if code == -signal.SIGKILL else ""
        raise RunError(f"process {process.rank} (the first is 0) {how}{hint}; the run has ended.")

    def _wait(self) -> list[tuple[_Process, int]]:
        """Waits for a moment; returns the processes that have ended, with their exit codes."""
        time.sleep(0.05)
        ended = [
            (process, code)
            for process in self._running
            if (code := process.popen.poll()) is not None
        ]
        for process, code in ended:
            self._running.remove(process)
            self._codes[process.rank] = code
        return ended

    def _send(self, number: int) -> None:
        for process in self._running:
            process.popen.send_signal(number)


class _Process:
    """A process of the job.

    It has a session of its own, so that only the launcher receives Ctrl-C and passes it on once. It
    is killed if the launcher dies.
    """

    def __init__(self, rank: int, count: int, device: str, port: int, secret: str) -> None:
        self.rank = rank
        environment = {
            **os.environ,
            "PADDLE_TRAINER_ID": str(rank),
            "PADDLE_TRAINERS_NUM": str(count),
            "PADDLE_MASTER": f"127.0.0.1:{port}",
            SECRET: secret,
        }
        if device == "gpu":
            environment["FLAGS_selected_gpus"] = str(rank)  # an index into CUDA_VISIBLE_DEVICES
        pipe = None if rank == 0 else subprocess.PIPE
        self.popen = subprocess.Popen(
            [sys.executable, *sys.argv],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=None if pipe is None else subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_preparation(_share_of_cores(rank, count) if device == "cpu" else None),
        )
        self._lines: deque[bytes] = deque(maxlen=_HELD_LINES)
        self._reader = threading.Thread(target=self._read, daemon=True)

    def collect_output(self) -> None:
        """Starts collecting its output; call it when all are started, as threads break forks."""
        self._reader.start()

    def show_output(self) -> None:
        """Writes the collected output to standard error."""
        self._reader.join(1)  # a child of the process may keep the pipe open
        for line in list(self._lines):
            sys.stderr.buffer.write(line)
        sys.stderr.flush()

    def _read(self) -> None:
        if self.popen.stdout is not None:
            self._lines.extend(self.popen.stdout)


def _share_of_cores(rank: int, count: int) -> set[int] | None:
    """The cores of a process, disjoint if there are enough; None if the system has no affinity."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    first, last = (len(cores) * i // count for i in (rank, rank + 1))
    return set(cores[first : max(last, first + 1)])


def _preparation(cores: set[int] | None) -> Callable[[], None]:
    """Makes the function that a child runs before exec: takes its cores, dies with its parent."""
    parent = os.getpid()
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        if cores is not None:
            os.sched_setaffinity(0, cores)
        if sys.platform == "linux":
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before prctl
                os._exit(1)

    return prepare


@contextlib.contextmanager
def _reserved_port() -> Iterator[int]:
    """Reserves a free port, on which the first process can still listen.

    That works because both bind it with SO_REUSEADDR and this socket never listens.
    """
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


@contextlib.contextmanager
def collected_signals() -> Iterator[list[int]]:
    """Collects SIGINT, SIGTERM and SIGHUP in a list; they have no other effect meanwhile."""
    signals: list[int] = []

    def collect(number: int, _: object) -> None:
        if number == signal.SIGHUP:
            leave_terminal()
        signals.append(number)

    previous = {number: signal.signal(number, collect) for number in handled_signals()}
    for number in previous:
        signal.siginterrupt(number, False)  # Paddle takes an interrupted call for a failure
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
