"""An ONNX Runtime that computes something else."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
import onnxruntime
import pytest


def spoil_onnxruntime(
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[np.ndarray], np.ndarray],
    threads: int | None = None,
) -> None:
    """Changes what the sessions of ONNX Runtime give; or only of those that have `threads`."""

    class Session(onnxruntime.InferenceSession):
        def __init__(self, model: bytes, options: Any, **others: Any) -> None:
            super().__init__(model, options, **others)
            self.good = threads not in (None, options.intra_op_num_threads)

        def run(self, *args: Any) -> list[np.ndarray]:
            outputs = super().run(*args)
            return outputs if self.good else [change(each) for each in outputs]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
