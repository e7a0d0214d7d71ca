"""Batches that a thread copies while a GPU computes.

A copy from the readers' memory to a GPU makes the host wait for everything that the GPU still has
to do, as that memory is not page-locked. So a thread copies each batch into page-locked memory
while the network works on the one before; from there it goes to the GPU without a wait.

A reader gets its memory back when the next batch is asked for, which the thread does once it has
copied. The page-locked memory Paddle keeps until the GPU has read it (`Tensor._copy_to`, in
paddle/fluid/pybind/eager_method.cc of 2.6.2 and 3).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Callable

import numpy as np
import paddle

from ..data.loader import Batch
from ..device import use_device

Epoch = Generator[Batch, None, None]


def staged(batches: Epoch, device: str) -> Epoch:
    """Batches for a device: as they are for a CPU, in page-locked memory for a GPU.

    Args:
        batches: of an epoch; closed at the end.
        device: "cpu", "gpu" or "gpu:N".
    """
    if device == "cpu":
        return batches
    return copied(batches, _page_locked, partial(use_device, device))


def copied(
    batches: Epoch, copy: Callable[[np.ndarray], Any], start: Callable[[], object] = bool
) -> Epoch:
    """Batches whose inputs a thread has copied, each while the caller works on the one before.

    Args:
        batches: of an epoch; closed at the end.
        copy: of the inputs; it no longer needs them when it returns. An empty batch stays.
        start: what the thread calls first.
    """

    def take() -> Batch | None:
        batch = next(batches, None)
        if batch is None or not len(batch.labels):
            return batch
        return dataclasses.replace(batch, inputs=copy(batch.inputs))

    with contextlib.closing(batches), ThreadPoolExecutor(1, initializer=start) as thread:
        coming = thread.submit(take)
        while (batch := coming.result()) is not None:
            coming = thread.submit(take)
            yield batch


def _page_locked(inputs: np.ndarray) -> paddle.Tensor:
    return paddle.to_tensor(inputs, place=paddle.CUDAPinnedPlace())


def on_device(inputs: Any, part: slice) -> paddle.Tensor:
    """A part of a batch's inputs where the network computes; of a staged one it is the whole."""
    if isinstance(inputs, np.ndarray):
        return paddle.to_tensor(inputs[part])
    return inputs.cuda(blocking=False)
