"""Frames of a video file or of a camera, by OpenCV."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, TypeVar

import cv2
import numpy as np

from ..errors import InputError
from ..file_kinds import START, image_kind
from .decode import MAX_PIXELS
from .remarks import as_remarks

T = TypeVar("T")

EVERY = ("second", "frame")


@dataclass(frozen=True)
class Frame:
    """A frame.

    Attributes:
        number: counted from 0.
        seconds: since the start.
        image: uint8 [H, W, 3], BGR.
    """

    number: int
    seconds: float
    image: np.ndarray


def video_frames(file: Path, every: str = "second") -> Iterator[Frame]:
    """The frames of a video file, upright.

    Args:
        file: of a format that OpenCV reads.
        every: "frame", or "second" for the first frame of each.

    Raises:
        InputError: there is no such file, it is a still image, or it has no frame that can be read.
    """
    if not file.is_file():
        raise InputError(f"`video` {file}: no such file.")
    with file.open("rb") as content:
        kind = image_kind(content.read(START))

    def quietly(read: Callable[[], T]) -> T:
        with as_remarks(str(file)):
            return read()

    capture = quietly(lambda: _opened(file))
    try:
        if kind is not None:  # which FFmpeg takes for a video of one frame
            if not quietly(lambda: capture.grab() and capture.grab()):
                raise InputError(
                    f"`video` {file}: this is a still {kind} image; `image` classifies it."
                )
            capture.release()
            capture = quietly(lambda: _opened(file))
        size = [capture.get(side) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
        if size[0] * size[1] > MAX_PIXELS:
            raise InputError(
                f"`video` {file}: frames of {size[0]:.0f}x{size[1]:.0f} pixels are over the limit "
                f"of {MAX_PIXELS:,}."
            )
        rate = capture.get(cv2.CAP_PROP_FPS)
        number, due, found = 0, 0.0, False
        while quietly(capture.grab):
            at = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            if at <= 0 < number and rate > 0:  # some formats do not tell the time
                at = number / rate
            if every == "frame" or at >= due:
                is_good, image = quietly(capture.retrieve)
                if is_good:
                    found = True
                    due = float(int(at) + 1)
                    yield Frame(number, at, image)
            number += 1
        if not found:
            raise InputError(f"`video` {file}: no frame of it can be read as a video.")
    finally:
        capture.release()


def _opened(file: Path) -> cv2.VideoCapture:
    """The first of OpenCV's readers that takes the file, but the one of single images."""
    capture = cv2.VideoCapture()
    for reader in cv2.videoio_registry.getStreamBackends():
        if reader != cv2.CAP_IMAGES and capture.open(str(file), reader):
            break
    return capture


def camera_frames(index: int, every: str = "second") -> Iterator[Frame]:
    """The frames of a camera, until it ends.

    Args:
        index: of the camera, 0 for the first.
        every: "frame", or "second" for the latest frame in each.

    Raises:
        InputError: there is no such camera.
    """
    capture = cv2.VideoCapture(index)
    try:
        if not capture.isOpened():
            raise InputError(f"`camera` {index}: there is no such camera, or it may not be read.")
        start, number, due = time.monotonic(), 0, 0.0
        while capture.grab():
            at = time.monotonic() - start
            if every == "frame" or at >= due:
                is_good, image = capture.retrieve()
                if is_good:
                    due = float(int(at) + 1)
                    yield Frame(number, at, image)
            number += 1
    finally:
        capture.release()
