"""The device and the versions of everything that computes."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from squeezenet_paddle.device import use_device

from ..train import machine as processor
from .report import Check, Row

PACKAGES = ("paddlepaddle-gpu", "paddlepaddle", "numpy", "opencv-python-headless", "torch")


def machine(check: Check) -> Iterator[Row]:
    """The processor, the packages, and the GPUs that Paddle finds; that it computes on one."""
    yield Row("processor", processor().partition(", Python")[0])
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    yield Row("versions", ", ".join(found))
    import paddle

    yield Row("CUDA, cuDNN of Paddle", f"{paddle.version.cuda()}, {paddle.version.cudnn()}")
    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    for i in range(gpus):
        properties = paddle.device.cuda.get_device_properties(i)
        memory = properties.total_memory / 2**30
        yield Row(
            f"GPU {i}",
            f"{properties.name}, {memory:.0f} GiB, compute capability {properties.major}."
            f"{properties.minor}; driver {_driver()}",
        )
    device = use_device(check.device)
    place = str(paddle.to_tensor([1.0]).place)
    yield Row("tensors lie on", f"{device}: {place}", ("gpu" in place) == (device != "cpu"))
    check_paddle = [sys.executable, "-c", "import paddle; paddle.utils.run_check()"]
    if device != "cpu":
        done = subprocess.run(check_paddle, capture_output=True, text=True, timeout=300)
        yield Row("paddle.utils.run_check()", f"exit code {done.returncode}", not done.returncode)


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True).stdout.split("\n")[0]
    except OSError:
        return "unknown"
