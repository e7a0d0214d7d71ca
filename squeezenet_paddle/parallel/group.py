"""Exact sums and broadcasts over the processes of a run, by `paddle.distributed`.

The backend is gloo on CPUs and NCCL on GPUs. The tests run gloo; the NCCL path follows Paddle's
documentation and has never been run.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Callable

import numpy as np
import paddle
import paddle.distributed as dist

from ..device import selected_gpu
from ..errors import InputError, RunError
from .launcher import collected_signals
from .listeners import deaf_afterwards
from .rendezvous import JOIN_SECONDS, Rendezvous


class Group:
    """The processes of a run; by default a single one, for which every method does nothing.

    Every process has to call the same methods in the same order; each call waits for the slowest
    process. Leaving it as a context tells the others whether this process has done its part.

    Attributes:
        rank: index of this process; the first, 0, logs and saves.
        world_size: number of processes.

    Raises:
        RunError: (every method) another process has died.
    """

    def __init__(self, rendezvous: Rendezvous | None = None) -> None:
        self.rank = 0 if rendezvous is None else rendezvous.rank
        self.world_size = 1 if rendezvous is None else rendezvous.world_size
        self._rendezvous = rendezvous

    def __enter__(self) -> Group:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._rendezvous is not None:
            self._rendezvous.close(done=kind is None)

    @paddle.no_grad()
    def sum_gradients(self, parameters: Sequence[paddle.Tensor]) -> None:
        """Replaces each parameter's `grad` by its sum over the processes, the same bits in all.

        A missing gradient counts as zeros: this process may have had no image of the batch.
        """
        if self._rendezvous is None:
            return
        grads = [paddle.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = paddle.concat([grad.flatten() for grad in grads])
        self._run(lambda: dist.all_reduce(flat))
        parts = paddle.split(flat, [grad.size for grad in grads])
        for parameter, part in zip(parameters, parts):
            parameter.grad = part.reshape(parameter.shape)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """Sums arrays of the same shape over the processes; exact for whole numbers below 2^53."""
        if self._rendezvous is None:
            return values
        total = paddle.to_tensor(values.astype("float64"))
        self._run(lambda: dist.all_reduce(total))
        return total.numpy()

    def broadcast(self, tensors: Sequence[paddle.Tensor]) -> None:
        """Copies the tensors of the first process to all others, in place."""
        if self._rendezvous is not None:
            self._run(lambda: [dist.broadcast(tensor, src=0) for tensor in tensors])

    def broadcast_bytes(self, data: bytes) -> bytes:
        """Returns what the first process has given, of any length; the others' is ignored."""
        if self._rendezvous is None:
            return data
        size = paddle.to_tensor([len(data)], "int64")
        self._run(lambda: dist.broadcast(size, src=0))
        content = np.zeros(size.item(), "uint8")
        if self.rank == 0:
            content = np.frombuffer(data, "uint8")
        tensor = paddle.to_tensor(content)
        if len(content):
            self._run(lambda: dist.broadcast(tensor, src=0))
        return tensor.numpy().tobytes()

    def _run(self, collective: Callable[[], object]) -> None:
        assert self._rendezvous is not None
        self._rendezvous.barrier()
        try:
            collective()
        except (RuntimeError, OSError):  # of gloo, of NCCL
            self._rendezvous.check()
            raise


def join(device: str) -> Group:
    """Joins the job that the environment describes, of `launch` or of `paddle.distributed.launch`.

    gloo uses the network interface that leads to the first process, unless GLOO_SOCKET_IFNAME
    names another one.

    Args:
        device: "cpu", for gloo, or a GPU, for NCCL; Paddle takes the one of the launcher.

    Raises:
        InputError: the environment is incomplete, or means another GPU.
        RunError: a process does not arrive within JOIN_SECONDS, or they cannot reach each other.
    """
    rendezvous = Rendezvous.from_environment()
    if rendezvous is None:
        return Group()
    if device not in ("cpu", "gpu", f"gpu:{selected_gpu()}"):
        raise InputError(
            f"`device` {device}: this is one of {rendezvous.world_size} processes, to which the "
            f"launcher has given gpu:{selected_gpu()}; gpu was expected."
        )
    os.environ["PADDLE_DISTRI_BACKEND"] = "gloo" if device == "cpu" else "nccl"
    # Paddle requires it and does not use it.
    os.environ.setdefault("PADDLE_CURRENT_ENDPOINT", f"{rendezvous.host}:{rendezvous.port}")
    if rendezvous.interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", rendezvous.interface)
    try:
        with (
            _signals_deferred(),
            contextlib.redirect_stderr(io.StringIO()),
            deaf_afterwards(),
        ):  # Paddle prints its flags
            if rendezvous.rank:  # Paddle retries after 3 s if the first one does not listen yet
                time.sleep(0.3)
            dist.init_parallel_env()
            rendezvous.barrier()
    except (RuntimeError, ValueError, OSError) as error:  # what Paddle raises
        rendezvous.check()
        raise RunError(
            f"the processes cannot reach each other: {str(error).strip().splitlines()[-1]}"
        ) from None
    return Group(rendezvous)


@contextlib.contextmanager
def _signals_deferred() -> Iterator[None]:
    """Defers SIGINT, SIGTERM and SIGHUP while joining, which gives up after JOIN_SECONDS.

    Paddle's join cannot be interrupted, and without this process the others would hang.
    """
    faulthandler.dump_traceback_later(JOIN_SECONDS, exit=True)
    try:
        with collected_signals() as signals:
            yield
    finally:
        faulthandler.cancel_dump_traceback_later()
    for number in signals:
        signal.raise_signal(number)
