"""The best evaluation of a run so far, and for how long there was no better one. No Paddle here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_HOPE = 0.99  # a loss below so much of the best one means that training still helps


@dataclass
class Best:
    """The evaluation with the highest top-1 and, of equal ones, with the lowest loss.

    Attributes:
        top1, loss: its scores; `top1` None where there was none.
        not_better: evaluations since top-1 rose or, at the same top-1, the loss fell by a percent.
    """

    top1: float | None = None
    loss: float = 0.0
    not_better: int = 0

    def add(self, summary: Mapping[str, float]) -> bool:
        """Takes an evaluation into account, and tells whether it is the best so far."""
        top1, loss = summary["top1"], summary["loss"]
        rose = self.top1 is None or top1 > self.top1
        equal = top1 == self.top1
        helps = rose or (equal and loss < _HOPE * self.loss)
        self.not_better = 0 if helps else self.not_better + 1
        better = rose or (equal and loss < self.loss)
        if better:
            self.top1, self.loss = top1, loss
        return better
