"""Resizes the images of list files once, before training, and computes their channel means."""

from __future__ import annotations

import json
import math
import os
import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data import remarks
from ..data.image_files import IMAGE_SUFFIXES
from ..data.lists import ImageList, read_list
from ..data.preprocess import Preprocess
from ..errors import InputError, describe_problems
from ..files import read_bytes, read_lines, write_text, write_together
from ..progress import say
from ..temporaries import clear_leftovers, is_temporary
from .resize_jobs import Job, Output, run_jobs

FORMATS = ("jpg", "png")
SETTINGS = "prepare.json"
DONE = "prepared.txt"  # a line for each image: see `_Done`


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
        lacks_record = output.path(SETTINGS).exists() and not output.path(DONE).exists()
        _claim(output, paths, read, resize)
        if lacks_record and any(output.path(str(job.target)).exists() for job in jobs.values()):
            say(
                f"{output.folder}: it has images and no {DONE}, the record of what each was made "
                "of (earlier versions wrote none); they are made again"
            )
        clear_leftovers(Path(output.folder), below=True)
        done = _Done(output.path(DONE))
        jobs = {name: job._replace(done=done.of(job.target)) for name, job in jobs.items()}
    problems: dict[str, str] = {}
    written = 0
    histogram = np.zeros((3, 256), "int64")
    with closing(run_jobs(list(jobs.values()), resize, output, num_workers)) as chunks:
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
    elif folder.is_dir() and not all(is_temporary(path.name) for path in folder.iterdir()):
        raise InputError(
            f"{output.folder} is not empty and has no {SETTINGS}, so it was not made by this "
            "tool; give another `output_dir`."
        )
    else:
        write_text(path, json.dumps(settings, indent=2) + "\n")


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
