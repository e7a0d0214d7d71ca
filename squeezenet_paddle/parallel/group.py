"""The processes of a run as one: exact sums and broadcasts over them, by `paddle.distributed`.

Over gloo on CPUs, over NCCL on GPUs. The tests run gloo; NCCL has been written by Paddle's
documentation and has not been run.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any, Callable

import numpy as np
import paddle
import paddle.distributed as dist

from ..errors import RunError
from .launcher import collected_signals
from .rendezvous import JOIN_SECONDS, Contact


class Group:
    """The processes of a run. Of one alone, which is the default, each method does nothing.

    Every process has to call the same methods in the same order; each call waits for the slowest.
    Used as a context, it tells the others on leaving whether this one has done its part.

    Attributes:
        rank: which process this is; the first, 0, logs and saves.
        world_size: how many there are.

    Raises:
        RunError: (every method) another process has died.
    """

    def __init__(self, contact: Contact | None = None) -> None:
        self.rank = 0 if contact is None else contact.rank
        self.world_size = 1 if contact is None else contact.world_size
        self._contact = contact

    def __enter__(self) -> Group:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._contact is not None:
            self._contact.close(done=kind is None)

    @paddle.no_grad()
    def sum_gradients(self, parameters: Sequence[paddle.Tensor]) -> None:
        """Makes each parameter's `grad` the sum over the processes, the same bits in all.

        A gradient that is missing, as after a batch without images for this process, counts as
        zeros.
        """
        if self._contact is None:
            return
        grads = [paddle.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = paddle.concat([grad.flatten() for grad in grads])
        self._together(lambda: dist.all_reduce(flat))
        parts = paddle.split(flat, [grad.size for grad in grads])
        for parameter, part in zip(parameters, parts):
            parameter.grad = part.reshape(parameter.shape)

    def sum(self, values: np.ndarray) -> np.ndarray:
        """float64 [...] -> float64 [...], exact for whole numbers below 2^53."""
        if self._contact is None:
            return values
        total = paddle.to_tensor(values.astype("float64"))
        self._together(lambda: dist.all_reduce(total))
        return total.numpy()

    def broadcast(self, tensors: Sequence[paddle.Tensor]) -> None:
        """Gives the tensors of all processes the values that those of the first one have."""
        if self._contact is not None:
            self._together(lambda: [dist.broadcast(tensor, src=0) for tensor in tensors])

    def broadcast_object(self, value: Any) -> Any:
        """What the first process calls it with; it has to be one that pickle can take."""
        if self._contact is None:
            return value
        box = [value if self.rank == 0 else None]
        self._together(lambda: dist.broadcast_object_list(box, src=0))
        return box[0]

    def _together(self, collective: Callable[[], object]) -> None:
        assert self._contact is not None
        self._contact.meet()
        try:
            collective()
        except RuntimeError:
            self._contact.check()
            raise


def join(device: str) -> Group:
    """Joins the job that the environment names: `launching.launch`'s or `paddle.distributed`'s.

    gloo takes the network interface that leads to the first process, unless GLOO_SOCKET_IFNAME
    names another one.

    Args:
        device: "cpu", for gloo, or "gpu", for NCCL.

    Raises:
        InputError: the environment is not complete.
        RunError: not all processes come within JOIN_SECONDS, or they do not reach each other.
    """
    contact = Contact.from_environment()
    if contact is None:
        return Group()
    os.environ["PADDLE_DISTRI_BACKEND"] = "gloo" if device == "cpu" else "nccl"
    # Paddle wants one and does nothing with it.
    os.environ.setdefault("PADDLE_CURRENT_ENDPOINT", f"{contact.host}:{contact.port}")
    if contact.interface is not None:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", contact.interface)
    try:
        with _undisturbed(), contextlib.redirect_stderr(io.StringIO()):  # a table of Paddle's flags
            if contact.rank:  # who finds the first one not listening yet, Paddle lets wait for 3 s
                time.sleep(0.3)
            dist.init_parallel_env()
    except (RuntimeError, ValueError) as error:  # as which Paddle has it
        contact.check()
        raise RunError(
            f"the processes do not reach each other: {str(error).strip().splitlines()[-1]}"
        ) from None
    return Group(contact)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Lets no signal come between: the others would wait, and Paddle's waiting hears nothing."""
    faulthandler.dump_traceback_later(JOIN_SECONDS, exit=True)
    try:
        with collected_signals() as signals:
            yield
    finally:
        faulthandler.cancel_dump_traceback_later()
    for number in signals:
        signal.raise_signal(number)
