"""Chooses the engine that computes a network, and proves that it does.

ONNX Runtime and OpenVINO get an ONNX file that is written in memory from the weights, and Paddle
Inference a static graph, so they need no export, cannot run a stale one, and run no program that
came with a model directory. Every engine but Paddle's dynamic graph, which is the network
itself, is compared with the network in numpy before it is used.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Callable, Protocol, TypeVar

import numpy as np

from .. import export_record
from ..data.preprocess import Preprocess
from ..device import use_device
from ..errors import InputError, RunError
from ..model_dir import ModelInfo, Weights, network_of, read_weights
from ..network import numpy_forward
from ..network.config import ModelConfig
from ..network.stages import boundary, boundary_shapes, logits_and_fire9
from ..onnx.quantise import Constants, read_constants
from ..onnx.writer import GraphInput, onnx_model
from ..run_dir import model_dir_of
from .batches import Compile, FeatureEngine, MicroBatchEngine, Outputs, flat
from .onnxruntime import compile_onnx
from .openvino import compile_openvino, computes_bfloat16
from .paddle_inference import PaddleEngine
from .threads import PinnedThreads

# The precisions of each engine on a CPU; "auto" tries the engines in this order, fastest first.
ENGINES = {
    "onnxruntime": ("float32", "int8"),
    "openvino": ("float32", "bfloat16", "int8"),
    "paddle": ("float32",),
    "dynamic": ("float32",),
}
PRECISIONS = ("float32", "bfloat16", "int8")
_PACKAGES = ("onnxruntime", "openvino")  # engines that are a package of the same name
_LARGEST_ERROR = {"float32": 1e-4, "bfloat16": 0.05, "int8": 0.3}  # as `_relative_error` has it

State = Mapping[str, np.ndarray]

_log = logging.getLogger(__name__)


class Engine(Protocol):
    """A network as a function."""

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """float32 [N, *input] -> float32 [N, num_classes]."""

    def outputs(self, inputs: np.ndarray) -> Outputs:
        """The same, and the means of fire9's maps where the engine was made for them."""


AnyEngine = TypeVar("AnyEngine", Engine, FeatureEngine)


def is_installed(name: str) -> bool:
    """Whether the package of an engine is installed."""
    return name not in _PACKAGES or importlib.util.find_spec(name) is not None


def check_installed(name: str, what: str) -> None:
    """Refuses an engine whose package is missing; `what` says what needs it.

    Raises:
        InputError: it is missing.
    """
    if not is_installed(name):
        raise InputError(
            f"{what}: the package {name} is not installed; "
            f"pip install 'squeezenet_paddle[{name}]' brings it."
        )


def version_of(name: str) -> str:
    """The package that an engine computes with, and its version, e.g. "onnxruntime 1.20.1"."""
    if name in _PACKAGES:
        return f"{name} {importlib.metadata.version(name)}"
    import paddle

    return f"paddle {paddle.__version__}"


def load_engine(
    model_dir: Path,
    info: ModelInfo,
    name: str = "auto",
    precision: str = "float32",
    threads: int | None = None,
    with_means: bool = False,
) -> tuple[str, Engine]:
    """An engine that gives the logits of a model directory's network on the CPU.

    Args:
        model_dir: as `model_dir.py` describes it.
        info: its description.
        name: one of `ENGINES`; or "auto", the fastest that is installed, can run this model
            directory, and agrees with the network.
        precision: one of `PRECISIONS`.
        threads: None takes one per core that the process may use.
        with_means: give the means of fire9's maps beside the logits.

    Returns:
        Its name, and the engine.

    Raises:
        InputError: it is not installed, does not have the precision, or lacks its export.
        RunError: it does not compute the network.
    """
    having = [each for each, precisions in ENGINES.items() if precision in precisions]
    names = list(filter(is_installed, having))
    if name != "auto":
        if name not in having:
            raise InputError(
                f"`precision` {precision}: the engine {name} has only {', '.join(ENGINES[name])}; "
                f"{precision} is computed by {' or '.join(having)}."
            )
        check_installed(name, f"`engine` {name}")
        names = [name]
    elif not names:
        raise InputError(
            f"no engine that has {precision} is installed; one of these was expected: "
            f"{', '.join(having)}."
        )
    weights = read_weights(model_dir, info)
    make = partial(_logits_engine, model_dir, info, weights, precision, threads, with_means)

    def error(engine: Engine) -> float:
        """The larger one of two: for an image alone, and for enough to keep every core busy."""
        x = _reference_input(info.preprocess)
        values = numpy_forward.activations(info.network, weights.state, x)
        logits, maps = (values[name] for name in logits_and_fire9(info.network))
        means = maps.reshape(len(maps), -1).mean(axis=1)
        counts = (1, max(PinnedThreads(threads).count, 2))
        batches = [engine.outputs(np.repeat(x[None], n, axis=0)) for n in counts]
        errors = [_relative_error(batch.logits, logits) for batch in batches]
        errors += [_relative_error(b.means, means) for b in batches if b.means is not None]
        return max(errors)

    return _first_proven(names, make, error, "logits", _LARGEST_ERROR[precision])


def load_features(
    config: ModelConfig,
    state: State,
    preprocess: Preprocess,
    trained_from: str,
    device: str = "cpu",
    name: str = "auto",
    threads: int | None = None,
) -> FeatureEngine:
    """An engine that gives the features before a stage of the network.

    Args:
        config: the network.
        state: its arrays by state-dict key.
        preprocess: how an image becomes its input.
        trained_from: the first stage that is left out.
        device: "cpu", "gpu" or "gpu:N".
        name: "onnxruntime", "openvino" or "dynamic"; or "auto", the first of these that is
            installed and agrees with the network.
        threads: on a CPU; None takes one per core that the process may use.

    Raises:
        RunError: the engine does not compute the network.
    """
    names = [name]
    if name == "auto":
        names = [*filter(is_installed, _PACKAGES), "dynamic"] if device == "cpu" else ["dynamic"]
    outputs = boundary(config, trained_from)
    shapes = boundary_shapes(config, trained_from, preprocess.crop_size)
    size = sum(int(np.prod(shape)) for shape in shapes)

    def make(name: str) -> FeatureEngine:
        if name == "dynamic":
            from .dynamic import features_run

            use_device(device)
            run = features_run(network_of(config, state, "the network"), trained_from, device)
            # A cache tells features of a GPU, which has other last bits, or TF32, from a CPU's.
            count, where = (threads, "") if device == "cpu" else (1, " on a GPU")
            engine = f"{version_of(name)}{where}"
            return FeatureEngine(engine, lambda _, streams: [run] * streams, size, count)
        compile_for = _onnx_compile(name, config, state, preprocess, outputs=outputs)
        return FeatureEngine(version_of(name), compile_for, size, threads)

    def error(engine: FeatureEngine) -> float:
        x = _reference_input(preprocess)
        values = numpy_forward.activations(config, state, x)
        return _relative_error(engine.exact(x)[None], flat([values[name] for name in outputs]))

    return _first_proven(names, make, error, "features", _LARGEST_ERROR["float32"])[1]


def _first_proven(
    names: Iterable[str],
    make: Callable[[str], AnyEngine],
    error_of: Callable[[AnyEngine], float],
    what: str,
    limit: float,
) -> tuple[str, AnyEngine]:
    """The first engine that can be made and whose error is within the limit, with its name."""
    problem: Exception | None = None
    for name in names:
        if isinstance(problem, RunError):
            _log.warning("%s Trying another engine, %s.", problem, name)
        try:
            engine = make(name)
        except InputError as lacks_export:
            problem = lacks_export
            continue
        if name == "dynamic":
            return name, engine
        error = error_of(engine)
        if error <= limit:
            return name, engine
        problem = RunError(
            f"{version_of(name)} does not compute this network here: its {what} are off by "
            f"{error:.2g} of their size, and at most {limit:g} was expected."
        )
    assert problem is not None
    raise problem


def _reference_input(preprocess: Preprocess) -> np.ndarray:
    return preprocess.normalise(numpy_forward.reference_image(preprocess.crop_size))


def _relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest root mean square error of rows [N, C], as a share of that of `expected` [C]."""
    size = max(float(np.sqrt(np.mean(expected**2))), 1e-6)
    return float(np.sqrt(np.mean((found - expected) ** 2, axis=1)).max()) / size


def _logits_engine(
    model_dir: Path,
    info: ModelInfo,
    weights: Weights,
    precision: str,
    threads: int | None,
    with_means: bool,
    name: str,
) -> Engine:
    config = info.network
    if name in ("dynamic", "paddle"):
        from .dynamic import DynamicEngine

        use_device("cpu")
        network = network_of(config, weights.state, str(model_dir))
        if name == "paddle":
            return PaddleEngine(network, info.preprocess, threads, with_means)
        return DynamicEngine(network, "cpu", threads, with_means=with_means)
    if precision == "bfloat16" and not computes_bfloat16():
        _log.warning("%s: this processor has no bfloat16 instructions; it uses float32.", name)
    quantised = None
    if precision == "int8":
        quantised = _quantised(model_dir_of(model_dir), config, weights)
    outputs = logits_and_fire9(config) if with_means else None
    compile_for = _onnx_compile(
        name, config, weights.state, info.preprocess, precision, quantised, outputs
    )
    return MicroBatchEngine(compile_for, config.num_classes, threads, with_means)


def _quantised(folder: Path, config: ModelConfig, weights: Weights) -> Constants:
    """The integers of a model directory's int8 export."""
    name = export_record.ONNX_INT8
    _, data = export_record.find(folder, "int8", weights.fingerprint, name)
    return read_constants(data, config, str(folder / name))


def _onnx_compile(
    name: str,
    config: ModelConfig,
    state: State,
    preprocess: Preprocess,
    precision: str = "float32",
    quantised: Constants | None = None,
    outputs: list[str] | None = None,
) -> Compile:
    size = GraphInput(preprocess.crop_size, preprocess.crop_size)
    model = onnx_model(config, state, size, concat=False, quantised=quantised, outputs=outputs)
    if name == "onnxruntime":
        return partial(compile_onnx, model)
    return partial(compile_openvino, model, precision=precision)
