"""Reads the mean of a training set, as Caffe (.binaryproto), pycaffe and DIGITS (.npy) keep it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..array_files import read_npy
from ..errors import InputError
from ..file_kinds import kind_of
from ..files import read_bytes
from .reader import read_blob

LARGEST_SIDE = 4096


def read_mean(path: Path) -> np.ndarray:
    """The mean image of a training set.

    Args:
        path: a .binaryproto file, or a .npy file of the same; a .npy file may also hold three
            numbers.

    Returns:
        float32 [3, H, W] in the order B, G, R; H and W are 1 where the file holds three numbers.

    Raises:
        InputError: it cannot be read, or is no mean of colour images.
    """
    data = read_bytes(path, "mean file")
    if data.startswith(b"\x93NUMPY"):
        values = read_npy(data, str(path))
    else:
        values = _blob(data, str(path))
    shape = values.shape
    if values.ndim == 4 and shape[0] == 1:
        values = values[0]
    if values.ndim == 1:
        values = values.reshape(-1, 1, 1)
    if values.ndim == 3 and values.shape[0] == 1 and values.dtype.kind in "fiu":
        raise InputError(f"{path}: the mean of grey images; only colour (3 channels) is supported.")
    if values.dtype.kind not in "fiu" or values.ndim != 3 or values.shape[0] != 3:
        raise InputError(
            f"{path}: a mean of 3 channels (3 x height x width) was expected, found "
            f"{'x'.join(map(str, shape)) or 'one value'} of {values.dtype}."
        )
    if not 0 < min(values.shape) <= max(values.shape) <= LARGEST_SIDE:
        raise InputError(f"{path}: a mean image of {values.shape[2]}x{values.shape[1]} pixels.")
    check_mean(values, str(path))
    return values.astype("float32")


def check_mean(values: np.ndarray, where: str) -> None:
    """Refuses a mean of pixels that no pixels can have.

    Raises:
        InputError: a value is not within 0 to 255.
    """
    wrong = ~((values >= 0) & (values <= 255))
    if wrong.any():
        raise InputError(
            f"{where}: a mean of pixels lies within 0 to 255, found {float(values[wrong][0]):g}."
        )


def _blob(data: bytes, name: str) -> np.ndarray:
    kind = kind_of(data)
    if kind != "a Caffe blob, as mean.binaryproto is":
        raise InputError(f"{name}: a mean file (.binaryproto or .npy) was expected, found {kind}.")
    return read_blob(data, name)
