"""ONNX Runtime on the CPU. Importing this module does not load it."""

from __future__ import annotations

import numpy as np

from .batches import Run


def compile_onnx(model: bytes, threads: int, streams: int = 1) -> list[Run]:
    """Compiles an ONNX file with one input.

    Args:
        model: the bytes of the file.
        threads: how many compute.
        streams: 1, on all threads; or `threads`, on one each.

    Returns:
        A function for each stream.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads if streams == 1 else 1
    options.log_severity_level = 3  # errors
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model, options, providers=providers)
    name = session.get_inputs()[0].name

    def run(inputs: np.ndarray) -> list[np.ndarray]:
        return session.run(None, {name: inputs})

    return [run] * streams  # one for all: a session computes in the thread that calls it
