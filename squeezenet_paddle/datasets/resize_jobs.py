"""Resizes images in several processes, and counts the values of their pixels.

The processes are spawned, so nothing that is imported here may load Paddle.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from ..data import remarks
from ..data.at_work import AtWork
from ..data.decode import memory_errors_named, read_image
from ..data.preprocess import Preprocess
from ..errors import ImageError, RunError
from ..files import write_bytes
from ..processes import ProcessDiedError, map_in_processes
from ..progress import Progress

_CHUNK = 32  # images that a process takes at a time


@dataclass(frozen=True)
class Output:
    """Where resized images go, and how.

    Attributes:
        folder: the new lists' paths start from it.
        format: "jpg" or "png"; png keeps every pixel.
        quality: of jpg, 1..100.
    """

    folder: str | Path
    format: str = "jpg"
    quality: int = 95

    def path(self, name: str) -> Path:
        """Where a file of the folder lies."""
        return Path(self.folder, name)


class Job(NamedTuple):
    """One image.

    Attributes:
        source: its file.
        target: the name of the resized one in the output folder; None if none is to be written.
        weight: how often the list of the mean names it.
        done: what `prepared.txt` says of the target; "" if nothing.
    """

    source: str
    target: str | None
    weight: int
    done: str = ""


class Chunk(NamedTuple):
    """What was done for some jobs.

    Attributes:
        problems: what is wrong with the images that cannot be read or written, by their index.
        written: by target, of the images that were written, what is true of them now.
        histogram: int64 [3, 256], how many pixels have each value, in B, G, R.
        remarks: of the decoders.
    """

    problems: dict[int, str]
    written: dict[str, str]
    histogram: np.ndarray
    remarks: list[str]


def run_jobs(
    jobs: Sequence[Job], resize: Preprocess, output: Output | None, num_workers: int
) -> Generator[tuple[int, Chunk], None, None]:
    """Shares the jobs among processes, with a progress bar; yields the first job's index too."""
    size = min(_CHUNK, -(-len(jobs) // num_workers))
    starts = range(0, len(jobs), size)
    chunks = [jobs[start : start + size] for start in starts]
    context = multiprocessing.get_context("spawn")
    at_work = [AtWork(context) for _ in range(min(num_workers, len(chunks)))]
    starting = [partial(_start_worker, each) for each in at_work]
    results = map_in_processes(partial(_do, resize, output), chunks, starting)
    try:
        with closing(results), Progress("resizing", len(jobs)) as progress:
            for start, done in zip(starts, results):
                yield start, done
                progress.update(len(jobs[start : start + size]))
    except ProcessDiedError as error:
        images = " or ".join(each.path for each in at_work if each.path)
        raise RunError(
            "a process that resized images was killed, most often because memory ran out; fewer "
            "`num_workers` need less. The same command continues where this one stopped. "
            f"{images and f'It may have been reading {images}.'}"
        ) from error


_at_work: AtWork  # of this helper process


def _start_worker(at_work: AtWork) -> None:
    """Prepares a helper process."""
    global _at_work
    _at_work = at_work
    cv2.setNumThreads(1)
    remarks.keep()


def _do(resize: Preprocess, output: Output | None, jobs: Sequence[Job]) -> Chunk:
    """Does some jobs, in a process of the pool."""
    problems: dict[int, str] = {}
    written: dict[str, str] = {}
    histogram = np.zeros((3, 256), "int64")
    for i, job in enumerate(jobs):
        target = None if output is None else output.path(str(job.target))
        before = "" if target is None else _source(job.source)
        write = target is not None and not (job.done and job.done == _state_of(target, before))
        if not write and not job.weight:
            continue
        _at_work.on(job.source)
        try:
            with memory_errors_named(job.source):
                image = resize.resized(read_image(job.source))
            if output is not None and target is not None and write:
                # No wait for the disk: what a loss of power leaves has another size, or no line.
                write_bytes(target, encode(image, output, job.source), durable=False)
                written[str(job.target)] = _state_of(target, before)
        except ImageError as error:
            problems[i] = str(error)
            continue
        if job.weight:
            for channel in range(3):
                counts = np.bincount(image[:, :, channel].ravel(), minlength=256)
                histogram[channel] += job.weight * counts
    return Chunk(problems, written, histogram, remarks.take())


def _source(path: str) -> str:
    """Size and time of change of an original; "" if it is missing, which reading it tells."""
    try:
        status = Path(path).stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


def _state_of(target: Path, source: str) -> str:
    """What `prepared.txt` says of an image that was made of a source; "" if it is not there."""
    try:
        return f"{target.stat().st_size} {source}"
    except OSError:
        return ""


def encode(image: np.ndarray, output: Output, name: str) -> bytes:
    """The file of an image.

    Raises:
        ImageError: it is too large for the format; JPEG ends at 65,500 pixels a side.
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, output.quality] if output.format == "jpg" else []
    try:
        encoded, data = cv2.imencode(f".{output.format}", image, options)
    except cv2.error:  # older versions; newer ones return False
        encoded = False
    if not encoded:
        height, width = image.shape[:2]
        raise ImageError(f"{name}: {width}x{height} pixels do not fit a {output.format} file.")
    return data.tobytes()
