"""Resizes the images of list files once, before training, and computes their channel means.

The processes that do the work are spawned, so nothing that is imported here may load Paddle.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import posixpath
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from ..data import remarks
from ..data.at_work import AtWork
from ..data.decode import memory_errors_named, read_image
from ..data.image_files import IMAGE_SUFFIXES
from ..data.lists import ImageList, read_list
from ..data.preprocess import Preprocess
from ..errors import ImageError, InputError, RunError, describe_problems
from ..files import read_bytes, read_lines, write_bytes, write_text, write_together
from ..processes import ProcessDiedError, map_in_processes
from ..progress import Progress
from ..temporaries import clear_leftovers

FORMATS = ("jpg", "png")
SETTINGS = "prepare.json"
DONE = "prepared.txt"  # a line for each image: see `_Done`
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


@dataclass(frozen=True)
class Report:
    """What `prepare` did.

    Attributes:
        images: how many different images the lists name.
        written: how many of them were written now; the other readable ones were already there.
        unreadable: what is wrong with each image that cannot be read.
        statistics: mean and standard deviation, see `statistics`; None if not asked for.
    """

    images: int
    written: int
    unreadable: Sequence[str]
    statistics: dict[str, Any] | None


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


def prepare(
    lists: Sequence[str | Path],
    data_dir: str | Path | None,
    resize: Preprocess,
    output: Output | None,
    with_mean: bool,
    num_workers: int,
    skip_unreadable: bool = False,
) -> Report:
    """Writes the images of list files resized, and the lists with the new paths.

    An image that is there is left as it is if neither it nor the original has changed since, by
    size and, of the original, time of change; so an interrupted run continues where it stopped.

    Args:
        lists: list files.
        data_dir: the folder that their paths start from; None for their own.
        resize: gives the size, see `Preprocess.resized`.
        output: None to write nothing; then only the first list is read, for the mean.
        with_mean: whether to compute the mean of the resized images of the first list.
        num_workers: processes.
        skip_unreadable: leave out images that cannot be read, in the lists too.

    Raises:
        InputError: the lists or the output folder do not suit, or images cannot be read; those
            that can are written by then.
        RunError: a process was killed.
    """
    paths = [Path(path) for path in lists]
    read = [read_list(path, data_dir) for path in (paths if output else paths[:1])]
    jobs = plan(read, output, with_mean)
    names = list(jobs)
    done = None
    if output is not None:
        _claim(output, paths, read, resize)
        clear_leftovers(Path(output.folder), below=True)
        done = _Done(output.path(DONE))
        jobs = {name: job._replace(done=done.of(job.target)) for name, job in jobs.items()}
    problems: dict[str, str] = {}
    written = 0
    histogram = np.zeros((3, 256), "int64")
    with closing(_run(list(jobs.values()), resize, output, num_workers)) as chunks:
        for start, chunk in chunks:
            problems.update({names[start + i]: text for i, text in chunk.problems.items()})
            written += len(chunk.written)
            if done is not None:
                done.add(chunk.written)
            histogram += chunk.histogram
            remarks.log(chunk.remarks)
    if done is not None:
        done.close()
    if problems and not skip_unreadable:
        raise InputError(
            f"{len(problems)} of {len(jobs)} images cannot be prepared, the others are; "
            f"`skip_unreadable` leaves them out: {describe_problems(list(problems.values()))}"
        )
    for images in read:
        if all(_key(images, i) in problems for i in range(len(images))):
            raise InputError(f"{images.source}: none of its images can be read.")
    if output is not None:
        if written:
            os.sync()  # before the lists name them
        lists_of = {
            _list_name(path): _new_list(each, jobs, problems) for path, each in zip(paths, read)
        }
        write_together(Path(output.folder), {k: v.encode() for k, v in lists_of.items()})
    mean = None
    if with_mean:
        used = sum(_key(read[0], i) not in problems for i in range(len(read[0])))
        mean = {**statistics(histogram), "images": used, "list": paths[0].name}
    return Report(len(jobs), written, list(problems.values()), mean)


def plan(lists: Sequence[ImageList], output: Output | None, with_mean: bool) -> dict[str, Job]:
    """The work for each image, by its path in the lists; an image is named once.

    Raises:
        InputError: a path leaves the data folder, or two images would be written to one file.
    """
    weights = Counter(_key(lists[0], i) for i in range(len(lists[0]))) if with_mean else Counter()
    jobs: dict[str, Job] = {}
    owner: dict[str, str] = {}  # target -> path in the lists
    outside, collisions = [], []
    for images in lists:
        for i in range(len(images)):
            name = _key(images, i)
            if name in jobs:
                continue
            target = None
            if output is not None:
                if name.startswith("/") or ".." in images.name(i).split("/") or "\n" in name:
                    outside.append(f"{images.where(i)}{images.name(i)!r}")
                    continue
                stem, suffix = posixpath.splitext(name)
                stem = stem if suffix.lower() in IMAGE_SUFFIXES else name
                target = f"{stem}.{output.format}"
                other = owner.setdefault(target, name)
                if other != name:
                    collisions.append(f"{other} and {name} would both be {target}")
            jobs[name] = Job(str(images.path(i)), target, weights[name])
    if outside:
        raise InputError(
            "a path below the data folder, without '..', was expected, so that it has a place "
            f"below `output_dir`; found {describe_problems(outside)}."
        )
    if collisions:
        raise InputError(
            f"every image needs a name of its own in `output_dir`: {describe_problems(collisions)}."
        )
    return jobs


def _key(images: ImageList, index: int) -> str:
    return posixpath.normpath(images.name(index))


def _list_name(path: Path) -> str:
    """A list is written as 'path label' lines, also where it was read as CSV."""
    return path.with_suffix(".txt").name if path.suffix.lower() == ".csv" else path.name


def _new_list(images: ImageList, jobs: dict[str, Job], problems: dict[str, str]) -> str:
    names = [_key(images, i) for i in range(len(images))]
    return "".join(
        f"{jobs[name].target} {label}\n"
        for name, label in zip(names, images.labels)
        if name not in problems
    )


def _claim(
    output: Output, lists: Sequence[Path], read: Sequence[ImageList], resize: Preprocess
) -> None:
    """Checks that what is in the folder was made with these settings, and writes them there."""
    roots = {images.root.resolve() for images in read}
    if len(roots) > 1:
        raise InputError(
            "the lists lie in different folders; `data_dir` must say where their paths start from."
        )
    for name, count in Counter(map(_list_name, lists)).items():
        if count > 1:
            raise InputError(f"`list`: {count} of the lists would be written to {name}.")
    folder = Path(output.folder).resolve()
    if folder in {*roots, *(path.resolve().parent for path in lists)}:
        raise InputError(
            f"`output_dir` {output.folder} holds the lists or images that are read; another "
            "folder was expected, as they would be replaced."
        )
    settings = {
        "data_dir": str(roots.pop()),
        "resize": resize.resize,
        "resize_size": resize.resize_size,
        "interpolation": resize.interpolation,
        "format": output.format,
        "quality": output.quality if output.format == "jpg" else None,
    }
    path = folder / SETTINGS
    if path.exists():
        try:
            recorded = dict(json.loads(read_bytes(path, "record of settings")))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: not a record of settings in JSON.") from error
        differences = [
            f"{key} {recorded.get(key)}, asked {value}"
            for key, value in settings.items()
            if recorded.get(key) != value
        ]
        if differences:
            raise InputError(
                f"{output.folder} was made with other settings ({'; '.join(differences)}); "
                "give another `output_dir`."
            )
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(
            f"{output.folder} is not empty and has no {SETTINGS}, so it was not made by this "
            "tool; give another `output_dir`."
        )
    else:
        write_text(path, json.dumps(settings, indent=2) + "\n")


def _run(
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
        write = target is not None and not (job.done and job.done == _both(target, before))
        if not write and not job.weight:
            continue
        _at_work.on(job.source)
        try:
            with memory_errors_named(job.source):
                image = resize.resized(read_image(job.source))
            if output is not None and target is not None and write:
                # No wait for the disk: what a loss of power leaves has another size, or no line.
                write_bytes(target, encode(image, output, job.source), durable=False)
                written[str(job.target)] = _both(target, before)
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


def _both(target: Path, source: str) -> str:
    """What `prepared.txt` says of an image that was made of a source; "" if it is not there."""
    try:
        return f"{target.stat().st_size} {source}"
    except OSError:
        return ""


class _Done:
    """What is prepared: for each image a line of its size, that and the time of its original.

    A line is added as soon as its image is written. The last one of an image counts.
    """

    def __init__(self, path: Path) -> None:
        lines = read_lines(path, "record of what is prepared") if path.exists() else []
        parts = (line.split(" ", 3) for line in lines)
        self._done = {part[3]: " ".join(part[:3]) for part in parts if len(part) == 4}
        write_text(path, "".join(f"{done} {name}\n" for name, done in self._done.items()))
        self._file = path.open("ab", buffering=0)

    def of(self, name: str | None) -> str:
        return "" if name is None else self._done.get(name, "")

    def add(self, written: Mapping[str, str]) -> None:
        lines = "".join(f"{done} {name}\n" for name, done in written.items())
        try:
            self._file.write(lines.encode())
        except OSError as error:
            raise InputError(f"{self._file.name}: cannot be written ({error.strerror}).") from error

    def close(self) -> None:
        self._file.close()


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
