"""How fast training is on the device, what it is beside PyTorch, and how many readers feed it."""

from __future__ import annotations

import importlib.util
import resource
import statistics
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..reader import generate
from ..train import median_seconds, ours, pytorch, random_batch
from .report import Check, Row
from .training import flags, records, train

WAYS: dict[str, dict[str, Any]] = {
    "float32": {},
    "AMP O1 float16": {"amp": ("O1", "float16")},
    "AMP O2 bfloat16": {"amp": ("O2", "bfloat16")},
    "NHWC": {"data_format": "NHWC"},
    "NHWC, AMP O2 float16": {"data_format": "NHWC", "amp": ("O2", "float16")},
    "PyTorch": {},
    "PyTorch, channels last, AMP float16": {"channels_last": True, "amp": True},
}
BUSY = 0.05  # the share of its time that a network that is kept busy may wait


def training(check: Check, batch: int, way: str) -> Iterator[Row]:
    """Images a second of a step on a batch in memory, the copy of the batch, and the memory."""
    size, options = check.size, WAYS[way]
    if way.startswith("PyTorch"):
        if importlib.util.find_spec("torch") is None:
            yield Row("images/s", "PyTorch is not installed")
            return
        import torch

        device = "cuda" if check.device == "gpu" else "cpu"
        step = pytorch(batch, size.pixels, device=device, **options)
        seconds = median_seconds(step, size.timed)
        used = torch.cuda.max_memory_allocated() if device == "cuda" else _resident()
    else:
        import paddle

        from squeezenet_paddle.device import use_device

        use_device(check.device)
        if check.device == "cpu" and "amp" in options:
            yield Row("images/s", "mixed precision needs a GPU")
            return
        step = ours(batch, size.pixels, device=check.device, **options)
        seconds = median_seconds(step, size.timed)
        on_gpu = check.device == "gpu"
        used = paddle.device.cuda.max_memory_allocated() if on_gpu else _resident()
        inputs, _ = random_batch(batch, size.pixels)
        copy = median_seconds(lambda: paddle.to_tensor(inputs), size.timed)
        yield Row("copying the batch to the device", f"{copy / seconds:.1%} of the step")
    yield Row("images/s", f"{batch / seconds:.0f} ({seconds * 1e3:.1f} ms a step)")
    yield Row("memory", f"{used / 2**30:.2f} GiB")


def _resident() -> float:
    """The most memory that this process had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def readers(check: Check) -> Iterator[Row]:
    """Images a second from JPEG files of 256 pixels, and the share of the time without a batch."""
    size = check.size
    data = check.folder / "data"
    data.mkdir(exist_ok=True)
    generate(data, size.photographs, 256, 256)
    lines = [f"{i}.jpg {i % 1000}\n" for i in range(size.photographs)]
    (data / "train_list.txt").write_text("".join(lines), encoding="utf-8")
    batch = max(size.batches[:2])
    enough = None
    for count in size.readers:
        run = check.folder / f"readers_{count}"
        few = ("--resize_size", 256, "--crop_size", size.pixels, "--batch_size", batch)
        few += ("--iter_size", 1, "--num_workers", count, "--num_classes", 1000)
        start = time.perf_counter()
        train(flags(check, run, check.device, *few))
        # The first quarter starts readers and chooses kernels.
        late = records(run, "train")[size.steps // 4 :]
        speed = statistics.median(record["images_per_second"] for record in late)
        wait = float(np.mean([record["reader_wait"] for record in late]))
        yield Row(
            f"{count} reader{'s' if count > 1 else ''}",
            f"{speed:.0f} images/s, waits {wait:.0%} of the time; "
            f"{time.perf_counter() - start:.0f} s in all",
        )
        if wait < BUSY:
            enough = count
            break
    told = f"{enough} or more" if enough else f"more than {size.readers[-1]}"
    yield Row("readers that keep it busy", f"{told} (batch {batch})")
