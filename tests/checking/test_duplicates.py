"""Duplicates: exact ones, near ones, and none where images differ."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from squeezenet_paddle.checking.duplicates import BYTES, Pair, find_duplicates, joined, near_pairs
from squeezenet_paddle.checking.pixels import NEAR, PIXELS, Look, kind_of, read_reduced
from squeezenet_paddle.data import decode
from squeezenet_paddle.datasets.samples import CLASSES, draw


def drawn(number: int, side: int = 160) -> np.ndarray:
    image = draw(*CLASSES[number % len(CLASSES)], np.random.default_rng(number))
    return cv2.resize(image, (side, side + 20), interpolation=cv2.INTER_AREA)


def stored_again(image: np.ndarray, quality: int = 60) -> np.ndarray:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)


def scaled(image: np.ndarray, factor: float) -> np.ndarray:
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def cropped(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return image[round(0.05 * height) :, : width - round(0.05 * width)]


MADE = {
    "JPEG 60": stored_again,
    "half": lambda image: scaled(image, 0.5),
    "larger": lambda image: cv2.resize(image, None, fx=1.3, fy=1.3),
    "cropped": cropped,
    "mirrored": lambda image: image[:, ::-1],
}


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
@pytest.mark.parametrize("side", [48, 160, 300])
def test_an_image_made_from_another_one_is_nearly_the_same(made, side: int) -> None:
    found = [kind_of(Look.of(drawn(n, side)), Look.of(made(drawn(n, side)))) for n in range(12)]
    assert found.count(NEAR) >= 11


@pytest.mark.parametrize("side", [48, 160])
def test_images_of_one_class_are_different(side: int) -> None:
    looks = [Look.of(drawn(10 * n, side)) for n in range(12)]
    assert not [1 for i in range(12) for j in range(i) if kind_of(looks[i], looks[j])]


def test_equal_pixels_are_told_from_nearly_equal_ones() -> None:
    image = drawn(0)
    assert kind_of(Look.of(image), Look.of(image.copy())) == PIXELS
    assert kind_of(Look.of(image), Look.of(stored_again(image, 95))) == NEAR


def test_pairs_and_groups_of_a_set() -> None:
    images = [drawn(n) for n in range(30)]
    images += [images[3], images[4], stored_again(images[5]), images[6][:, ::-1]]
    hashes = [f"{n}" for n in range(len(images))]
    hashes[30] = hashes[3]  # the same file; image 31 has the pixels of image 4 in another file
    components = np.random.default_rng(0).standard_normal((34, 64)).astype("float32")
    components[30:] = components[3:7] + 0.01
    found = find_duplicates(components, hashes, lambda i: images[i])
    assert found.pairs == [
        *(Pair(3, 30, BYTES), Pair(4, 31, PIXELS), Pair(5, 32, NEAR), Pair(6, 33, NEAR)),
    ]
    assert [each.tolist() for each in found.sets()] == [[3, 30], [4, 31], [5, 32], [6, 33]]
    assert found.groups[:3].tolist() == [0, 1, 2]


def test_one_coloured_images_are_duplicates_only_if_their_pixels_are_equal() -> None:
    images = [np.full((40, 40, 3), value, "uint8") for value in (7, 7, 90)]
    components = np.ones((3, 8), "float32") + np.eye(3, 8, dtype="float32") * 1e-3
    found = find_duplicates(components, ["a", "b", "c"], lambda i: images[i])
    assert [(p.first, p.second) for p in found.pairs if p.kind == NEAR] == []
    assert {(p.first, p.second) for p in found.pairs} <= {(0, 1)}


def test_near_pairs_are_those_of_the_whole_matrix() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2500, 20)).astype("float32")
    x[2000:2100] = x[:100] + 0.05 * rng.standard_normal((100, 20))
    found, cosines = near_pairs(x)
    pairs = {tuple(pair) for pair in found.tolist()}
    assert all((i, 2000 + i) in pairs for i in range(100))
    y = x / x.std(axis=0)
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    assert all(y[i] @ y[j] >= 0.39 and i < j for i, j in pairs)
    np.testing.assert_allclose(cosines, np.sum(y[found[:, 0]] * y[found[:, 1]], 1), atol=1e-3)


def test_small_images_at_half_their_size_are_near() -> None:
    """Which have a cosine of 0.42 with their originals, where unlike images have 0.0 +- 0.09."""
    rng = np.random.default_rng(0)
    x = np.linalg.qr(rng.standard_normal((1000, 128)))[0].astype("float32")
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    other = x[1] - (x[1] @ x[0]) * x[0]
    x[1] = 0.42 * x[0] + np.sqrt(1 - 0.42**2) * other / np.linalg.norm(other)
    assert (0, 1) in {tuple(pair) for pair in near_pairs(x)[0].tolist()}
    for side, found in ((32, NEAR), (64, None)):  # where large images have to be nearer
        image = drawn(0, side)
        assert kind_of(Look.of(image), Look.of(stored_again(image)), 0.42) == found
        assert kind_of(Look.of(image), Look.of(stored_again(image)), 0.46) == NEAR


def test_groups_are_those_that_pairs_connect() -> None:
    assert joined(6, [(4, 1), (1, 3), (0, 5)]).tolist() == [0, 1, 2, 1, 1, 0]
    assert joined(3, []).tolist() == [0, 1, 2]
    assert find_duplicates(np.ones((1, 4), "float32"), ["a"], lambda i: drawn(0)).pairs == []


def test_the_users_limit_of_pixels_holds_for_the_first_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decode.decode, "__defaults__", (1000,))
    cv2.imwrite(str(tmp_path / "a.png"), drawn(0, 300))
    assert read_reduced(tmp_path / "a.png", 10**6).shape == (320, 300, 3)
