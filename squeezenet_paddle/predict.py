"""A model directory as a function from inputs to logits."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .data.loader import Loader
from .engines.load import Engine, load_engine
from .errors import InputError
from .evaluation.metrics import softmax, top_k
from .model_dir import load_network, read_info


class Predictor:
    """Runs the network of a model directory.

    Args:
        model_dir: as `model_dir.py` describes it.
        device: "cpu", "gpu" or "gpu:N"; None takes a GPU where Paddle finds one.
        engine: one of `engines.load.ENGINES`, or "auto": on a CPU, the fastest that is installed
            and agrees with the network; on a GPU, "dynamic".
        precision: "float32", "bfloat16" or "int8", where the engine has it.
        threads: on a CPU; None takes all cores that the process may use.

    Attributes:
        model_dir: as above.
        info: what it says.
        device: which it is.
        engine: which it is.
        precision: as above.

    Raises:
        InputError: the model directory, the device or the engine is not usable.
        RunError: the engine does not compute the network.
    """

    def __init__(
        self,
        model_dir: Path,
        device: str | None = None,
        engine: str = "auto",
        precision: str = "float32",
        threads: int | None = None,
    ) -> None:
        self.model_dir = model_dir
        self.info = read_info(model_dir)
        self.device = _device_for(engine, device)
        self.precision = precision
        self._engine: Engine
        if self.device == "cpu":
            self.engine, self._engine = load_engine(
                model_dir, self.info, engine, precision, threads
            )
            return
        if engine not in ("auto", "dynamic") or precision != "float32":
            raise InputError(
                f"--device {self.device}: only the engine dynamic, in float32, runs on a GPU."
            )
        import paddle

        from .engines.dynamic import DynamicEngine

        paddle.set_device(self.device)
        self.engine = "dynamic"
        self._engine = DynamicEngine(load_network(model_dir, self.info), self.device)

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """float32 [N, *preprocess.input_shape] -> float32 [N, num_classes]."""
        return self._engine.logits(inputs)


def _device_for(engine: str, device: str | None) -> str:
    """The device of an engine; loads Paddle only if there may be a GPU for it to find."""
    if device is None and (engine not in ("auto", "dynamic") or not _has_gpu_package()):
        return "cpu"
    return device if device == "cpu" else choose_device(device)


def _has_gpu_package() -> bool:
    try:
        importlib.metadata.version("paddlepaddle-gpu")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def choose_device(device: str | None) -> str:
    """Checks a device name against what Paddle finds here.

    Raises:
        InputError: the name is unknown, or there is no such GPU.
    """
    import paddle

    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    if device is None:
        return "gpu" if gpus else "cpu"
    kind, _, number = device.partition(":")
    if device == "cpu":
        return device
    if kind != "gpu" or (number and not number.isdecimal()):
        raise InputError(f"--device: cpu, gpu or gpu:N was expected, found {device!r}.")
    if int(number or 0) >= gpus:
        raise InputError(f"--device {device}: Paddle finds {gpus} GPUs on this machine.")
    return device


def predict(
    predictor: Predictor, loader: Loader, k: int
) -> Iterator[tuple[Path, list[tuple[int, float]]]]:
    """Classifies images in order; those that cannot be read are left to `loader.skipped`.

    Args:
        predictor: the model.
        loader: of the images.
        k: how many classes; clamped to the number of classes.

    Yields:
        The path and its (class id, probability) pairs, largest first.
    """
    for batch in loader.epoch():
        logits = predictor.logits(batch.inputs)
        for index, ids, probabilities in zip(batch.indices, top_k(logits, k), softmax(logits)):
            yield loader.images.path(index), [(int(i), float(probabilities[i])) for i in ids]
