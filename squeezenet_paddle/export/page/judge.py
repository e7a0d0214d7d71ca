"""Runs the page's engine outside of a browser, by the package wasmtime."""

from __future__ import annotations

import numpy as np

from ...errors import RunError

_PAGE = 65536  # bytes by which the memory of a module grows


class Engine:
    """The engine of a page, as worker.js runs it.

    Args:
        code: the WebAssembly module.
        weights: the .sqz file.

    Raises:
        RunError: it refuses the weights.
    """

    def __init__(self, code: bytes, weights: bytes) -> None:
        import wasmtime

        engine = wasmtime.Engine()
        self._store = wasmtime.Store(engine)
        instance = wasmtime.Instance(self._store, wasmtime.Module(engine, code), [])
        self._exports = instance.exports(self._store)
        self._memory = self._exports["memory"]
        self._call("_initialize")
        arena = self._exports["__heap_base"].value(self._store)
        self._pixels = arena + self._call("arena_bytes")
        self._write(weights)
        self._check(self._call("load", self._pixels, len(weights), arena))

    def logits(self, image: np.ndarray) -> np.ndarray:
        """Logits of an image.

        Args:
            image: uint8 [H, W, 3], BGR.

        Returns:
            float32 [num_classes].
        """
        height, width = image.shape[:2]
        self._write(np.ascontiguousarray(image[:, :, ::-1]).tobytes())
        self._check(self._call("classify", self._pixels, width, height))
        start = self._call("logits")
        data = self._memory.read(self._store, start, start + 4 * self._call("classes"))
        return np.frombuffer(bytes(data), "<f4")

    @property
    def is_none(self) -> bool:
        """Whether the image is none of the classes."""
        return bool(self._call("is_none"))

    def map_of(self, class_id: int) -> np.ndarray:
        """Where the image shows a class: float32 [crop_size, crop_size]."""
        start, side = self._call("map_of", class_id), self._call("side")
        data = self._memory.read(self._store, start, start + 4 * side * side)
        return np.frombuffer(bytes(data), "<f4").reshape(side, side)

    def _call(self, name: str, *values: int) -> int:
        return self._exports[name](self._store, *values)

    def _write(self, data: bytes) -> None:
        missing = self._pixels + len(data) - self._memory.data_len(self._store)
        if missing > 0:
            self._memory.grow(self._store, -(-missing // _PAGE))
        self._memory.write(self._store, data, self._pixels)

    def _check(self, code: int) -> None:
        if code:
            start = self._call("message", code)
            text = bytes(self._memory.read(self._store, start, start + 200)).partition(b"\0")[0]
            raise RunError(f"the page's engine: {text.decode()}")
