"""Reads pickles of dicts, lists, numbers and arrays of numbers; runs no code.

A pickle is a program that may call any function it names. This reader answers to the few names by
which arrays are pickled with stand-ins, so that not even numpy's own code for unpickling sees what
is in the file, and refuses every other name.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from typing import Any, BinaryIO, Callable

import numpy as np

from .errors import InputError


class RefusedPickleError(InputError):
    """A pickle that asks for a name which it has no need of; none of it was run."""


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
    content = load(io.BytesIO(data), where, NUMPY_NAMES, encoding="bytes")
    if not isinstance(content, dict):
        raise InputError(f"{where}: a pickled dict was expected; found {type(content).__name__}.")
    return content


def load(
    stream: BinaryIO,
    where: str,
    names: Mapping[tuple[str, str], Any],
    persistent_load: Callable[[Any], Any] | None = None,
    encoding: str = "utf-8",
) -> Any:
    """Loads the next pickle of a stream.

    Args:
        stream: it is left behind the pickle.
        where: the name of its file, for errors.
        names: (module, name) -> the stand-in for it; every other name is refused.
        persistent_load: gives the object that the pickle means by a persistent id.
        encoding: of the str of Python 2; "bytes" keeps them as bytes.

    Raises:
        InputError: it is damaged, or names anything else than `names`.
    """
    try:
        return _Unpickler(stream, names, persistent_load, encoding).load()
    except _ForbiddenNameError as error:
        raise RefusedPickleError(
            f"{where}: refused, as this pickle asks for {error}, which arrays do not need; "
            "none of it was run."
        ) from error
    except Exception as error:  # a damaged pickle can raise anything, says Python's manual
        raise InputError(
            f"{where}: this pickle is damaged ({type(error).__name__}: {one_line(error)})."
        ) from error


class _ForbiddenNameError(Exception):
    """A pickle asks for a name that is not among those it may."""


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


def one_line(what: object) -> str:
    """A text that may quote bytes of a file, as one printable line."""
    text = " ".join(str(what).split())
    return text if text.isprintable() else ascii(text)


NUMPY_NAMES: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # numpy 2
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _PickledDtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def __init__(
        self,
        stream: BinaryIO,
        names: Mapping[tuple[str, str], Any],
        persistent_load: Callable[[Any], Any] | None,
        encoding: str,
    ) -> None:
        super().__init__(stream, encoding=encoding)
        self._names = names
        self._persistent_load = persistent_load

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._names:
            raise _ForbiddenNameError(one_line(f"{module}.{name}"))
        return self._names[module, name]

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent_load is None:
            raise pickle.UnpicklingError("it refers to objects outside of it")
        return self._persistent_load(pid)
