"""All that is told of a training run: console, train.log, metrics.jsonl, VisualDL, curves.png."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..model_dir import ModelInfo
from ..run_dir import BOARD
from .board import Board
from .curves import write_curves
from .logs import RunLog, TrainRecord, ValRecord


class RunReport:
    """Passes on what happens to all who tell of it; in the first process of a run only.

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
        with contextlib.ExitStack() as stack:
            self._log = stack.enter_context(RunLog(folder, max_steps, start_step))
            self._board = stack.enter_context(Board(folder / BOARD, info, settings, start_step))
            self._stack = stack.pop_all()
        self.message, self.tick = self._log.message, self._log.tick
        self.pictures = self._board.pictures

    def __enter__(self) -> RunReport:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def train(self, record: TrainRecord) -> None:
        """Tells how training goes."""
        self._log.train(record)
        self._board.train(record)

    def validation(self, record: ValRecord) -> None:
        """Tells what an evaluation found."""
        self._log.validation(record)
        self._board.validation(record)

    def snapshot(self, step: int, weights: Mapping[str, np.ndarray]) -> None:
        """Shows how weights are distributed, and draws the curves so far."""
        self._board.histograms(step, weights)
        write_curves(self._folder)
