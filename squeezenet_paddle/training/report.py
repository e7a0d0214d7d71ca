"""Reports of a training run: console, train.log, metrics.jsonl, VisualDL and curves.png."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..model_dir import ModelInfo
from ..run_dir import BOARD
from .curves import write_curves
from .log import RunLog, TrainRecord, ValRecord
from .visualdl.board import Board

_FIRST = 10.0  # seconds until the curves are drawn, and
_PAUSE = 9  # times what a drawing took until the next one; the last one is drawn at once


class RunReport:
    """Sends every event of a run to the log, VisualDL and curves.png; in its first process only.

    Args:
        folder: of the run.
        info: of its model directories.
        settings: hyper-parameters by name.
        max_steps: updates of the whole run.
        start_step: updates done when this process starts.
    """

    def __init__(
        self,
        folder: Path,
        info: ModelInfo,
        settings: Mapping[str, object],
        max_steps: int,
        start_step: int,
    ) -> None:
        self._folder = folder
        # Not drawn yet: whoever was killed before it had drawn the curves goes on with nothing new.
        self._drawn, self._next_drawing = False, time.monotonic() + _FIRST
        classes = info.network.num_classes
        with contextlib.ExitStack() as stack:
            self._log = stack.enter_context(RunLog(folder, max_steps, start_step, classes))
            self._board = stack.enter_context(Board(folder / BOARD, info, settings, start_step))
            self._stack = stack.pop_all()
        self.message, self.note, self.tick = self._log.message, self._log.note, self._log.tick
        self.images = self._board.images

    def __enter__(self) -> RunReport:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        with self._stack:
            if error is None:
                self.finish()

    def train(self, record: TrainRecord) -> None:
        """Reports the progress of training."""
        self._log.train(record)
        self._board.train(record)

    def validation(self, record: ValRecord) -> None:
        """Reports an evaluation."""
        self._log.validation(record)
        self._board.validation(record)

    def snapshot(self, step: int, weights: Mapping[str, np.ndarray]) -> None:
        """Records histograms of weights, and now and then draws the curves so far."""
        self._board.histograms(step, weights)
        self._drawn = False
        if time.monotonic() >= self._next_drawing:
            self._draw()

    def finish(self) -> None:
        """Draws the curves, if something has been recorded since they were."""
        if not self._drawn:
            self._draw()

    def _draw(self) -> None:
        start = time.monotonic()
        write_curves(self._folder)
        end = time.monotonic()
        self._drawn, self._next_drawing = True, end + _PAUSE * (end - start)
