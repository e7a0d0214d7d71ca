"""Odd images and classes, among points whose classes are known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from squeezenet_paddle.checking.oddities import (
    FAR,
    ONE_COLOUR,
    alike_classes,
    far_images,
    odd_images,
    sizes_of,
    small_classes,
)
from squeezenet_paddle.data.decode import read_image


def points(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    x = 4 * rng.standard_normal((classes, 30))[labels] + rng.standard_normal((count, 30))
    return x.astype("float32"), labels


def test_images_far_from_every_class_are_found_and_no_others() -> None:
    x, labels = points(500, 4)
    x[[3, 77]] += 9 * np.random.default_rng(1).standard_normal((2, 30))
    assert far_images(x, labels).tolist() == [3, 77]
    few, few_labels = points(12, 2)
    assert not len(far_images(few, few_labels))


def test_odd_files_are_told_by_their_sizes_and_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (90, 120, 3), "uint8") for _ in range(40)]
    images[5] = np.full((90, 120, 3), 200, "uint8")
    images[6] = images[5].copy()
    images[6][:45] = 20  # two colours
    images[7] = images[7][:12, :18]
    paths = [tmp_path / f"{n}.png" for n in range(40)]
    for path, image in zip(paths, images):
        cv2.imwrite(str(path), image)
    x, labels = points(40, 2)
    x[9] += 60
    odd = odd_images(x, labels, sizes_of(paths), lambda i: read_image(paths[i]))
    assert [tuple(each) for each in odd] == [
        *((5, ONE_COLOUR), (7, "tiny: 18x12 pixels"), (9, FAR)),
    ]
    paths[0].write_bytes(b"no image")
    assert sizes_of(paths)[0] is None


def test_classes_that_are_guessed_are_alike() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 100)
    probabilities = np.full((300, 3), 0.1)
    probabilities[labels == 2, 2] = 0.8
    first = rng.random(200) < 0.5  # of classes 0 and 1, half is taken for the other one
    probabilities[:200][first, 0], probabilities[:200][~first, 1] = 0.8, 0.8
    found = alike_classes(probabilities, labels)
    assert [(each.first, each.second) for each in found] == [(0, 1)]
    assert 0.4 < found[0].share < 0.6


def test_duplicates_do_not_make_a_class_large() -> None:
    labels = np.repeat([0, 1], 30)
    groups = np.arange(60)
    groups[30:] = groups[30:] // 3 * 3
    assert small_classes(labels, groups, 3) == {1: 10, 2: 0}
