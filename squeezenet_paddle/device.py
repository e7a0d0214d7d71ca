"""The device that Paddle computes on: chosen, checked against the machine, and set."""

from __future__ import annotations

import importlib.metadata
import os
import re

from .errors import InputError


def choose_device(name: str | None = None) -> str:
    """Checks the name of a device; loads Paddle only where a GPU may be meant.

    Args:
        name: "cpu", "gpu" or "gpu:N"; None takes a GPU where Paddle finds one. "gpu" is the first
            or, in a process of a run of several, the one that its launcher has named.

    Raises:
        InputError: the name is unknown, or there is no such GPU. (Paddle ends the process.)
    """
    if name == "cpu" or (name is None and not _has_gpu_package()):
        return "cpu"
    import paddle

    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    if name is None:
        if not gpus:
            return "cpu"
        name = "gpu"
    gpu = re.fullmatch("gpu(?::([0-9]+))?", name)
    if gpu is None:
        raise InputError(f"`device`: cpu, gpu or gpu:N was expected, found {name!r}.")
    if int(gpu[1] or 0) >= gpus:
        raise InputError(f"`device` {name}: Paddle finds {gpus} GPUs on this machine.")
    selected = selected_gpu()
    if gpu[1] is None and selected >= gpus:
        raise InputError(
            f"`device` gpu: FLAGS_selected_gpus is {selected} in this process, and Paddle finds "
            f"{gpus} GPUs; at most one process for each was expected."
        )
    return name


def selected_gpu() -> int:
    """The GPU that "gpu" is: the one that a launcher has named for this process, or the first.

    It is an index into CUDA_VISIBLE_DEVICES, where that is set.
    """
    first = os.environ.get("FLAGS_selected_gpus", "0").split(",")[0]  # noqa: SIM112
    return int(first) if first.isdecimal() else 0


def use_device(name: str | None = None) -> str:
    """Makes Paddle compute on a device, and returns which; see `choose_device`.

    The CPU has to be set too: the default of paddlepaddle-gpu is the first GPU.
    """
    device = choose_device(name)
    import paddle

    paddle.device.set_device(device)
    return device


def _has_gpu_package() -> bool:
    try:
        importlib.metadata.version("paddlepaddle-gpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
