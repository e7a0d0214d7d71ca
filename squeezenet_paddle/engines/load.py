"""Which engine runs a model directory, and the proof that it computes the network in it.

ONNX Runtime and OpenVINO are given an ONNX file that is written in memory from the weights, so they
need no export and cannot run an old one. Whatever is loaded is first compared with the network in
numpy, on one image and on as many as there are cores.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
from pathlib import Path
from typing import Protocol

import numpy as np

from ..errors import InputError, RunError
from ..export import record
from ..model_dir import ModelInfo, Weights, load_network, read_weights
from ..network import numpy_forward
from ..onnx import quantise
from ..onnx.quantise import Statistics
from ..onnx.writer import GraphInput, onnx_model
from ..run_dir import model_dir_of
from .runtimes import OnnxRuntimeEngine, OpenvinoEngine, PaddleEngine
from .threads import Cores

# What each has on a CPU; the fastest first, as "auto" tries them.
ENGINES = {
    "onnxruntime": ("float32", "int8"),
    "openvino": ("float32", "bfloat16", "int8"),
    "paddle": ("float32",),
    "dynamic": ("float32",),
}
PRECISIONS = ("float32", "bfloat16", "int8")
_PACKAGES = ("onnxruntime", "openvino")  # engines that are a package of the same name
_LARGEST_ERROR = {"float32": 1e-4, "bfloat16": 0.05, "int8": 0.3}  # as `_error` measures it

_log = logging.getLogger(__name__)


class Engine(Protocol):
    """A network as a function."""

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """float32 [N, *input] -> float32 [N, num_classes]."""


def is_installed(name: str) -> bool:
    """Whether the package of an engine is there."""
    return name not in _PACKAGES or importlib.util.find_spec(name) is not None


def check_installed(name: str, what: str) -> None:
    """Refuses an engine whose package is missing; `what` says what wanted it.

    Raises:
        InputError: it is missing.
    """
    if not is_installed(name):
        raise InputError(
            f"{what}: the package {name} is not installed; "
            f"pip install 'squeezenet_paddle[{name}]' brings it."
        )


def version_of(name: str) -> str:
    """The engine with its version, e.g. "onnxruntime 1.20.1"."""
    if name in _PACKAGES:
        return f"{name} {importlib.metadata.version(name)}"
    import paddle

    return f"{name} {paddle.__version__}"


def load_engine(
    model_dir: Path,
    info: ModelInfo,
    name: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
) -> tuple[str, Engine]:
    """An engine that runs a model directory on the CPU, after a proof that it does.

    Args:
        model_dir: as `model_dir.py` describes it.
        info: what it says.
        name: one of `ENGINES`; or "auto", the fastest that is installed, can run this model
            directory, and agrees with the network.
        precision: one of `PRECISIONS`.
        threads: None takes all cores that the process may use.

    Returns:
        Its name, and the engine.

    Raises:
        InputError: it is not installed, does not have the precision, or lacks its export.
        RunError: what it computes is not the network.
    """
    weights = read_weights(model_dir, info)
    if name != "auto":
        return name, _proven(model_dir, info, weights, name, precision, threads)
    candidates = [each for each, has in ENGINES.items() if precision in has]
    reason = f"no engine that has {precision} is installed; one of these was expected: "
    problem: Exception = InputError(reason + ", ".join(candidates) + ".")
    for each in filter(is_installed, candidates):
        try:
            return each, _proven(model_dir, info, weights, each, precision, threads)
        except RunError as error:
            _log.warning("%s Another engine is tried.", error)
            problem = error
        except InputError as error:  # it has no export
            problem = error
    raise problem


def _proven(
    model_dir: Path,
    info: ModelInfo,
    weights: Weights,
    name: str,
    precision: str,
    threads: int | None,
) -> Engine:
    """An engine that was compared with the network, but for the one which is the network."""
    if precision not in ENGINES[name]:
        able = [each for each, has in ENGINES.items() if precision in has]
        raise InputError(
            f"--precision {precision}: the engine {name} has {', '.join(ENGINES[name])} alone; "
            f"{precision} takes {' or '.join(able)}."
        )
    check_installed(name, f"--engine {name}")
    engine = _make(model_dir, info, weights, name, precision, threads)
    if name == "dynamic":
        return engine
    error, limit = _error(engine, info, weights, Cores(threads).threads), _LARGEST_ERROR[precision]
    if not error <= limit:
        raise RunError(
            f"{version_of(name)} does not compute this network here: its logits are off by "
            f"{error:.2g} of their size, and at most {limit:g} was expected of {precision}."
        )
    return engine


def _make(
    model_dir: Path,
    info: ModelInfo,
    weights: Weights,
    name: str,
    precision: str,
    threads: int | None,
) -> Engine:
    classes = info.network.num_classes
    folder = model_dir_of(model_dir)
    if name == "dynamic":
        from .dynamic import DynamicEngine

        return DynamicEngine(load_network(model_dir, info), "cpu", threads)
    if name == "paddle":
        graph, parameters = _paddle_export(folder, info, weights)
        return PaddleEngine(graph, parameters, classes, threads)
    statistics = read_statistics(folder, weights) if precision == "int8" else None
    size = info.preprocess.crop_size
    model = onnx_model(
        info.network,
        weights.state,
        GraphInput(size, size),
        info.preprocess,
        concat=False,
        statistics=statistics,
    )
    if name == "onnxruntime":
        return OnnxRuntimeEngine(model, classes, threads)
    return OpenvinoEngine(model, classes, precision, threads)


def _paddle_export(folder: Path, info: ModelInfo, weights: Weights) -> tuple[Path, Path]:
    how = f"python tools/export.py --model_dir {folder} --format paddle"
    entry = record.find(folder, "paddle", weights.fingerprint, how)
    size = info.preprocess.crop_size
    wanted = {"input_size": size, "batch": None, "with_preprocess": False}
    found = {key: entry.get(key) for key in wanted}
    if found != wanted:
        raise InputError(
            f"{folder}: its paddle export takes another input than the network ({found}); make "
            f"it anew by: {how}"
        )
    graph = next(folder / name for name in record.GRAPHS if name in entry["files"])
    return graph, folder / record.PARAMETERS


def read_statistics(folder: Path, weights: Weights) -> dict[str, Statistics]:
    """What a model directory's layers give on real images, for 8 bits.

    Raises:
        InputError: there is no such file, or it is of other weights.
    """
    how = (
        f"python tools/export.py --model_dir {folder} --format onnx --precision int8 --image IMAGES"
    )
    record.find(folder, "int8", weights.fingerprint, how)
    return quantise.from_json((folder / record.STATISTICS).read_text(encoding="utf-8"))


def _error(engine: Engine, info: ModelInfo, weights: Weights, count: int) -> float:
    """How far logits are from those of numpy: root mean square, as a share of theirs.

    The larger one of two: for an image alone, and for `count` copies of it.
    """
    image = numpy_forward.reference_image(info.preprocess.crop_size)
    x = info.preprocess.normalise(image)
    expected = numpy_forward.logits(info.network, weights.state, x)
    size = max(float(np.sqrt(np.mean(expected**2))), 1e-6)
    errors = []
    for n in (1, max(count, 2)):
        found = engine.logits(np.repeat(x[None], n, axis=0))
        errors.append(float(np.sqrt(np.mean((found - expected) ** 2, axis=1)).max()) / size)
    return max(errors)
