"""Training-time changes against pixels computed by hand, Pillow and OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from squeezenet_paddle.data.augment import (
    Augment,
    TrainTransform,
    adjust_brightness,
    adjust_contrast,
    adjust_saturation,
    random_crop,
    random_resized_crop,
    rotate,
    sample_generator,
)
from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.errors import InputError

IMAGE = np.random.default_rng(0).integers(0, 256, (50, 70, 3), "uint8")


def test_crops_reach_every_position_equally() -> None:
    image = np.arange(6 * 5, dtype="uint8").reshape(6, 5, 1).repeat(3, axis=2)
    corners: dict[int, int] = {}
    for index in range(3000):
        crop = random_crop(image, 3, sample_generator(0, 0, index))
        top, left = divmod(int(crop[0, 0, 0]), 5)
        np.testing.assert_array_equal(crop, image[top : top + 3, left : left + 3])
        corners[top * 5 + left] = corners.get(top * 5 + left, 0) + 1
    assert len(corners) == 4 * 3
    assert min(corners.values()) > 180  # 250 expected
    assert max(corners.values()) < 320


def test_a_crop_of_the_whole_image_is_the_image() -> None:
    square = IMAGE[:, :50]
    np.testing.assert_array_equal(random_crop(square, 50, sample_generator(0, 0, 0)), square)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_right_angles_move_pixels_exactly(turns: int) -> None:
    square = IMAGE[:, :50]
    found = rotate(square, 90.0 * turns, "constant")
    np.testing.assert_array_equal(found, np.rot90(square, turns))


def test_borders_of_a_rotation() -> None:
    white = np.full((21, 21, 3), 200, "uint8")
    for border in ("reflect", "replicate"):
        np.testing.assert_array_equal(rotate(white, 45, border), white)
    filled = rotate(white, 45, "constant", (104, 117, 123))
    np.testing.assert_array_equal(filled[0, 0], [104, 117, 123])
    np.testing.assert_array_equal(filled[10, 10], [200, 200, 200])


def test_no_rotation_changes_nothing() -> None:
    np.testing.assert_array_equal(rotate(IMAGE, 0.0, "reflect"), IMAGE)


def test_brightness_by_hand() -> None:
    image = np.array([[[0, 10, 101], [200, 255, 3]]], "uint8")
    np.testing.assert_array_equal(
        adjust_brightness(image, 1.5),
        [[[0, 15, 152], [255, 255, 4]]],  # 151.5 and 4.5 to even
    )
    np.testing.assert_array_equal(adjust_brightness(image, 0.0), np.zeros((1, 2, 3)))


def test_contrast_by_hand() -> None:
    image = np.array([[[100, 100, 100], [200, 200, 200]]], "uint8")  # mean grey 150
    np.testing.assert_array_equal(adjust_contrast(image, 0.5)[0, :, 0], [125, 175])
    np.testing.assert_array_equal(adjust_contrast(image, 2.0)[0, :, 0], [50, 250])
    np.testing.assert_array_equal(adjust_contrast(image, 0.0)[0, :, 0], [150, 150])
    np.testing.assert_array_equal(adjust_contrast(image, 5.0)[0, :, 0], [0, 255])


def test_saturation_by_hand() -> None:
    image = np.array([[[255, 0, 0]]], "uint8")  # blue, whose grey is 29
    np.testing.assert_array_equal(adjust_saturation(image, 0.0)[0, 0], [29, 29, 29])
    np.testing.assert_array_equal(adjust_saturation(image, 0.5)[0, 0], [142, 14, 14])
    np.testing.assert_array_equal(adjust_saturation(image, 1.0), image)


@pytest.mark.parametrize(
    ("adjust", "pillow"),
    [
        (adjust_brightness, ImageEnhance.Brightness),
        (adjust_contrast, ImageEnhance.Contrast),
        (adjust_saturation, ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize("factor", [0.4, 1.0, 1.6])
def test_jitter_is_pillows(adjust, pillow, factor: float) -> None:
    """torchvision's jitter is Pillow's, which cuts where we round and rounds grey another way."""
    expected = np.asarray(pillow(Image.fromarray(IMAGE[:, :, ::-1])).enhance(factor))[:, :, ::-1]
    found = adjust(IMAGE, factor)
    assert np.abs(found.astype(int) - expected).max() <= 2


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 10**6))
def test_any_image_gives_a_resized_crop(height: int, width: int, index: int) -> None:
    image = np.zeros((height, width, 3), "uint8")
    rng = sample_generator(0, 0, index)
    crop = random_resized_crop(image, 16, (0.08, 1.0), (3 / 4, 4 / 3), cv2.INTER_LINEAR, rng)
    assert crop.shape == (16, 16, 3)


def test_areas_and_proportions_of_resized_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    windows = []
    monkeypatch.setattr(cv2, "resize", lambda window, *_, **__: windows.append(window.shape))
    image = np.zeros((400, 400, 3), "uint8")
    for index in range(1000):
        rng = sample_generator(0, 0, index)
        random_resized_crop(image, 16, (0.25, 0.5), (0.5, 2.0), cv2.INTER_LINEAR, rng)
    areas = np.array([h * w / 160_000 for h, w, _ in windows])
    ratios = np.array([w / h for h, w, _ in windows])
    assert 0.248 < areas.min() < 0.27
    assert 0.48 < areas.max() < 0.502
    assert 0.49 < ratios.min() < 0.55
    assert 1.85 < ratios.max() < 2.03
    assert abs(np.median(ratios) - 1) < 0.1  # as many wide as tall


def transformed(augment: Augment, epoch: int = 0, index: int = 0, **options) -> np.ndarray:
    transform = TrainTransform(Preprocess(**options), augment, seed=5)
    out = np.empty(transform.shape, "float32")
    transform(IMAGE, epoch, index, out)
    return out


def test_a_sample_is_a_function_of_seed_epoch_and_index() -> None:
    augment = Augment(rotation=10, brightness=0.3)
    first = transformed(augment, epoch=1, index=2)
    np.testing.assert_array_equal(first, transformed(augment, epoch=1, index=2))
    for epoch, index in ((1, 3), (2, 2), (2, 1)):
        assert (transformed(augment, epoch, index) != first).any()


def test_without_freedom_training_sees_what_evaluation_sees() -> None:
    preprocess = Preprocess(resize_size=227)
    found = transformed(Augment(flip=0.0), resize_size=227)
    np.testing.assert_array_equal(found, preprocess(IMAGE))
    mirrored = transformed(Augment(flip=1.0), resize_size=227)
    np.testing.assert_array_equal(mirrored, preprocess(IMAGE)[:, :, ::-1])


@pytest.mark.parametrize("size", [224, 227])
@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
def test_a_sample_is_a_mirrored_or_plain_window_of_the_resized_image(
    size: int, data_format: str
) -> None:
    resized = cv2.resize(IMAGE, (256, 256), interpolation=cv2.INTER_CUBIC)
    values = resized.astype("float32") - np.array([104, 117, 123], "float32")
    flips = 0
    for index in range(40):
        out = transformed(Augment(), index=index, crop_size=size, data_format=data_format)
        sample = out.transpose(1, 2, 0) if data_format == "NCHW" else out
        flipped, _, _ = next(
            (mirror, top, left)
            for mirror in (False, True)
            for top in range(257 - size)
            for left in range(257 - size)
            if (values[top, left : left + size][:: -1 if mirror else 1][0] == sample[0, 0]).all()
            and (
                values[top : top + size, left : left + size][:, :: -1 if mirror else 1] == sample
            ).all()
        )
        flips += flipped
    assert 10 < flips < 30


def test_jitter_comes_in_every_order() -> None:
    """Brightness, contrast and saturation do not commute, so the order shows."""
    transform = TrainTransform(
        Preprocess(resize_size=50, crop_size=50), Augment(0, brightness=0.9, saturation=0.9), 0
    )
    orders = set()
    for index in range(20):
        rng = sample_generator(0, 0, index)
        found = transform.augmented(IMAGE, rng)
        rng = sample_generator(0, 0, index)
        for _ in range(3):
            rng.random()  # two of the crop, one of the flip
        first = int(rng.random() * 2)
        a = 0.1 + 1.8 * rng.random()
        rng.random()
        b = 0.1 + 1.8 * rng.random()
        image = cv2.resize(IMAGE, (50, 50), interpolation=cv2.INTER_CUBIC)
        steps = [(adjust_brightness, a), (adjust_saturation, b)]
        if first == 1:
            steps = [(adjust_saturation, a), (adjust_brightness, b)]
        for adjust, factor in steps:
            image = adjust(image, factor)
        np.testing.assert_array_equal(found, image)
        orders.add(first)
    assert orders == {0, 1}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("flip", 1.5),
        ("rotation", -1),
        ("rotation", 181),
        ("border", "wrap"),
        ("brightness", -0.1),
        ("contrast", float("nan")),
        ("saturation", float("inf")),
        ("crop_scale", (0.0, 1.0)),
        ("crop_scale", (0.9, 0.8)),
        ("crop_ratio", (2.0, 1.0)),
    ],
)
def test_settings_that_cannot_be(field: str, value: object) -> None:
    with pytest.raises(InputError, match=f"^`{field}`: "):
        Augment(**{field: value})


def test_a_resized_crop_of_an_endless_image_can_be_turned() -> None:
    """OpenCV turns nothing with a side of 32,767 pixels or more."""
    transform = TrainTransform(
        Preprocess(resize_size=32, crop_size=32), Augment(rotation=10, resized_crop=True)
    )
    picture = np.zeros((2, 40_000, 3), "uint8")
    assert transform.augmented(picture, sample_generator(0, 0, 0)).shape == (32, 32, 3)
