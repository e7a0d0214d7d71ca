"""Reads pickled dicts of lists, numbers, bytes and numpy arrays, and runs no code.

A pickle is a program that may call any function it names. This reader knows only the names by which
numpy arrays are pickled and replaces them with stand-ins, so that not even numpy's own code for
unpickling sees the contents of the file.
"""

from __future__ import annotations

import io
import pickle

import numpy as np

from .errors import InputError

_NUMBERS = ("u1", "f2", "f4", "f8")


class PickledArray:
    """Stands in for numpy.ndarray.

    Attributes:
        values: the array; None unless it holds uint8 or floats.
    """

    values: np.ndarray | None = None

    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, is_fortran, data = state
        if dtype.name in _NUMBERS:
            values = np.frombuffer(data, dtype.byte_order + dtype.name)
            self.values = values.reshape(shape, order="F" if is_fortran else "C")


def load_dict(data: bytes, where: str) -> dict:
    """Loads a pickled dict.

    Args:
        data: the pickle; a str of Python 2 becomes bytes.
        where: the name of its file, for errors.

    Raises:
        InputError: it is damaged, is no dict, or names something that numpy arrays do not need.
    """
    try:
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except _ForbiddenNameError as error:
        raise InputError(
            f"{where}: refused, as this pickle asks for {error}, which arrays do not need; "
            "none of it was run."
        ) from error
    except Exception as error:  # a damaged pickle can raise any exception, says Python's manual
        raise InputError(
            f"{where}: this pickle is damaged ({type(error).__name__}: {error})."
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{where}: a pickled dict was expected; found {type(content).__name__}.")
    return content


class _ForbiddenNameError(Exception):
    """A pickle asks for a name that is not in `_STAND_INS`."""


class _PickledDtype:
    """Stands in for numpy.dtype."""

    def __init__(self, name: str | bytes, align: object, copy: object) -> None:
        self.name = _text(name)
        self.byte_order = "="

    def __setstate__(self, state: tuple) -> None:
        self.byte_order = _text(state[1])


def _reconstruct(array_type: object, shape: object, dtype: object) -> PickledArray:
    """Stands in for numpy's function: makes an array, whose state comes next."""
    return PickledArray()


def _encode(text: str, encoding: object) -> bytes:
    """Stands in for _codecs.encode, by which old protocols store bytes."""
    return text.encode("latin1")


def _text(name: str | bytes) -> str:
    """A name as str; that of a Python 2 pickle is bytes."""
    return name.decode() if isinstance(name, bytes) else name


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # numpy 2
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _PickledDtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _STAND_INS:
            raise _ForbiddenNameError(f"{module}.{name}")
        return _STAND_INS[module, name]
