"""Compares the pixels of two images: are they the same, or one made from the other?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import cv2
import numpy as np

from ..data.decode import MAX_PIXELS, decode, read_file
from ..files import sha256

PIXELS, NEAR = "same pixels", "nearly the same"
Read = Callable[[int], np.ndarray]  # the index of an image -> uint8 [H, W, 3]
REDUCED = 256  # pixels
SIDE, COARSE = 64, 16  # pixels a side of a small look, and of what is compared first

_PAIRS = 100_000  # that are compared at once
_FLIPS = slice(None), slice(None, None, -1)
_LEAST_COARSE = 0.6  # correlation of the 16 x 16 pixels
_FINE_SIDE = 128  # pixels a side of the comparison, if both images are as large
_LEAST_ALIGNED = 0.8  # correlation of the middle of one with its best place in the other
_LEAST_WHOLE = 0.9  # correlation of the aligned images
_LARGE, _LEAST_COSINE = 48, 0.45  # pixels a side; the features' cosine that such images need
# Correlations of their details, by the shorter side of the smaller one, as a stored-again image of
# few pixels keeps few of them; different cups of ETH-80, of 256 pixels, reach 0.966.
_LEAST_DETAIL = ((_LARGE, 0.82), (_FINE_SIDE, 0.93), (1 << 31, 0.975))
_SCALES = (0.93, 0.965, 1.0, 1.036, 1.075)  # that are tried first
_MOST_SCALED, _MOST_SHEARED = 0.12, 0.03  # another view of an object needs more
_EDGE = 0.1  # share of the side that is not compared: a crop lacks it


def read_reduced(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads an image of at least `REDUCED` pixels a side; a JPEG file at a quarter of its size.

    Raises:
        ImageError: as `decode`.
    """
    return decode(read_file(path), str(path), max_pixels, reduced=4)


def small_look(image: np.ndarray) -> np.ndarray:
    """The image in grey, uint8 [64, 64]."""
    return _grey(image, SIDE)


def are_alike(small: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Whether pairs of small looks have much in common, one of them mirrored or not.

    Args:
        small: uint8 [N, 64, 64].
        pairs: int64 [P, 2], indices of these.

    Returns:
        bool [P]; two images of one colour are alike.
    """
    coarse = np.zeros((len(small), COARSE * COARSE), "float32")
    for k, each in enumerate(small):
        coarse[k] = _normed(_resized(each, COARSE).astype("float32"))
    mirrored = coarse.reshape(-1, COARSE, COARSE)[:, :, ::-1].reshape(coarse.shape)
    alike = np.empty(len(pairs), bool)
    for start in range(0, len(pairs), _PAIRS):
        first, second = pairs[start : start + _PAIRS].T
        straight = np.einsum("nk,nk->n", coarse[first], coarse[second])
        across = np.einsum("nk,nk->n", coarse[first], mirrored[second])
        flat = ~coarse[first].any(axis=1) & ~coarse[second].any(axis=1)
        alike[start : start + _PAIRS] = (np.maximum(straight, across) >= _LEAST_COARSE) | flat
    return alike


def can_be_aligned(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether a scale and shift bring one small look onto the other, mirrored or not."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return bool(np.ptp(a) == np.ptp(b))
    return any(_alignment(a, np.ascontiguousarray(b[:, flip])) is not None for flip in _FLIPS)


@dataclass(frozen=True)
class Look:
    """What is kept of an image for a close comparison.

    Attributes:
        pixels: a checksum of its size and pixels.
        side: the shorter one, in pixels.
        small: uint8 [64, 64], grey.
        fine: uint8 [128, 128], grey; None of an image that is smaller.
    """

    pixels: str
    side: int
    small: np.ndarray
    fine: np.ndarray | None

    @staticmethod
    def of(image: np.ndarray) -> Look:
        checksum = sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes())
        side = min(image.shape[:2])
        fine = _grey(image, _FINE_SIDE) if side >= _FINE_SIDE else None
        return Look(checksum, side, _grey(image, SIDE), fine)


def kind_of(a: Look, b: Look, cosine: float = 1.0) -> str | None:
    """`PIXELS`, `NEAR`, or None where these are two images.

    Args:
        a, b: the images.
        cosine: of their features; small images are less like their copies than large ones.
    """
    if a.pixels == b.pixels:
        return PIXELS
    side = min(a.side, b.side)
    if side >= _LARGE and cosine < _LEAST_COSINE:
        return None
    least = next(least for below, least in _LEAST_DETAIL if side < below)
    for flip in _FLIPS:
        other = np.ascontiguousarray(b.small[:, flip])
        warp = _alignment(a.small, other)
        if warp is None:
            continue
        mine = a.small
        if a.fine is not None and b.fine is not None:
            mine = a.fine
            other = np.ascontiguousarray(b.fine[:, flip])
            warp[:, 2] *= _FINE_SIDE / SIDE
        if _agree(mine, other, warp, least):
            return NEAR
    return None


def _alignment(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """The scale and shift that bring `b` [64, 64] onto `a`, float32 [2, 3]; None if none does.

    The best of a few scales is found by its correlation (template matching), and made exact by
    Evangelidis and Psarakis' method (OpenCV's findTransformECC).
    """
    if _correlation(_resized(a, COARSE), _resized(b, COARSE)) < _LEAST_COARSE:
        return None
    margin = SIDE // 8
    middle = a[margin:-margin, margin:-margin]
    best, warp = _LEAST_ALIGNED, None
    for scale in _SCALES:
        side = round(SIDE * scale)
        found = cv2.matchTemplate(_resized(b, side), middle, cv2.TM_CCOEFF_NORMED)
        _, value, _, (x, y) = cv2.minMaxLoc(found)
        if value > best:
            ratio = SIDE / side
            shift = (x - margin) * ratio, (y - margin) * ratio
            best, warp = value, np.array([[ratio, 0, shift[0]], [0, ratio, shift[1]]], "float32")
    if warp is None:
        return None
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 15, 1e-3)
    try:
        _, warp = cv2.findTransformECC(a, b, warp, cv2.MOTION_AFFINE, stop, None, 5)
    except cv2.error:  # it does not converge
        return None
    change = np.abs(warp[:, :2] - np.eye(2))
    if change.max() > _MOST_SCALED or max(change[0, 1], change[1, 0]) > _MOST_SHEARED:
        return None
    return warp


def _agree(a: np.ndarray, b: np.ndarray, warp: np.ndarray, least: float) -> bool:
    """Whether `a` and the aligned `b` have the same contents and the same details."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    aligned = cv2.warpAffine(b, warp, a.shape[::-1], flags=flags, borderMode=cv2.BORDER_REFLECT)
    edge = round(_EDGE * len(a))
    inner = slice(edge, -edge), slice(edge, -edge)
    return (
        _correlation(a[inner], aligned[inner]) >= _LEAST_WHOLE
        and _correlation(_details(a)[inner], _details(aligned)[inner]) >= least
    )


def _details(image: np.ndarray) -> np.ndarray:
    """What is larger than the noise of a compression and smaller than shapes and shades."""
    image = cv2.GaussianBlur(image.astype("float32"), (0, 0), 1)
    return image - cv2.GaussianBlur(image, (0, 0), 3)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(_normed(a.astype("float32")) @ _normed(b.astype("float32")))


def _normed(values: np.ndarray) -> np.ndarray:
    """The values, flat, with mean 0 and length 1; zeros where all are equal."""
    values = values.ravel() - values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-6)


def _grey(image: np.ndarray, side: int) -> np.ndarray:
    return _resized(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), side)


def _resized(image: np.ndarray, side: int) -> np.ndarray:
    shrinks = min(image.shape[:2]) >= side
    kind = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (side, side), interpolation=kind)
