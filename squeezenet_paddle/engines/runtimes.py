"""What computes logits besides Paddle's dynamic graph: ONNX Runtime, OpenVINO, Paddle Inference.

All run on the CPU. On AVX2 processors they are limited by arithmetic, so that what is to be gained
lies between the layers: a micro-batch on each core keeps its maps in that core's cache, and no core
waits for another at the end of each layer. Importing this module loads none of them.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path
from typing import Any, Callable

import numpy as np

from .threads import Cores, micro_batches, split

_MICRO_PIXELS = 2 * 227 * 227  # of a micro-batch on one core, measured
_MICRO_PIXELS_PADDLE = 4 * 227 * 227  # of one on all cores; an operator costs 40 us beyond its work

_log = logging.getLogger(__name__)

Run = Callable[[np.ndarray], np.ndarray]  # float32 [n, *input] -> float32 [n, num_classes]
Outputs = Callable[[np.ndarray], "list[np.ndarray]"]  # float32 [n, *input] -> float32 [n, ...] each


class _RuntimeOnCores(ABC):
    """Runs a batch in micro-batches, one a core at a time, or a few images on all cores at once.

    Args:
        num_classes: length of the logits.
        threads: None takes all cores that the process may use.
    """

    def __init__(self, num_classes: int, threads: int | None) -> None:
        self._num_classes = num_classes
        self._cores = Cores(threads)

    @cached_property
    def _on_all_cores(self) -> Run:
        return self._compile_for_all_cores()

    @cached_property
    def _on_one_core(self) -> list[Run]:
        return self._compile_for_one_core()

    @abstractmethod
    def _compile_for_all_cores(self) -> Run: ...

    @abstractmethod
    def _compile_for_one_core(self) -> list[Run]:
        """A function for each thread."""

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """float32 [N, *input] -> float32 [N, num_classes]."""
        logits = np.empty((len(inputs), self._num_classes), "float32")
        if len(inputs) == 0:
            return logits
        if len(inputs) < max(self._cores.threads, 2):
            logits[:] = self._on_all_cores(inputs)
            return logits

        whole, threads = slice(0, len(inputs)), self._cores.threads
        rounds = -(-len(micro_batches(whole, inputs, _MICRO_PIXELS)) // threads)
        micros = iter(split(whole, rounds * threads))

        def work(run: Run) -> None:
            # Each core takes the next one, as readers of images may slow one more than another.
            for micro in micros:
                logits[micro] = run(inputs[micro])

        self._cores.run(work, self._on_one_core)
        return logits


class OnnxRuntimeEngine(_RuntimeOnCores):
    """ONNX Runtime.

    Args:
        model: the bytes of an ONNX file with one input, and a batch of any size.
        num_classes, threads: as for `_RuntimeOnCores`.
    """

    def __init__(self, model: bytes, num_classes: int, threads: int | None = None) -> None:
        super().__init__(num_classes, threads)
        self._model = model

    def _compile_for_all_cores(self) -> Run:
        return onnxruntime_run(self._model, self._cores.threads)

    def _compile_for_one_core(self) -> list[Run]:
        # One for all: it computes in the thread that calls it.
        return [onnxruntime_run(self._model, threads=1)] * self._cores.threads


def onnxruntime_run(model: bytes, threads: int) -> Run:
    """An ONNX file with one input and one output as a function."""
    outputs = onnxruntime_outputs(model, threads)
    return lambda inputs: outputs(inputs)[0]


def onnxruntime_outputs(model: bytes, threads: int) -> Outputs:
    """An ONNX file with one input as a function that gives all its outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model, options, providers=providers)
    name = session.get_inputs()[0].name
    return lambda inputs: session.run(None, {name: inputs})


class OpenvinoEngine(_RuntimeOnCores):
    """OpenVINO.

    Args:
        model: the bytes of an ONNX file with one input, and a batch of any size.
        precision: "float32"; "bfloat16", which is float32, with a warning, on a processor without
            such instructions; "int8" for a quantised file.
        num_classes, threads: as for `_RuntimeOnCores`.
    """

    def __init__(
        self, model: bytes, num_classes: int, precision: str, threads: int | None = None
    ) -> None:
        super().__init__(num_classes, threads)
        self._model = model
        self._hint = "bf16" if precision == "bfloat16" else "f32"
        if precision == "bfloat16" and not computes_bfloat16():
            _log.warning(
                "openvino: this processor has no bfloat16 instructions; it computes in float32."
            )

    def _compile_for_all_cores(self) -> Run:
        return self._requests(1)[0]

    def _compile_for_one_core(self) -> list[Run]:
        return self._requests(self._cores.threads)

    def _requests(self, streams: int) -> list[Run]:
        threads = self._cores.threads
        return [
            _first(outputs)
            for outputs in openvino_outputs(self._model, threads, streams, self._hint)
        ]


def _first(outputs: Outputs) -> Run:
    return lambda inputs: outputs(inputs)[0]


def openvino_outputs(model: bytes, threads: int, streams: int, hint: str = "f32") -> list[Outputs]:
    """An ONNX file with one input as functions, one a stream, that give all its outputs.

    What one gives is overwritten by its next call.
    """
    import openvino

    core = openvino.Core()
    config = {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
    }
    compiled = core.compile_model(core.read_model(model, b""), "CPU", config)
    requests = [compiled.create_infer_request() for _ in range(streams)]
    return [_outputs_of(request, len(compiled.outputs)) for request in requests]


def _outputs_of(request: Any, count: int) -> Outputs:
    def run(inputs: np.ndarray) -> list[np.ndarray]:
        results = request.infer({0: inputs}, share_inputs=True, share_outputs=True)
        return [results[i] for i in range(count)]

    return run


def computes_bfloat16() -> bool:
    """Whether OpenVINO has such arithmetic on this processor."""
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class PaddleEngine:
    """Paddle Inference with oneDNN.

    It computes on all cores at once: its Python interface lets no two predictors run together.

    Args:
        graph: the static graph, `inference.json` of Paddle 3 or `inference.pdmodel` of Paddle 2.
        parameters: `inference.pdiparams`.
        num_classes: length of the logits.
        threads: None takes all cores that the process may use.
    """

    def __init__(
        self, graph: Path, parameters: Path, num_classes: int, threads: int | None = None
    ) -> None:
        self._run = paddle_run(graph, parameters, Cores(threads).threads)
        self._num_classes = num_classes

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """float32 [N, *input] -> float32 [N, num_classes]."""
        logits = np.empty((len(inputs), self._num_classes), "float32")
        for micro in micro_batches(slice(0, len(inputs)), inputs, _MICRO_PIXELS_PADDLE):
            logits[micro] = self._run(inputs[micro])
        return logits


def paddle_run(graph: Path, parameters: Path, threads: int) -> Run:
    """A static graph with one input and one output as a function."""
    from paddle.inference import Config, create_predictor

    config = Config(str(graph), str(parameters))
    config.disable_gpu()
    config.disable_glog_info()
    config.set_cpu_math_library_num_threads(threads)
    config.enable_mkldnn()
    predictor = create_predictor(config)
    to_graph = predictor.get_input_handle(predictor.get_input_names()[0])
    from_graph = predictor.get_output_handle(predictor.get_output_names()[0])

    def run(inputs: np.ndarray) -> np.ndarray:
        to_graph.copy_from_cpu(np.ascontiguousarray(inputs))
        predictor.run()
        return from_graph.copy_to_cpu()

    return run
