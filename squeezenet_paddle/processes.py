"""Processes that help this one, and the signals that end both. No Paddle here.

A helper talks to its parent through one pipe and holds no semaphore, so that nothing stays in
shared memory; it leaves signals to the parent, and ends when the parent's end of the pipe does.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, resource_tracker
from pathlib import Path
from typing import Any, Callable, TypeVar

from .errors import RunError

# What asks a program to end: Ctrl-C; kill, Slurm and systemd; the end of a terminal or of SSH.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_AT_ONCE = 2.0  # seconds within which signals are of the same cause: Slurm sends more than one

T = TypeVar("T")
R = TypeVar("R")


class ProcessDiedError(RunError):
    """A helper process died."""


def handled_signals() -> tuple[signal.Signals, ...]:
    """Those of `ENDING` that are to be handled: not SIGHUP under nohup, which ignores it."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return ENDING[:2]
    return ENDING


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGHUP, raised as Python raises Ctrl-C.

    Attributes:
        number: which of them.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = signal.Signals(number)


def raise_signals() -> None:
    """Makes SIGTERM and SIGHUP raise `Stopped`, so that work in progress is kept or cleared up.

    They are raised as soon as a call of a C library that is running returns. One that comes later
    than 2 seconds after that ends the process at once.
    """
    first: list[float] = []

    def stop(number: int, _: object) -> None:
        if number == signal.SIGHUP:
            leave_terminal()
        if not first:
            first.append(time.monotonic())
            raise Stopped(number)
        if time.monotonic() - first[0] > _AT_ONCE:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in handled_signals()[1:]:
        signal.signal(number, stop)


def leave_terminal() -> None:
    """Lets output go nowhere that went to a terminal which is gone, where a write is an error."""
    import termios  # Unix alone has it

    for stream in (sys.stdin, sys.stdout, sys.stderr):
        try:
            termios.tcgetattr(stream.fileno())
        except termios.error as error:
            if error.args[0] == errno.EIO:
                os.dup2(os.open(os.devnull, os.O_RDWR), stream.fileno())
        except (OSError, ValueError, AttributeError):  # it is closed or no file
            continue


@contextmanager
def signals_left_to_parent() -> Iterator[None]:
    """Blocks `ENDING` for life in the processes that are started meanwhile.

    Sent to the whole group, they would end a helper before its parent has finished its work. In
    this process they arrive afterwards.
    """
    resource_tracker.ensure_running()  # it would unblock them here when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def wake(pid: int) -> bool:
    """Lets a process of ours go on that somebody has stopped (SIGSTOP); whether it was."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # not Linux, or it has ended
        return False
    if state == "T":
        os.kill(pid, signal.SIGCONT)
    return state == "T"


def map_in_processes(
    function: Callable[[T], R],
    items: Sequence[T],
    starting: Sequence[Callable[[], object]] = (bool,),
) -> Generator[R, None, None]:
    """Applies a function to each item in processes of their own; yields the results in order.

    The processes are spawned: a fork of one with threads, as Paddle's are, may hang. Close the
    generator where it may not come to its end.

    Args:
        function: of an item; an exception that it raises is raised here.
        items: they and the results have to be picklable.
        starting: what each process calls first; there are as many.

    Raises:
        ProcessDiedError: a process was killed.
    """
    context = multiprocessing.get_context("spawn")
    helpers: dict[Any, Any] = {}  # process by pipe
    try:
        with signals_left_to_parent():
            for start in starting:
                pipe, theirs = context.Pipe()
                process = context.Process(target=_help, args=(theirs, function, start))
                process.start()
                theirs.close()
                helpers[pipe] = process
        todo, done = iter(enumerate(items)), {}
        for pipe in [*helpers, *helpers]:  # one item ahead
            _send_next(pipe, todo)
        for number in range(len(items)):
            while number not in done:
                for ready in connection.wait(list(helpers)):
                    answer = _receive(ready, helpers[ready])
                    done[answer[0]] = answer
                    _send_next(ready, todo)
            _, result, error, trace = done.pop(number)
            if error is not None:
                raise error from RuntimeError(trace)
            yield result
    finally:
        for pipe, process in helpers.items():
            pipe.close()
            process.kill()
            process.join()


def _send_next(pipe: Any, todo: Iterator[Any]) -> None:
    with suppress(OSError):  # it has died, which the answer that is missing tells
        if (item := next(todo, None)) is not None:
            pipe.send(item)


def _receive(pipe: Any, process: Any) -> Any:
    try:
        return pipe.recv()
    except (EOFError, OSError):
        process.join(5)
        raise ProcessDiedError(
            f"process {process.pid} died (exit code {process.exitcode}); a negative code is a "
            "signal; -9 often means that memory ran out."
        ) from None


def _help(pipe: Any, function: Callable[[Any], Any], start: Callable[[], object]) -> None:
    """The body of a helper: items in, results out, until the parent or its end of the pipe goes."""
    start()
    items: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()

    def take() -> None:
        try:
            while True:
                items.put(pipe.recv())
        except (EOFError, OSError):
            os._exit(1)

    threading.Thread(target=take, daemon=True).start()
    while True:
        number, item = items.get()
        answer: tuple[int, Any, Exception | None, str]
        try:
            answer = (number, function(item), None, "")
        except Exception as error:
            answer = (number, None, error, traceback.format_exc())
        pipe.send(answer)
