"""All that is told of a training run: console, train.log, metrics.jsonl, VisualDL, curves.png."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .logs import RunLog


class RunReport(RunLog):
    def pictures(self, step, inputs, labels):
        pass

    def histograms(self, step, arrays):
        pass
