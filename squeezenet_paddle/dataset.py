"""List files, class names, and batches of pictures read by threads."""

from __future__ import annotations

import glob
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from .errors import ImageError, InputError, describe_problems
from .files import read_lines
from .preprocess import MAX_PIXELS, Preprocess, read_image


@dataclass(frozen=True)
class ImageList:
    """The lines of a list file.

    Attributes:
        paths: where the pictures are, `data_dir` included.
        labels: int64 [len(paths)], class ids.
    """

    paths: Sequence[Path]
    labels: np.ndarray


def read_list(path: Path, data_dir: Path | None, num_classes: int) -> ImageList:
    """Reads an ILSVRC-style list file: a path, a space, a class id a line, as Caffe's.

    The split is at the last space, so that paths may hold spaces. Unix and Windows line ends and
    blank lines at the end are taken.

    Args:
        path: the list file.
        data_dir: the folder that the paths start from; None for the folder of the list file.
        num_classes: labels must be below it.

    Raises:
        InputError: with the numbers of the lines that are wrong, the first ten of them.
    """
    root = path.parent if data_dir is None else data_dir
    if not root.is_dir():
        raise InputError(f"--data_dir {root}: no such folder.")
    paths, labels, problems = [], [], []
    for number, line in enumerate(read_lines(path, "list file"), 1):
        name, _, label = line.rstrip().rpartition(" ")
        if not name.strip():
            problems.append(f"line {number}: 'path label' was expected, found {line!r}")
        elif not (label.isascii() and label.lstrip("-").isdigit()):
            problems.append(f"line {number}: a class id was expected as label, found {label!r}")
        elif not 0 <= int(label) < num_classes:
            problems.append(
                f"line {number}: the label must lie in 0..{num_classes - 1}, found {label}"
            )
        else:
            paths.append(root / name)
            labels.append(int(label))
    if problems:
        raise InputError(f"{path}: {len(problems)} bad lines: {describe_problems(problems)}.")
    if not paths:
        raise InputError(f"{path}: the list file is empty.")
    return ImageList(paths, np.array(labels, "int64"))


def read_names(path: Path, num_classes: int) -> list[str]:
    """Class names, one a line in the order of the class ids, e.g. ILSVRC's synset_words.txt.

    Raises:
        InputError: there are fewer or more names than classes, or a blank one.
    """
    names = [line.strip() for line in read_lines(path, "list of class names")]
    if len(names) != num_classes:
        raise InputError(
            f"{path}: {num_classes} class names were expected, one a line; found {len(names)}."
        )
    if "" in names:
        raise InputError(f"{path}, line {names.index('') + 1}: the name of a class is blank.")
    return names


IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff"}


def find_images(patterns: Sequence[str]) -> list[Path]:
    """The picture files that the user named: files as they are, folders searched, globs expanded.

    In a folder, files are taken by their suffix, hidden ones left out; a file named itself, or by
    a glob, is taken whatever its name.

    Raises:
        InputError: nothing is there.
    """
    found: list[Path] = []
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            inside = sorted(
                p
                for p in path.rglob("*")
                if p.suffix.lower() in IMAGE_SUFFIXES
                and p.is_file()
                and not any(part.startswith(".") for part in p.relative_to(path).parts)
            )
            if not inside:
                raise InputError(f"{path}: this folder holds no pictures.")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            matches = sorted(
                p for p in map(Path, glob.glob(pattern, recursive=True)) if p.is_file()
            )
            if not matches:
                raise InputError(f"{pattern}: no such file or folder, and no file matches it.")
            found += matches
    return found


@dataclass
class Batch:
    """Pictures ready for the network.

    Attributes:
        indices: int64 [n], which of the paths they are.
        inputs: float32 [n, *preprocess.input_shape].
        failures: the errors of the pictures of this batch that could not be read.
    """

    indices: np.ndarray
    inputs: np.ndarray
    failures: list[ImageError] = field(default_factory=list)


def read_batches(
    paths: Sequence[Path],
    preprocess: Preprocess,
    batch_size: int,
    num_workers: int,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Batch]:
    """Reads pictures in order, each exactly once, in batches of at most `batch_size`.

    Threads do it, as OpenCV works outside the interpreter's lock, and write straight into the
    batch. The next batches are read while the caller works on one. A picture that cannot be read
    leaves its batch shorter and is reported in `failures`.
    """
    cv2.setNumThreads(1)  # a picture a thread is faster than threads within a picture

    def load(index: int, out: np.ndarray) -> ImageError | None:
        try:
            preprocess(read_image(paths[index], max_pixels), out)
        except ImageError as error:
            return error
        return None

    def finish(start: int, inputs: np.ndarray, errors: list[ImageError | None]) -> Batch:
        failures = [error for error in errors if error is not None]
        good = np.array([error is None for error in errors], bool)
        indices = np.arange(start, start + len(errors))[good]
        return Batch(indices, inputs if not failures else inputs[good], failures)

    starts = range(0, len(paths), batch_size)
    if num_workers == 0:
        for start in starts:
            count = min(batch_size, len(paths) - start)
            inputs = np.empty((count, *preprocess.input_shape), "float32")
            yield finish(start, inputs, [load(start + i, inputs[i]) for i in range(count)])
        return

    pool = ThreadPoolExecutor(num_workers, "reader")
    pending: deque[tuple[int, np.ndarray, list[Future[ImageError | None]]]] = deque()
    try:
        for start in starts:
            count = min(batch_size, len(paths) - start)
            inputs = np.empty((count, *preprocess.input_shape), "float32")
            futures = [pool.submit(load, start + i, inputs[i]) for i in range(count)]
            pending.append((start, inputs, futures))
            if len(pending) > 2:
                begin, batch, jobs = pending.popleft()
                yield finish(begin, batch, [job.result() for job in jobs])
        while pending:
            begin, batch, jobs = pending.popleft()
            yield finish(begin, batch, [job.result() for job in jobs])
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
