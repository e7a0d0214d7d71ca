"""Compares a converted network with an ONNX file that PyTorch exported, run by ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle

from ..engines.load import check_installed
from ..errors import InputError
from ..network.logits import top_k
from ..network.model import SqueezeNet

TOLERANCE = 1e-4  # of the largest logit


@dataclass(frozen=True)
class Comparison:
    """One input's result.

    Attributes:
        name: of the input.
        relative: the largest difference between two logits, as a share of the largest one.
        same_top1: whether the first class is the same.
    """

    name: str
    relative: float
    same_top1: bool

    @property
    def passed(self) -> bool:
        return self.relative <= TOLERANCE


def compare(network: SqueezeNet, onnx_file: Path, x: np.ndarray, name: str) -> Comparison:
    """Compares the logits of one input.

    Args:
        network: ours, in evaluation mode.
        onnx_file: the same network as torch.onnx.export writes it, with one input and one output.
        x: float32 [1, 3, H, W].
        name: what to call the input.

    Raises:
        InputError: ONNX Runtime is not installed, or cannot run the file on this input.
    """
    check_installed("onnxruntime", "an ONNX file is run by ONNX Runtime")
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
        (expected,) = session.run(None, {session.get_inputs()[0].name: x})
    except Exception as error:  # its errors have no base class of their own
        text = " ".join(str(error).split())
        raise InputError(
            f"{onnx_file}: ONNX Runtime cannot run this file: {text[:300]}."
        ) from error
    with paddle.no_grad():
        logits = network(paddle.to_tensor(x)).numpy()
    expected = np.asarray(expected, "float32").reshape(1, -1)
    if expected.shape != logits.shape:
        return Comparison(name, np.inf, False)
    largest = float(np.abs(expected).max())
    difference = float(np.abs(logits - expected).max())
    same = bool((top_k(logits, 1) == top_k(expected, 1)).all())
    return Comparison(name, difference / largest if largest else difference, same)
