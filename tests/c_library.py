"""C code that was exported, built and called from Python."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

NATIVE = ("-O1", "-march=native")
PIXELS = (
    *NATIVE,
    "-DSQZ_PLAIN",
)  # where the network does not matter: compiles in a third of the time
STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
_NUMBERS = itertools.count()


def missing(name: str) -> None:
    """Skips the test, or fails it where nothing may be missing."""
    reason = f"{name} is not installed"
    if os.environ.get("SQUEEZENET_REQUIRE_ASSETS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def tool(name: str) -> str:
    """A program of the system; the test skips where it is missing."""
    path = shutil.which(name)
    if path is None:
        missing(name)
    return str(path)


def compile_c(compiler: str, *arguments: object) -> None:
    """Runs a compiler, without a warning."""
    done = subprocess.run(
        [tool(compiler), *STRICT, *map(str, arguments), "-lm"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


class _Result(ctypes.Structure):
    _fields_ = [("class_id", ctypes.c_int), ("probability", ctypes.c_float)]


class CNet:
    """The network of a folder of C code.

    Args:
        folder: what `export.c.write` wrote.
        shape: of the input.
        classes: how many there are.
        flags: for the compiler.
    """

    def __init__(
        self,
        folder: Path,
        shape: tuple[int, ...],
        classes: int,
        compiler: str = "gcc",
        flags: tuple[str, ...] = NATIVE,
    ) -> None:
        library = folder.parent / f"{folder.name}{next(_NUMBERS)}.so"  # a name is loaded once
        compile_c(compiler, *flags, "-shared", "-fPIC", "-o", library, folder / "squeezenet.c")
        self._shape, self._classes = shape, classes
        self.c = ctypes.CDLL(str(library))
        self.c.sqz_arena_bytes.restype = ctypes.c_size_t
        self.c.sqz_familiarity.restype = ctypes.c_double
        self.c.sqz_message.restype = self.c.sqz_name.restype = ctypes.c_char_p
        self._arena = ctypes.create_string_buffer(self.c.sqz_arena_bytes())
        self.net = ctypes.c_void_p()
        assert self.load((folder / "model.sqz").read_bytes()) == 0

    def load(self, data: bytes) -> int:
        """The error code of a weights file."""
        size = ctypes.c_size_t(len(self._arena))
        return self.c.sqz_load(
            ctypes.byref(self.net), data, ctypes.c_size_t(len(data)), self._arena, size
        )

    def preprocess(self, rgb: np.ndarray) -> np.ndarray:
        """The input of an image, uint8 [H, W, 3]."""
        out = np.empty(self._shape, "float32")
        assert self.c.sqz_preprocess(self.net, *_image(rgb), _pointer(out)) == 0
        return out

    def logits(self, x: np.ndarray) -> np.ndarray:
        """The logits of an input."""
        out = np.empty(self._classes, "float32")
        assert self.c.sqz_forward(self.net, _pointer(x), _pointer(out)) == 0
        return out

    def classify(self, rgb: np.ndarray, k: int) -> list[tuple[int, float]]:
        """The ids and probabilities of the first classes of an image."""
        top = (_Result * k)()
        assert self.c.sqz_classify(self.net, *_image(rgb), top, k) == 0
        return [(each.class_id, each.probability) for each in top]

    def map(self, class_id: int) -> np.ndarray:
        """The map of evidence for a class."""
        side = max(self._shape)
        out = np.empty((side, side), "float32")
        assert self.c.sqz_map(self.net, class_id, _pointer(out)) == 0
        return out


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    assert array.flags.c_contiguous
    return array.ctypes.data_as(ctypes.c_void_p)


def _image(rgb: np.ndarray) -> tuple[object, ...]:
    height, width = rgb.shape[:2]
    return _pointer(rgb), width, height, ctypes.c_size_t(rgb.strides[0])
