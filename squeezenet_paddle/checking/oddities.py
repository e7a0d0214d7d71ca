"""Images that are odd, and classes that are: far from all others, of one colour, too few, alike."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from ..errors import ImageError
from .labels import groups_per_class
from .pixels import Read

FEW = 20  # different images that a class should have
FAR, ONE_COLOUR, TINY = "far from every class", "one colour", "tiny"

_DIRECTIONS = 64
_FAR = 4.5  # deviations above the median, of the logarithm of the distance
_TINY = 32, 0.25  # pixels of the shorter side, and share of what is usual in the folder
_FLAT_BYTES, _FLAT_SHARE = 1500, 0.05  # at most so many, and so many a pixel, if it has one colour
_FLAT = 4.0  # grey values, the deviation of the pixels
_CONFUSED, _ENOUGH = 0.35, 10  # share taken for the other class, of so many images in each


class Odd(NamedTuple):
    """An image that is odd: its index, and in what way."""

    image: int
    reason: str


class Size(NamedTuple):
    """What can be told of a file without decoding it: width, height and bytes."""

    width: int
    height: int
    bytes: int


def sizes_of(paths: Sequence[Path]) -> list[Size | None]:
    """The size of each image, from its header; None where that cannot be read."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(_size_of, paths))


def _size_of(path: Path) -> Size | None:
    try:
        with Image.open(path) as image:
            return Size(*image.size, path.stat().st_size)
    except Exception:  # whatever a damaged header makes Pillow raise
        return None


def odd_images(
    components: np.ndarray, labels: np.ndarray, sizes: Sequence[Size | None], read: Read
) -> list[Odd]:
    """The odd images, in the order of their indices.

    Args:
        components: float32 [N, K], of `project`.
        labels: int64 [N].
        sizes: of the files.
        read: decodes an image; those that may have one colour alone are decoded.
    """
    odd = [Odd(int(i), FAR) for i in far_images(components, labels)]
    shorter = np.array([min(s.width, s.height) if s else 0 for s in sizes])
    usual = float(np.median(shorter[shorter > 0])) if shorter.any() else 0.0
    for i, size in enumerate(sizes):
        if size is None:
            continue
        if min(size.width, size.height) < min(_TINY[0], _TINY[1] * usual):
            odd.append(Odd(i, f"{TINY}: {size.width}x{size.height} pixels"))
        if _is_flat(i, size, read):
            odd.append(Odd(i, ONE_COLOUR))
    return sorted(odd)


def far_images(components: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Images whose distance from the nearest class's mean is far beyond that of the others."""
    directions = components[:, : min(_DIRECTIONS, max(len(components) // 4, 2))]
    classes, index = np.unique(labels, return_inverse=True)
    counts = np.bincount(index)
    means = np.zeros((len(classes), directions.shape[1]))
    np.add.at(means, index, directions)
    means /= counts[:, None]
    within = np.maximum((directions - means[index]).std(axis=0), 1e-6)
    scaled, centers = directions / within, means[counts >= 2] / within
    if not len(centers):
        return np.empty(0, "int64")
    squares = (scaled**2).sum(axis=1)[:, None] - 2 * scaled @ centers.T + (centers**2).sum(axis=1)
    distance = np.log(np.maximum(squares.min(axis=1), 1e-6))
    median = np.median(distance)
    deviation = 1.4826 * np.median(np.abs(distance - median))  # of a normal distribution
    return np.flatnonzero(distance > median + _FAR * max(float(deviation), 1e-6))


def _is_flat(index: int, size: Size, read: Read) -> bool:
    """Whether the image has one colour; only a file that is small for its pixels is decoded."""
    if size.bytes > _FLAT_BYTES + _FLAT_SHARE * size.width * size.height:
        return False
    try:
        return bool(cv2.meanStdDev(read(index))[1].max() < _FLAT)
    except ImageError:
        return False


class Alike(NamedTuple):
    """Two classes that cannot be told apart: their ids, and the share that is mistaken."""

    first: int
    second: int
    share: float


def alike_classes(probabilities: np.ndarray, labels: np.ndarray) -> list[Alike]:
    """Classes of which an image is about as often taken for the other one; the worst first.

    Args:
        probabilities: [N, C], from models that have not seen the image.
        labels: int64 [N].
    """
    count = probabilities.shape[1]
    sizes = np.bincount(labels, minlength=count)
    own = probabilities[np.arange(len(labels)), labels]
    mistaken = np.zeros((count, count))  # images of i that look more like j
    for label in np.flatnonzero(sizes >= _ENOUGH):
        rows = labels == label
        mistaken[label] = (probabilities[rows] > own[rows, None]).mean(axis=0)
    share = (mistaken + mistaken.T) / 2
    first, second = np.nonzero(np.triu(share, 1) >= _CONFUSED)
    both = (sizes[first] >= _ENOUGH) & (sizes[second] >= _ENOUGH)
    pairs = zip(first[both].tolist(), second[both].tolist())
    return sorted((Alike(i, j, float(share[i, j])) for i, j in pairs), key=lambda a: -a.share)


def small_classes(labels: np.ndarray, groups: np.ndarray, num_classes: int) -> dict[int, int]:
    """Classes with few different images, with how many they have."""
    counts = groups_per_class(labels, groups, num_classes)
    return {int(i): int(counts[i]) for i in np.flatnonzero(counts < FEW)}
