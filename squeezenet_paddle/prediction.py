"""A model directory as a function from inputs to logits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .errors import InputError
from .loader import Loader
from .metrics import softmax, top_k
from .model_dir import load_network, read_info


class Predictor:
    """Runs the network of a model directory.

    Args:
        model_dir: as `model_dir.py` describes it.
        device: "cpu", "gpu" or "gpu:N"; None takes a GPU where Paddle finds one.

    Attributes:
        info: what the model directory says.

    Raises:
        InputError: the model directory or the device is not usable.
    """

    def __init__(self, model_dir: Path, device: str | None = None) -> None:
        self.info = read_info(model_dir)
        import paddle

        from .engines import DynamicEngine

        self.device = choose_device(device)
        paddle.set_device(self.device)
        self._engine = DynamicEngine(load_network(model_dir, self.info), self.device)

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """float32 [N, *preprocess.input_shape] -> float32 [N, num_classes]."""
        return self._engine.logits(inputs)


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
    """Classifies pictures in order; those that cannot be read are left to `loader.skipped`.

    Args:
        predictor: the model.
        loader: of the pictures.
        k: how many classes; clamped to the number of classes.

    Yields:
        The path and its (class id, probability) pairs, largest first.
    """
    for batch in loader.epoch():
        logits = predictor.logits(batch.inputs)
        for index, ids, probabilities in zip(batch.indices, top_k(logits, k), softmax(logits)):
            yield loader.images.path(index), [(int(i), float(probabilities[i])) for i in ids]
