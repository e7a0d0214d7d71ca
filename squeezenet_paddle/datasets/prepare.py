"""Resizing the images of list files once, ahead of training, and their channel means."""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.image_files import IMAGE_SUFFIXES
from ..data.lists import ImageList, read_list
from ..data.preprocess import Preprocess
from ..errors import InputError, describe_problems
from ..files import read_bytes, write_text
from .resize import Job, Output, run_jobs, statistics

SETTINGS = "prepare.json"


@dataclass(frozen=True)
class Report:
    """What `prepare` did.

    Attributes:
        images: how many different images the lists name.
        written: how many of them were written now; the other readable ones were already there.
        unreadable: what was wrong with each of those that could not be read.
        statistics: mean and standard deviation, see `statistics`; None if not asked for.
    """

    images: int
    written: int
    unreadable: Sequence[str]
    statistics: dict[str, Any] | None


def prepare(
    lists: Sequence[Path],
    data_dir: Path | None,
    resize: Preprocess,
    output: Output | None,
    with_mean: bool,
    num_workers: int,
    skip_unreadable: bool = False,
) -> Report:
    """Writes the images of list files resized, and the lists with the new paths.

    An image whose file is there and newer than the original is left as it is, so that a run that
    was interrupted goes on.

    Args:
        lists: list files.
        data_dir: the folder that their paths start from; None for their own.
        resize: says how, as `Preprocess.resized`.
        output: None to write nothing; then only the first list is read, for the mean.
        with_mean: whether to take the mean of the resized images of the first list.
        num_workers: processes.
        skip_unreadable: leave out images that cannot be read, in the lists too.

    Raises:
        InputError: the lists or the output folder do not suit, or images cannot be read; those
            that can are written by then.
        RunError: a process was killed.
    """
    read = [read_list(path, data_dir, None) for path in lists]
    if output is None:
        read = read[:1]
    jobs = plan(read, output, with_mean)
    if output is not None:
        _claim(output, lists, read, resize)
    bad, written, histogram = run_jobs(list(jobs.values()), resize, output, num_workers)
    keys = list(jobs)
    failures = {keys[i]: message for i, message in bad.items()}
    if failures and not skip_unreadable:
        raise InputError(
            f"{len(failures)} of {len(jobs)} images cannot be prepared, the others are; "
            f"--skip_unreadable leaves them out: {describe_problems(list(failures.values()))}"
        )
    for images in read:
        if all(_key(images, i) in failures for i in range(len(images))):
            raise InputError(f"{images.source}: none of its images can be read.")
    if output is not None:
        for path, images in zip(lists, read):
            write_text(output.folder / _list_name(path), _new_list(images, jobs, failures))
    found = None
    if with_mean:
        used = sum(_key(read[0], i) not in failures for i in range(len(read[0])))
        found = {**statistics(histogram), "images": used, "list": lists[0].name}
    return Report(len(jobs), written, list(failures.values()), found)


def plan(lists: Sequence[ImageList], output: Output | None, with_mean: bool) -> dict[str, Job]:
    """What is to be done for each image, by its path in the lists; each is named once.

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
                target = f"{_stem(name)}.{output.format}"
                other = owner.setdefault(target, name)
                if other != name:
                    collisions.append(f"{other} and {name} would both be {target}")
            jobs[name] = Job(str(images.path(i)), target, weights[name])
    if outside:
        raise InputError(
            "a path below the data folder, without '..', was expected, so that it has a place "
            f"below --output_dir; found {describe_problems(outside)}."
        )
    if collisions:
        raise InputError(
            f"every image needs a name of its own in --output_dir: {describe_problems(collisions)}."
        )
    return jobs


def _key(images: ImageList, index: int) -> str:
    return posixpath.normpath(images.name(index))


def _stem(name: str) -> str:
    stem, suffix = posixpath.splitext(name)
    return stem if suffix.lower() in IMAGE_SUFFIXES else name


def _list_name(path: Path) -> str:
    """A list is written as 'path label' lines, also where it was read as CSV."""
    return path.with_suffix(".txt").name if path.suffix.lower() == ".csv" else path.name


def _new_list(images: ImageList, jobs: dict[str, Job], failures: dict[str, str]) -> str:
    names = [_key(images, i) for i in range(len(images))]
    return "".join(
        f"{jobs[name].target} {label}\n"
        for name, label in zip(names, images.labels)
        if name not in failures
    )


def _claim(
    output: Output, lists: Sequence[Path], read: Sequence[ImageList], resize: Preprocess
) -> None:
    """Makes sure that what is in the folder was made as asked now, and notes how it is made."""
    roots = {images.root.resolve() for images in read}
    if len(roots) > 1:
        raise InputError(
            "the lists lie in different folders; --data_dir must say where their paths start from."
        )
    counts = Counter(map(_list_name, lists))
    for name, count in counts.items():
        if count > 1:
            raise InputError(f"--list: {count} of the lists would be written to {name}.")
    folder = output.folder.resolve()
    if folder in {*roots, *(path.resolve().parent for path in lists)}:
        raise InputError(
            f"--output_dir {output.folder} holds the lists or images that are read; another "
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
            found = dict(json.loads(read_bytes(path, "record of settings")))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: not a record of settings in JSON.") from error
        differing = [
            f"{key} {found.get(key)}, asked {value}"
            for key, value in settings.items()
            if found.get(key) != value
        ]
        if differing:
            raise InputError(
                f"{output.folder} was made with other settings ({'; '.join(differing)}); "
                "give another --output_dir."
            )
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(
            f"{output.folder} is not empty and has no {SETTINGS}, so it was not made by this "
            "tool; give another --output_dir."
        )
    else:
        write_text(path, json.dumps(settings, indent=2) + "\n")
