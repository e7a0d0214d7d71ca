"""Reads numpy's .npy and .npz files that somebody else may have made; runs no code in them.

numpy makes room for as many numbers as a file says that it holds, before it looks for them; so that
is compared with the bytes that are there.
"""

from __future__ import annotations

import io
import math
import zipfile
from typing import Any

import numpy as np

from .errors import InputError
from .safe_pickle import one_line


def read_npy(data: bytes, where: str) -> np.ndarray:
    """The array in a .npy file.

    Args:
        data: the file.
        where: what errors call it.

    Raises:
        InputError: it is damaged, or holds objects of Python.
    """
    try:
        return _array(data)
    except Exception as error:  # numpy parses the header as Python, which can raise anything
        raise InputError(f"{where}: this .npy file is damaged ({one_line(error)}).") from error


def read_npz(data: bytes, where: str) -> dict[str, np.ndarray]:
    """The arrays in an .npz file by their names, as np.savez writes them: not compressed.

    Args:
        data: the file.
        where: what errors call it.

    Raises:
        InputError: it is damaged, compressed, or holds objects of Python.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > len(data):
                raise ValueError("it is compressed, or parts of it are used twice")
            return {
                entry.filename.removesuffix(".npy"): _array(archive.read(entry))
                for entry in entries
            }
    except Exception as error:  # zipfile and numpy raise many
        raise InputError(f"{where}: this .npz file is damaged ({one_line(error)}).") from error


def _array(data: bytes) -> np.ndarray:
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read_header: Any = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }[version]
    shape, is_fortran, dtype = read_header(stream)
    values = stream.read()
    if dtype.hasobject or not dtype.itemsize or math.prod(shape) * dtype.itemsize != len(values):
        raise ValueError(f"{dtype} of the shape {list(shape)} in {len(values)} bytes")
    return np.frombuffer(values, dtype).reshape(shape, order="F" if is_fortran else "C").copy()
