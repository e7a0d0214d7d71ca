"""OpenVINO on the CPU. Importing this module does not load it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .batches import Run


def compile_openvino(
    model: bytes, threads: int, streams: int = 1, precision: str = "float32"
) -> list[Run]:
    """Compiles an ONNX file with one input.

    Args:
        model: the bytes of the file.
        threads: how many compute.
        streams: functions that may run in parallel and share the threads.
        precision: "bfloat16", or what the file holds.

    Returns:
        A function for each stream; what it returns is overwritten by its next call.
    """
    import openvino

    core = openvino.Core()
    config = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
    }
    compiled = core.compile_model(core.read_model(model, b""), "CPU", config)
    count = len(compiled.outputs)
    return [_run_of(compiled.create_infer_request(), count) for _ in range(streams)]


def _run_of(request: Any, count: int) -> Run:
    def run(inputs: np.ndarray) -> list[np.ndarray]:
        results = request.infer({0: inputs}, share_inputs=True, share_outputs=True)
        return [results[i] for i in range(count)]

    return run


def computes_bfloat16() -> bool:
    """Whether this processor has instructions for bfloat16; else OpenVINO computes in float32."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
