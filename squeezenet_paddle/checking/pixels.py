"""Compares the pixels of two images: are they the same, or one made from the other?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

import cv2
import numpy as np

from ..files import sha256

PIXELS, NEAR = "same pixels", "nearly the same"
Read = Callable[[int], np.ndarray]  # the index of an image -> uint8 [H, W, 3]
COARSE = 16  # pixels a side of the first, coarse look

_LEAST_COARSE = 0.6  # correlation of the coarse looks
_SIDE, _FINE_SIDE = 64, 128  # pixels: for the alignment; for the comparison, if both are as large
_LEAST_ALIGNED = 0.8  # correlation of the middle of one with its best place in the other
_LEAST_WHOLE = 0.9  # correlation of the aligned images
_LEAST_DETAIL, _LEAST_FINE_DETAIL = 0.82, 0.975  # of their details; different cups reach 0.966
_SCALES = (0.93, 0.965, 1.0, 1.036, 1.075)  # that are tried first
_MOST_SCALED, _MOST_SHEARED = 0.12, 0.03  # another view of an object needs more
_EDGE = 0.1  # share of the side that is not compared: a crop lacks it


def coarse_look(image: np.ndarray) -> np.ndarray:
    """The image in 16 x 16 grey values of mean 0 and length 1: float32 [256]."""
    return _normed(_grey(image, COARSE).astype("float32"))


def are_alike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Whether coarse looks [N, 256] have much in common, one of them mirrored or not: bool [N]."""
    mirrored = b.reshape(-1, COARSE, COARSE)[:, :, ::-1].reshape(b.shape)
    straight, across = (np.einsum("nk,nk->n", a, each) for each in (b, mirrored))
    one_coloured = ~a.any(axis=1) & ~b.any(axis=1)
    return (np.maximum(straight, across) >= _LEAST_COARSE) | one_coloured


@dataclass(frozen=True)
class Look:
    """What is kept of an image for a close comparison.

    Attributes:
        pixels: a checksum of its size and pixels.
        small: uint8 [64, 64], grey.
        fine: uint8 [128, 128], grey; None of an image that is smaller.
    """

    pixels: str
    small: np.ndarray
    fine: np.ndarray | None

    @staticmethod
    def of(image: np.ndarray) -> Look:
        checksum = sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes())
        fine = _grey(image, _FINE_SIDE) if min(image.shape[:2]) >= _FINE_SIDE else None
        return Look(checksum, _grey(image, _SIDE), fine)


def kind_of(a: Look, b: Look) -> str | None:
    """`PIXELS`, `NEAR`, or None where these are two images."""
    if a.pixels == b.pixels:
        return PIXELS
    for flip in (slice(None), slice(None, None, -1)):
        other = np.ascontiguousarray(b.small[:, flip])
        warp = _alignment(a.small, other)
        if warp is None:
            continue
        mine, least = a.small, _LEAST_DETAIL
        if a.fine is not None and b.fine is not None:
            mine, least = a.fine, _LEAST_FINE_DETAIL
            other = np.ascontiguousarray(b.fine[:, flip])
            warp[:, 2] *= _FINE_SIDE / _SIDE
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
    margin = _SIDE // 8
    middle = a[margin:-margin, margin:-margin]
    best, warp = _LEAST_ALIGNED, None
    for scale in _SCALES:
        side = round(_SIDE * scale)
        found = cv2.matchTemplate(_resized(b, side), middle, cv2.TM_CCOEFF_NORMED)
        _, value, _, (x, y) = cv2.minMaxLoc(found)
        if value > best:
            ratio = _SIDE / side
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
