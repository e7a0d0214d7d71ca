"""The frozen part of a network as a function, run by the fastest engine that is installed.

Each image goes through alone, an image a core: so its features depend on nothing else, and are
the same from the cache and without one, and after a kill.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Callable

import numpy as np

from ..data.preprocess import Preprocess
from ..engines.load import is_installed, version_of
from ..engines.runtimes import Outputs, onnxruntime_outputs, openvino_outputs
from ..engines.threads import Cores, split
from ..errors import RunError
from ..network import numpy_forward
from ..network.config import ModelConfig
from ..network.stages import boundary, boundary_shapes
from ..onnx.writer import GraphInput, onnx_model

_LARGEST_ERROR = 1e-4  # root mean square, as a share of the features' own
_LARGEST = float(np.finfo("float16").max)

State = Mapping[str, np.ndarray]

_log = logging.getLogger(__name__)


class FrozenPart:
    """The layers before the first trained stage.

    Args:
        config: the network.
        state: its arrays by state-dict key.
        preprocess: how an image becomes its input.
        first: the first trained stage.
        device: "cpu", "gpu" or "gpu:N".
        engine: "onnxruntime", "openvino" or "dynamic"; None takes the first of these that is
            installed and computes the network.
        threads: on a CPU; None takes all cores that the process may use.

    Attributes:
        engine: which it is, with its version.
        size: F, the length of an image's features.

    Raises:
        RunError: the engine does not compute the network.
    """

    def __init__(
        self,
        config: ModelConfig,
        state: State,
        preprocess: Preprocess,
        first: str,
        device: str = "cpu",
        engine: str | None = None,
        threads: int | None = None,
    ) -> None:
        shapes = boundary_shapes(config, first, preprocess.crop_size)
        self.size = sum(int(np.prod(shape)) for shape in shapes)
        on_cpu = device == "cpu"
        self._cores = Cores(threads if on_cpu else 1)
        candidates = [name for name in _MAKERS if is_installed(name)] if on_cpu else ["dynamic"]
        problem = ""
        for name in candidates if engine is None else [engine]:
            if problem:
                _log.warning("%s Another engine is tried, %s.", problem, name)
            self.engine = version_of("paddle" if name == "dynamic" else name)
            self._runs = _MAKERS[name](config, state, preprocess, first, self._cores.threads)
            error = self._error(config, state, preprocess, first)
            if error <= _LARGEST_ERROR:
                return
            problem = (
                f"{self.engine} does not compute this network here: features are off by "
                f"{error:.2g} of their size, and at most {_LARGEST_ERROR:g} was expected."
            )
        raise RunError(problem)

    def features(self, inputs: np.ndarray) -> np.ndarray:
        """float32 [N, *input] -> float16 [N, F]."""
        features = np.empty((len(inputs), self.size), "float16")

        def work(part: tuple[Outputs, slice]) -> None:
            run, rows = part
            for i in range(rows.start, rows.stop):
                values = _flat(run(inputs[i : i + 1]))
                features[i] = np.clip(values, -_LARGEST, _LARGEST)

        parts = split(slice(0, len(inputs)), self._cores.threads)
        self._cores.run(work, list(zip(self._runs, parts)))
        return features

    def _error(
        self, config: ModelConfig, state: State, preprocess: Preprocess, first: str
    ) -> float:
        """How far features are from those of numpy: root mean square, as a share of theirs."""
        x = preprocess.normalise(numpy_forward.reference_image(preprocess.crop_size))
        values = numpy_forward.activations(config, state, x)
        expected = _flat([values[name] for name in boundary(config, first)])
        found = _flat(self._runs[0](x[None]))
        size = max(float(np.sqrt(np.mean(expected**2))), 1e-6)
        return float(np.sqrt(np.mean((found - expected) ** 2))) / size


def _flat(outputs: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([output.ravel() for output in outputs])


def _graph(config: ModelConfig, state: State, preprocess: Preprocess, first: str) -> bytes:
    size = preprocess.crop_size
    names = boundary(config, first)
    return onnx_model(config, state, GraphInput(size, size), preprocess, False, outputs=names)


def _onnxruntime(
    config: ModelConfig, state: State, preprocess: Preprocess, first: str, threads: int
) -> list[Outputs]:
    # One for all: it computes in the thread that calls it.
    return [onnxruntime_outputs(_graph(config, state, preprocess, first), threads=1)] * threads


def _openvino(
    config: ModelConfig, state: State, preprocess: Preprocess, first: str, threads: int
) -> list[Outputs]:
    return openvino_outputs(_graph(config, state, preprocess, first), threads, streams=threads)


def _dynamic(
    config: ModelConfig, state: State, preprocess: Preprocess, first: str, threads: int
) -> list[Outputs]:
    import paddle

    from ..network import fast_cpu
    from ..network.model import SqueezeNet, load_state

    network = SqueezeNet(config)
    load_state(network, state, "the network")
    network.eval()
    on_cpu = paddle.get_device() == "cpu"

    def run(inputs: np.ndarray) -> list[np.ndarray]:
        with paddle.no_grad():  # which each thread has to say
            x = paddle.to_tensor(inputs)
            if on_cpu and config.data_format == "NCHW":
                outputs = fast_cpu.front(network, x, first)
            else:
                outputs = network.front(x, first)
        maps = [output.numpy() for output in outputs]
        if config.data_format == "NHWC":
            maps = [m.transpose(0, 3, 1, 2) if m.ndim == 4 else m for m in maps]
        return maps

    return [run] * threads


# The fastest first.
_MAKERS: dict[str, Callable[[ModelConfig, State, Preprocess, str, int], list[Outputs]]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "dynamic": _dynamic,
}
