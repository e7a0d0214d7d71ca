"""Makes PNG images and list files of CIFAR-10's published python archive.

It is a tar of Python 2 pickles, see https://www.cs.toronto.edu/~kriz/cifar.html. Its checksum is
compared before anything is read, so what is in it is known.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import cv2
import numpy as np

from ..download import KnownFile, difference
from ..errors import InputError
from ..files import atomic_directory, check_directory
from ..progress import Progress
from ..safe_pickle import load_dict

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

MARKER = "cifar10.json"  # where the images came from
ENTRIES = (MARKER, "synset_words.txt", "test", "train", "train_list.txt", "val_list.txt")
FAST_PNG = (cv2.IMWRITE_PNG_COMPRESSION, 1)


def prepare(
    archive: str | Path, output_dir: str | Path, expected: KnownFile = ARCHIVE
) -> tuple[int, int]:
    """Writes the archive's images, their lists and the names of the classes; all or nothing.

    `output_dir` gets `train/CLASS/00000.png` and `test/CLASS/00000.png`, numbered as in the
    archive, `train_list.txt`, `val_list.txt` (the test images), `synset_words.txt`, and
    `cifar10.json`, which says what they were made from.

    Args:
        archive: the .tar.gz file.
        output_dir: a new or empty folder, or one that this function made, which is replaced.
        expected: what the archive must be.

    Returns:
        How many training and how many test images there are.

    Raises:
        InputError: the archive cannot be read or is not the expected one, or `output_dir` is a file
            or a folder of something else.
    """
    archive, output_dir = Path(archive), Path(output_dir)
    check_directory(output_dir, ENTRIES)
    names, train, test = read_archive(archive, expected)
    with atomic_directory(output_dir, ENTRIES) as directory:
        total = len(train[1]) + len(test[1])
        with Progress("writing", total) as progress:
            _write_images(directory, "train", "train_list.txt", *train, names, progress)
            _write_images(directory, "test", "val_list.txt", *test, names, progress)
        (directory / "synset_words.txt").write_text("".join(f"{n}\n" for n in names), "utf-8")
        source = {
            "archive": archive.name,
            "sha256": expected.digest,
            "train": len(train[1]),
            "test": len(test[1]),
        }
        (directory / MARKER).write_text(json.dumps(source, indent=2) + "\n", "utf-8")
    return len(train[1]), len(test[1])


Images = tuple[np.ndarray, list[int]]


def read_archive(archive: Path, expected: KnownFile = ARCHIVE) -> tuple[list[str], Images, Images]:
    """Reads the class names, the training images and the test images.

    Returns:
        The names; and twice uint8 [n, 3072], for each image its 32 x 32 red values row by row, then
        the green, then the blue, with the class ids.

    Raises:
        InputError: see `prepare`.
    """
    try:
        problem = difference(archive, expected)
    except OSError as error:
        raise InputError(f"{archive}: cannot read this archive ({error.strerror}).") from error
    if problem:
        raise InputError(f"{archive} is not CIFAR-10's published python archive: {problem}.")
    with tarfile.open(archive) as tar:
        content = {}
        for name in (*TRAIN, TEST, META):
            member = tar.extractfile(f"{FOLDER}/{name}")
            assert member is not None  # as it is a file
            content[name] = load_dict(member.read(), f"{archive}, {name}")
    pixels = np.concatenate([content[name][b"data"].values for name in TRAIN])
    labels = [label for name in TRAIN for label in content[name][b"labels"]]
    test = content[TEST][b"data"].values, content[TEST][b"labels"]
    return [name.decode() for name in content[META][b"label_names"]], (pixels, labels), test


def _write_images(
    directory: Path,
    split: str,
    list_name: str,
    pixels: np.ndarray,
    labels: list[int],
    names: list[str],
    progress: Progress,
) -> None:
    for name in names:
        (directory / split / name).mkdir(parents=True)
    # Planes of red, green, blue -> rows of pixels in OpenCV's order, blue first.
    images = pixels.reshape(-1, 3, 32, 32)[:, ::-1].transpose(0, 2, 3, 1)
    lines = []
    for index, (image, label) in enumerate(zip(images, labels)):
        path = f"{split}/{names[label]}/{index:05d}.png"
        png = cv2.imencode(".png", np.ascontiguousarray(image), FAST_PNG)[1]
        (directory / path).write_bytes(png.tobytes())
        lines.append(f"{path} {label}\n")
        progress.update()
    (directory / list_name).write_text("".join(lines), "utf-8")
