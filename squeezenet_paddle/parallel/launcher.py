"""Starts the processes of a run on this machine, watches them, and ends with them.

Each is this very command again, with the environment that `distributed.join` reads. No Paddle here,
except to count GPUs. That part, and so NCCL, has not been run.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
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

INTERRUPTED = 130  # the exit code, as a shell has it
_HELD_LINES = 100  # of what each process but the first writes
_SAVING_SECONDS = 30.0  # after Ctrl-C, from the first process that ends to the last
_ENDING_SECONDS = 5.0  # from SIGTERM to SIGKILL
_TWIN_SECONDS = 1.0  # in which a mistake that all processes find is found by the first one, too
_PR_SET_PDEATHSIG = 1  # of Linux's prctl.h


def is_started() -> bool:
    """Whether this process is one of a job, and so has none to start."""
    return "PADDLE_TRAINER_ID" in os.environ


def processes(device: str | None, num_gpus: int | None, num_procs: int | None) -> int:
    """How many processes the flags of these names ask for.

    Raises:
        InputError: the flags do not go together, or there are fewer GPUs.
    """
    if num_procs is not None and device != "cpu":
        raise InputError(
            f"--num_procs {num_procs} is for --device cpu, found "
            f"{'no --device' if device is None else f'--device {device}'}; for GPUs it is "
            "--num_gpus."
        )
    if num_gpus is None:
        return num_procs or 1
    if device not in (None, "gpu"):
        raise InputError(
            f"--num_gpus {num_gpus} takes the first GPUs, found --device {device} beside it; "
            "CUDA_VISIBLE_DEVICES chooses others."
        )
    import paddle

    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    if num_gpus > gpus:
        raise InputError(f"--num_gpus {num_gpus}: Paddle finds {gpus} GPUs on this machine.")
    return num_gpus


def launch(count: int, device: str) -> int:
    """Runs this command in `count` processes, which end when one of them fails.

    What the first one writes is seen as it comes; the last lines of another one are shown if it is
    the first to fail. SIGINT (Ctrl-C) and SIGTERM are passed on, for the processes to save and end;
    a second signal kills them.

    Args:
        count: of processes.
        device: "cpu": each has its share of the processor's cores; "gpu": each has one GPU, of
            those that CUDA_VISIBLE_DEVICES leaves.

    Returns:
        The exit code: 0; 130 after a signal; 1 or 2 if a process ended so, which has said why.

    Raises:
        RunError: a process died otherwise.
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
    """The processes that run, and how the others have ended."""

    def __init__(self) -> None:
        self._running: list[_Process] = []
        self._codes: dict[int, int] = {}  # by rank

    def start(self, rank: int, count: int, device: str, port: int) -> None:
        self._running.append(_Process(rank, count, device, port))

    def watch(self, signals: list[int]) -> int:
        """Waits for the end; `signals` are those that have come, and grows meanwhile."""
        for process in self._running:
            process.hold_back()
        passed_on, deadline = False, math.inf
        while self._running:
            if signals and not passed_on:
                passed_on = True
                self._send(signals[0])
            for process, code in self._wait():
                if code not in (0, INTERRUPTED) and not (signals and -code in signals):
                    return self._fail(process, code)
                if passed_on:
                    deadline = min(deadline, time.monotonic() + _SAVING_SECONDS)
            if len(signals) > 1 or time.monotonic() > deadline:
                return INTERRUPTED
        return INTERRUPTED if any(self._codes.values()) else 0

    def end(self, grace: float) -> None:
        """Ends those that run, and kills them after `grace` seconds."""
        until = time.monotonic() + grace
        if self._running and grace:
            self._send(signal.SIGTERM)
        while self._running and time.monotonic() < until:
            self._wait()
        self._send(signal.SIGKILL)
        while self._running:
            self._wait()

    def _fail(self, process: _Process, code: int) -> int:
        """Ends the job after `process` has failed, and shows why unless the user has seen it."""
        said, seen = code in (1, 2), False
        if said and process.rank:
            until = time.monotonic() + _TWIN_SECONDS
            while 0 not in self._codes and time.monotonic() < until:
                self._wait()
            seen = self._codes.get(0) == code
        self.end(_ENDING_SECONDS)
        if not seen:
            process.show()
        if said:
            return code
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        hint = ", often the system's, for want of memory" if code == -signal.SIGKILL else ""
        raise RunError(f"process {process.rank} (the first is 0) {how}{hint}; the run has ended.")

    def _wait(self) -> list[tuple[_Process, int]]:
        """Waits for a moment; those that have ended, with their exit codes."""
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
    """One of the job.

    It is in a session of its own, so that Ctrl-C reaches the parent alone, which passes it on once;
    and it is killed if the parent dies.
    """

    def __init__(self, rank: int, count: int, device: str, port: int) -> None:
        self.rank = rank
        environment = {
            **os.environ,
            "PADDLE_TRAINER_ID": str(rank),
            "PADDLE_TRAINERS_NUM": str(count),
            "PADDLE_MASTER": f"127.0.0.1:{port}",
        }
        if device == "gpu":
            environment["FLAGS_selected_gpus"] = str(rank)  # counts those of CUDA_VISIBLE_DEVICES
        held = None if rank == 0 else subprocess.PIPE
        self.popen = subprocess.Popen(
            [sys.executable, *sys.argv],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=held,
            stderr=None if held is None else subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_preparation(_share_of_cores(rank, count) if device == "cpu" else None),
        )
        self._lines: deque[bytes] = deque(maxlen=_HELD_LINES)
        self._reader = threading.Thread(target=self._read, daemon=True)

    def hold_back(self) -> None:
        """Reads what it writes; once all have been started, as threads and forks do not mix."""
        self._reader.start()

    def show(self) -> None:
        """Writes what was held back to standard error."""
        self._reader.join(1)  # the process has ended; one that it started may hold the pipe open
        for line in list(self._lines):
            sys.stderr.buffer.write(line)
        sys.stderr.flush()

    def _read(self) -> None:
        if self.popen.stdout is not None:
            self._lines.extend(self.popen.stdout)


def _share_of_cores(rank: int, count: int) -> set[int] | None:
    """Cores of their own for each process; None where the system does not tell of cores."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    first, last = (len(cores) * i // count for i in (rank, rank + 1))
    return set(cores[first : max(last, first + 1)])


def _preparation(cores: set[int] | None) -> Callable[[], None]:
    """What a process does before it becomes this command."""
    parent = os.getpid()
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        if cores is not None:
            os.sched_setaffinity(0, cores)
        if sys.platform == "linux":
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it has died before
                os._exit(1)

    return prepare


@contextlib.contextmanager
def _reserved_port() -> Iterator[int]:
    """A port that no other program is given, and that the first process can listen on.

    Who binds it with SO_REUSEADDR, too, may listen, as this socket never does.
    """
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("", 0))
        yield reserved.getsockname()[1]


@contextlib.contextmanager
def collected_signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM go to this list meanwhile, and do nothing else."""
    signals: list[int] = []
    previous = {
        number: signal.signal(number, lambda number, _: signals.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    for number in previous:
        signal.siginterrupt(number, False)  # Paddle's connections take it for a failure
    try:
        yield signals
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
