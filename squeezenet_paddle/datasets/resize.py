"""Processes that resize images, write them, and count the values of their pixels.

They are started fresh, so nothing that is imported here or by a tool may load Paddle.
"""

from __future__ import annotations

import math
import multiprocessing
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from ..data.decode import read_image
from ..data.preprocess import Preprocess
from ..errors import ImageError, RunError
from ..files import write_bytes
from ..progress import Progress

FORMATS = ("jpg", "png")
_CHUNK = 32  # images that a process takes at a time


@dataclass(frozen=True)
class Output:
    """Where resized images go, and how.

    Attributes:
        folder: the lists' paths start from it.
        format: "jpg" or "png"; png keeps every pixel.
        quality: of jpg, 1..100.
    """

    folder: Path
    format: str = "jpg"
    quality: int = 95


class Job(NamedTuple):
    """One image; `weight` is how often the list of the mean names it."""

    source: str
    target: str | None
    weight: int


def run_jobs(
    jobs: Sequence[Job], resize: Preprocess, output: Output | None, num_workers: int
) -> tuple[dict[int, str], int, np.ndarray]:
    """Deals the jobs to processes.

    Returns:
        What was wrong with the images that failed, by their index in `jobs`; how many images
        were written; and int64 [3, 256], how many pixels have each value in B, G, R.

    Raises:
        RunError: a process was killed.
    """
    size = min(_CHUNK, -(-len(jobs) // num_workers))
    chunks = [jobs[start : start + size] for start in range(0, len(jobs), size)]
    failures: dict[int, str] = {}
    written = 0
    histogram = np.zeros((3, 256), "int64")
    pool = ProcessPoolExecutor(
        min(num_workers, len(chunks)), multiprocessing.get_context("spawn"), _start_worker
    )
    try:
        with Progress("resizing", len(jobs)) as progress:
            done = 0
            for chunk, (bad, new, counts) in zip(
                chunks, pool.map(partial(_do_chunk, resize, output), chunks)
            ):
                failures.update({done + i: message for i, message in bad.items()})
                written += new
                histogram += counts
                done += len(chunk)
                progress.update(len(chunk))
    except BrokenProcessPool as error:
        raise RunError(
            "a process that resized images was killed, most often for want of memory; fewer "
            "--num_workers take less. The same command goes on where this one stopped."
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return failures, written, histogram


def encode(image: np.ndarray, output: Output, name: str) -> bytes:
    """The file of an image.

    Raises:
        ImageError: it is too large for the format; JPEG ends at 65,500 pixels a side.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, output.quality] if output.format == "jpg" else []
    try:
        encoded, data = cv2.imencode(f".{output.format}", image, options)
    except cv2.error:  # as of older versions; newer ones return False
        encoded = False
    if not encoded:
        height, width = image.shape[:2]
        raise ImageError(f"{name}: {width}x{height} pixels do not fit a {output.format} file.")
    return data.tobytes()


def statistics(histogram: np.ndarray) -> dict[str, Any]:
    """Mean and standard deviation of pixels, exact but for the last rounding.

    Args:
        histogram: int64 [3, 256], how many pixels have each value, in B, G, R.

    Returns:
        "mean" and "std", each [B, G, R], and "pixels", the number of pixels.
    """
    mean, std = [], []
    for channel in histogram.tolist():  # Python's integers have no limit
        count = sum(channel)
        total = sum(value * n for value, n in enumerate(channel))
        squares = sum(value * value * n for value, n in enumerate(channel))
        mean.append(total / count)
        std.append(math.sqrt((count * squares - total * total) / (count * count)))
    return {"mean": mean, "std": std, "pixels": int(histogram[0].sum())}


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is for the process that waits for us
    cv2.setNumThreads(1)


def _do_chunk(
    resize: Preprocess, output: Output | None, jobs: Sequence[Job]
) -> tuple[dict[int, str], int, np.ndarray]:
    """As `run_jobs`, in a process, for one chunk."""
    failures: dict[int, str] = {}
    written = 0
    histogram = np.zeros((3, 256), "int64")
    for i, job in enumerate(jobs):
        target = None if output is None else output.folder / str(job.target)
        write = target is not None and not _is_newer(target, job.source)
        if not write and not job.weight:
            continue
        try:
            image = resize.resized(read_image(Path(job.source)))
            if output is not None and target is not None and write:
                write_bytes(target, encode(image, output, job.source))
                written += 1
        except ImageError as error:
            failures[i] = str(error)
            continue
        if job.weight:
            for channel in range(3):
                counts = np.bincount(image[:, :, channel].ravel(), minlength=256)
                histogram[channel] += job.weight * counts
    return failures, written, histogram


def _is_newer(target: Path, source: str) -> bool:
    try:
        return target.stat().st_mtime_ns > Path(source).stat().st_mtime_ns
    except OSError:  # either is missing; reading the source tells which
        return False
