"""Measures how fast each engine runs a model directory, from memory and from image files.

Importing this does not load Paddle; the processes that measure do, if their engine needs it.
"""

from __future__ import annotations

import importlib.metadata
import platform
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable

import cv2
import numpy as np

from ..data.decode import MAX_PIXELS
from ..data.lists import ImageList
from ..data.loader import Loader, loader_for
from ..engines.load import ENGINES, is_installed
from ..engines.openvino import computes_bfloat16
from ..engines.threads import PinnedThreads
from ..errors import InputError, RunError
from ..evaluation.metrics import TOP_K
from ..predict import Predictor, predict
from ..process_settings import keep_signals_from_paddle, use_fast_cpu_settings
from ..processes import ProcessDiedError, map_in_processes

WARM_UP = 3  # runs with the input in memory, not counted
PASSES = 3  # over the files, after one that is not counted

_PACKAGES = ("paddlepaddle", "paddlepaddle-gpu", "onnxruntime", "openvino", "numpy")


@dataclass(frozen=True)
class Task:
    """A measurement of one engine.

    Attributes:
        model_dir: as `model_dir.py` describes it.
        engine: one of `ENGINES`.
        precision: one of those that it has.
        threads: that compute; None takes one per core that the process may use.
        batch_sizes: images per batch with the input in memory; files are run in the largest.
        repeat: runs at each batch size.
        images: the files; None measures with the input in memory only.
        num_workers: processes that read files.
        max_pixels: a larger image counts as unreadable.
    """

    model_dir: Path
    engine: str
    precision: str = "float32"
    threads: int | None = None
    batch_sizes: tuple[int, ...] = (1, 32)
    repeat: int = 30
    images: ImageList | None = None
    num_workers: int = 2
    max_pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        engine, precision: of the task.
        what: "forward", a batch in memory to logits; or "files", image files to the top 5.
        batch_size: images per batch.
        milliseconds: of each run; a run over files covers all of them.
        images: per run.
    """

    engine: str
    precision: str
    what: str
    batch_size: int
    milliseconds: tuple[float, ...]
    images: int

    def percentile(self, share: float) -> float:
        """The milliseconds within which `share` percent of the runs ended."""
        return float(np.percentile(self.milliseconds, share))

    @property
    def images_per_second(self) -> float:
        return self.images / self.percentile(50) * 1e3

    def as_json(self) -> dict[str, Any]:
        """The row as JSON values by key."""
        return {
            "engine": self.engine,
            "precision": self.precision,
            "what": self.what,
            "batch_size": self.batch_size,
            "runs": len(self.milliseconds),
            "images": self.images,
            "median_ms": self.percentile(50),
            "p90_ms": self.percentile(90),
            "p99_ms": self.percentile(99),
            "images_per_second": self.images_per_second,
        }

    def __str__(self) -> str:
        times = (f"{self.percentile(share):10.2f}" for share in (50, 90, 99))
        shown = " ".join(times) if self.what == "forward" else " " * 32
        return (
            f"{self.engine:<12} {self.precision:<9} {self.what:<8} {self.batch_size:>5} {shown} "
            f"{self.images_per_second:>9.1f}"
        )


@dataclass(frozen=True)
class NotRun:
    """An engine that could not be measured."""

    engine: str
    precision: str
    reason: str

    def __str__(self) -> str:
        return f"{self.engine:<12} {self.precision:<9} not run: {self.reason}"


HEADER = (
    f"{'engine':<12} {'precision':<9} {'what':<8} {'batch':>5} {'median ms':>10} {'p90 ms':>10} "
    f"{'p99 ms':>10} {'images/s':>9}"
)


def pairs(engines: Iterable[str], precisions: Iterable[str]) -> list[tuple[str, str]]:
    """The pairs of engine and precision that exist.

    Raises:
        InputError: there are none.
    """
    precisions = list(precisions)
    found = [(name, each) for name in engines for each in precisions if each in ENGINES[name]]
    if not found:
        raise InputError(
            f"`precision` {' '.join(precisions)}: none of the engines asked for has it; "
            + ", ".join(f"{name} has {' and '.join(has)}" for name, has in ENGINES.items())
            + "."
        )
    return found


def measure(task: Task) -> list[Row] | NotRun:
    """Measures an engine in a process of its own, free of the threads of other engines.

    Raises:
        ImageError: one of the files cannot be read.
    """
    try:
        [result] = map_in_processes(_measure_here, [task])
    except ProcessDiedError:
        return NotRun(task.engine, task.precision, "its process died.")
    return result


def _measure_here(task: Task) -> list[Row] | NotRun:
    warnings.filterwarnings("ignore", message="No ccache found")
    use_fast_cpu_settings()
    keep_signals_from_paddle()
    name, precision = task.engine, task.precision
    if precision == "bfloat16" and is_installed(name) and not computes_bfloat16():
        return NotRun(name, precision, "this processor has no such instructions.")
    try:
        predictor = Predictor(task.model_dir, None, name, precision, task.threads)
    except (InputError, RunError) as error:
        return NotRun(name, precision, str(error))
    return list(_rows(task, predictor))


def _rows(task: Task, predictor: Predictor) -> Iterator[Row]:
    name, precision = predictor.engine, predictor.precision
    rng = np.random.default_rng(0)
    for size in task.batch_sizes:
        inputs = rng.normal(0, 60, (size, *predictor.info.preprocess.input_shape)).astype("float32")
        times = _timed(partial(predictor.logits, inputs), WARM_UP, task.repeat)
        yield Row(name, precision, "forward", size, times, size)
    if task.images is not None:
        size = max(task.batch_sizes)
        with loader_for(
            task.images,
            predictor.info.preprocess,
            size,
            num_workers=task.num_workers,
            max_pixels=task.max_pixels,
        ) as loader:
            times = _timed(lambda: deque(_named(predictor, loader), 0), 1, PASSES)
        yield Row(name, precision, "files", size, times, len(task.images))


def _named(predictor: Predictor, loader: Loader) -> Iterator[list[tuple[int, float]]]:
    """The first classes of each image."""
    for _, answer in predict(predictor, loader):
        yield answer.top(TOP_K)


def _timed(run: Callable[[], object], warm_up: int, count: int) -> tuple[float, ...]:
    """Milliseconds of each of `count` runs."""
    milliseconds = []
    for i in range(warm_up + count):
        start = time.perf_counter()
        run()
        if i >= warm_up:
            milliseconds.append((time.perf_counter() - start) * 1e3)
    return tuple(milliseconds)


def machine(threads: int | None) -> dict[str, Any]:
    """The machine that the numbers belong to: processor, cores, versions."""
    versions = {"python": platform.python_version(), "opencv": cv2.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": PinnedThreads().count,
        "threads": PinnedThreads(threads).count,
        "system": platform.platform(),
        "versions": versions,
    }


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line for line in text.splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.machine()
