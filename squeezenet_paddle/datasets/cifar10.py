"""CIFAR-10's published python archive as PNG images and list files.

It is a tar of Python 2 pickles, see https://www.cs.toronto.edu/~kriz/cifar.html. Its checksum is
compared before anything is read, the tar is read in memory and the pickles run no code, so that
nothing but the images comes of it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import cv2
import numpy as np

from ..download import KnownFile
from ..errors import InputError
from ..files import atomic_directory, check_directory
from ..progress import Progress
from ..safe_pickle import PickledArray, load_dict

# torchvision names the MD5, c58f30108f718f92721af3b95e74349a, and Keras the SHA-256.
ARCHIVE = KnownFile(
    name="cifar-10-python.tar.gz",
    url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    size=170_498_071,
    digest_algorithm="sha256",
    digest="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)
FOLDER = "cifar-10-batches-py"  # of the members in the tar
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = "test_batch"
META = "batches.meta"
NUM_CLASSES = 10
MAX_MEMBER = 64 << 20  # bytes; a batch of the archive has 31 million

MARKER = "cifar10.json"  # where the images came from
ENTRIES = (MARKER, "synset_words.txt", "test", "train", "train_list.txt", "val_list.txt")
FAST_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1)


@dataclass(frozen=True)
class Batch:
    """Images of one of the archive's files.

    Attributes:
        pixels: uint8 [n, 3072], the 32 x 32 red values row by row, then the green, then the blue.
        labels: class ids, 0..9.
    """

    pixels: np.ndarray
    labels: list[int]


def prepare(archive: Path, output_dir: Path, sha256: str = ARCHIVE.digest) -> tuple[int, int]:
    """Writes the archive's images, their lists and the names of the classes; all or nothing.

    `output_dir` gets `train/CLASS/00000.png` and `test/CLASS/00000.png`, numbered as in the
    archive, `train_list.txt`, `val_list.txt` (the test images), `synset_words.txt`, and
    `cifar10.json`, which says what they were made of.

    Args:
        archive: the .tar.gz file.
        output_dir: a new or empty folder, or one that this function made, which is replaced.
        sha256: what the archive's SHA-256 must be, in lower case hexadecimal.

    Returns:
        How many training and how many test images there are.

    Raises:
        InputError: the archive is another than expected, is damaged or would do harm, or
            `output_dir` is a file or a folder of something else.
    """
    check_directory(output_dir, ENTRIES)
    names, train, test = read_archive(archive, sha256)
    with atomic_directory(output_dir, ENTRIES) as directory:
        total = len(train.labels) + len(test.labels)
        with Progress("writing", total) as progress:
            _write_images(directory, "train", "train_list.txt", train, names, progress)
            _write_images(directory, "test", "val_list.txt", test, names, progress)
        (directory / "synset_words.txt").write_text("".join(f"{n}\n" for n in names), "utf-8")
        made_of = {
            "archive": archive.name,
            "sha256": sha256,
            "train": len(train.labels),
            "test": len(test.labels),
        }
        (directory / MARKER).write_text(json.dumps(made_of, indent=2) + "\n", "utf-8")
    return len(train.labels), len(test.labels)


def read_archive(archive: Path, sha256: str) -> tuple[list[str], Batch, Batch]:
    """The names of the classes, the training images and the test images.

    Raises:
        InputError: see `prepare`.
    """
    try:
        with archive.open("rb") as file:
            _check_digest(file, archive, sha256)
            members = _read_members(file, archive)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{archive}: cut off, damaged, or no .tar.gz file: {error}.") from error
    except OSError as error:
        raise InputError(f"{archive}: cannot read this archive ({error.strerror}).") from error

    missing = sorted({*TRAIN, TEST, META} - members.keys())
    if missing:
        raise InputError(f"{archive}: {FOLDER} lacks {', '.join(missing)}.")
    names = _class_names(members[META], f"{archive}, {META}")
    parts = [_batch(members[name], f"{archive}, {name}") for name in TRAIN]
    train = Batch(
        np.concatenate([part.pixels for part in parts]),
        [label for part in parts for label in part.labels],
    )
    return names, train, _batch(members[TEST], f"{archive}, {TEST}")


def _check_digest(file: BinaryIO, archive: Path, sha256: str) -> None:
    state = hashlib.sha256()
    size = 0
    while chunk := file.read(1 << 20):
        state.update(chunk)
        size += len(chunk)
    if state.hexdigest() != sha256:
        raise InputError(
            f"{archive} is not the expected archive: its sha256 is {state.hexdigest()}, expected "
            f"{sha256}; it has {size} bytes (the published one: {ARCHIVE.size})."
        )
    file.seek(0)


def _read_members(file: BinaryIO, archive: Path) -> dict[str, bytes]:
    """The files of the tar that are wanted; the others are passed over, but not harmful ones."""
    members: dict[str, bytes] = {}
    with gzip.GzipFile(fileobj=file) as stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if path.is_absolute() or ".." in path.parts:
                raise InputError(f"{archive}: '{member.name}' would be written outside its folder.")
            if not (member.isreg() or member.isdir()):
                raise InputError(
                    f"{archive}: '{member.name}' is a link or a device; a file was expected."
                )
            if member.isdir() or path.parent.as_posix() != FOLDER:
                continue
            if path.name not in (*TRAIN, TEST, META):
                continue
            if path.name in members:
                raise InputError(f"{archive}: '{member.name}' is in it twice.")
            if member.size > MAX_MEMBER:
                raise InputError(
                    f"{archive}: '{member.name}' has {member.size} bytes; "
                    f"at most {MAX_MEMBER} were expected."
                )
            content = tar.extractfile(member)
            assert content is not None  # as it is a regular file
            members[path.name] = content.read()
        while stream.read(1 << 20):  # to the end, where gzip compares its own checksum
            pass
    return members


def _batch(data: bytes, where: str) -> Batch:
    """A batch file; `where` names it in errors."""
    content = load_dict(data, where)
    array = content.get(b"data")
    labels = content.get(b"labels")
    pixels = array.values if isinstance(array, PickledArray) else None
    if pixels is None or pixels.dtype != np.uint8:
        raise InputError(f"{where}: an array of uint8 was expected as 'data'; found none.")
    if pixels.ndim != 2 or pixels.shape[1] != 3 * 32 * 32 or not len(pixels):
        raise InputError(
            f"{where}: 'data' of shape [n, 3072] was expected; found {list(pixels.shape)}."
        )
    if not isinstance(labels, list) or len(labels) != len(pixels):
        found = f"{len(labels)}" if isinstance(labels, list) else "no list"
        raise InputError(f"{where}: {len(pixels)} 'labels' were expected, found {found}.")
    for place, label in enumerate(labels):
        if type(label) is not int or label not in range(NUM_CLASSES):
            is_short = type(label) is int and abs(label) < 1000
            raise InputError(
                f"{where}: label {place} must be a whole number of 0..{NUM_CLASSES - 1}; "
                f"found {label if is_short else 'something else'}."
            )
    return Batch(pixels, labels)


def _class_names(data: bytes, where: str) -> list[str]:
    """The names of the classes; they become those of folders, so they must be harmless."""
    names = load_dict(data, where).get(b"label_names")
    if not isinstance(names, list) or len(names) != NUM_CLASSES:
        raise InputError(f"{where}: a list of {NUM_CLASSES} 'label_names' was expected.")
    for name in names:
        if not isinstance(name, bytes) or not re.fullmatch(rb"[A-Za-z0-9_-]{1,100}", name):
            raise InputError(
                f"{where}: 'label_names' of letters, digits, '_' and '-' were expected."
            )
    if len({name.lower() for name in names}) < NUM_CLASSES:
        raise InputError(f"{where}: 'label_names' holds a name twice.")
    return [name.decode("ascii") for name in names]


def _write_images(
    directory: Path, split: str, list_name: str, batch: Batch, names: list[str], progress: Progress
) -> None:
    for name in names:
        (directory / split / name).mkdir(parents=True)
    # Planes of red, green, blue -> rows of pixels in OpenCV's order, blue first.
    images = batch.pixels.reshape(-1, 3, 32, 32)[:, ::-1].transpose(0, 2, 3, 1)
    lines = []
    for index, (image, label) in enumerate(zip(images, batch.labels)):
        path = f"{split}/{names[label]}/{index:05d}.png"
        png = cv2.imencode(".png", np.ascontiguousarray(image), FAST_PNG)[1]
        (directory / path).write_bytes(png.tobytes())
        lines.append(f"{path} {label}\n")
        progress.update()
    (directory / list_name).write_text("".join(lines), "utf-8")
