"""The VisualDL records of a training run; `visualdl --logdir output` shows them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ...files import write_bytes, write_text
from ...fonts import draw_text
from ...model_dir import ModelInfo
from ..log import TrainRecord, ValRecord, append
from . import graph, records
from .records import histogram, image, scalar

SCORES = ("val/top1", "val/top5", "val/loss")
BINS = 50  # of a histogram
SHOWN, COLUMNS = 32, 8  # images of a batch
CAPTION = 18  # height of the strip above each, in pixels


class Board:
    """Writes curves, images, histograms, hyper-parameters and the network's graph for VisualDL.

    Everything is written immediately, so killing the process loses nothing. A resumed run drops
    what was written after `start_step` and goes on in the same file, so that its curves have every
    point once. Use it as a context, or call `close`.

    Args:
        folder: created if it does not exist.
        info: the network, its preprocessing, and the class names.
        settings: hyper-parameters by name. Few, with short names: VisualDL's view of parallel
            coordinates hangs the browser where a name is wider than its column.
        start_step: updates done when this process starts; 0 starts with an empty board.

    Raises:
        InputError, RunError: a file cannot be written; the methods raise RunError then.
    """

    def __init__(
        self, folder: Path, info: ModelInfo, settings: Mapping[str, object], start_step: int = 0
    ) -> None:
        self._info = info
        records_file, graph_file = folder / records.FILE, folder / graph.FILE
        kept = records.read_records(records_file, start_step) if start_step > 0 else ()
        write_bytes(records_file, b"".join((records.header(settings, SCORES), *kept)))
        write_text(graph_file, graph.graph(info.network, info.preprocess.crop_size))
        self._file = records_file.open("ab", buffering=0)

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def train(self, record: TrainRecord) -> None:
        """Adds a point to each training curve."""
        values = dataclasses.asdict(record)
        self._scalars("train", values, ("loss", "top1", "lr", "images_per_second", "reader_wait"))

    def validation(self, record: ValRecord) -> None:
        """Adds a point to each validation curve."""
        self._scalars("val", dataclasses.asdict(record), ("loss", "top1", "top5"))

    def images(self, step: int, inputs: np.ndarray, labels: np.ndarray) -> None:
        """Shows the first 32 images of a batch as the network sees them, with their classes.

        Args:
            step: updates done.
            inputs: float32 [n, *preprocess.input_shape].
            labels: [n], class ids.
        """
        names = self._info.names
        captions = [f"{label} {names[label]}" if names else str(label) for label in labels[:SHOWN]]
        png = image_grid(self._info.preprocess.denormalise(inputs[:SHOWN]), captions)
        append(self._file, image("batch/augmented", step, png))

    def histograms(self, step: int, weights: Mapping[str, np.ndarray]) -> None:
        """Adds a histogram of the finite values of each array, by its name."""
        for name, array in weights.items():
            finite = array[np.isfinite(array)]
            counts, edges = np.histogram(finite, bins=BINS)
            append(self._file, histogram(f"weights/{name}", step, counts, edges))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _scalars(self, group: str, values: dict[str, Any], names: Sequence[str]) -> None:
        points = (scalar(f"{group}/{name}", values["step"], values[name]) for name in names)
        append(self._file, b"".join(points))


def image_grid(images: np.ndarray, captions: Sequence[str]) -> bytes:
    """A PNG file of images uint8 [n, H, W, 3], BGR, in rows of 8, with a caption above each."""
    n, height, width = images.shape[:3]
    columns = min(n, COLUMNS)
    rows = -(-n // columns)
    height += CAPTION
    cells = np.full((rows * columns, height, width, 3), 255, "uint8")
    for cell, content, caption in zip(cells, images, captions):
        draw_text(cell[:CAPTION], caption, left=2, baseline=13, size=12)
        cell[CAPTION:] = content
    grid = cells.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    return cv2.imencode(".png", grid.reshape(rows * height, columns * width, 3))[1].tobytes()
