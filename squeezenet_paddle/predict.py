"""Classifies images with a model directory, from Python:

    from squeezenet_paddle import Predictor

    predictor = Predictor("output/mine")
    for class_id, name, probability in predictor("cat.jpg"):
        print(f"{probability:.1%}  {name}")

A fine-tuned model knows when an image is none of its classes: the first prediction then has the
class id None and the name "none of these". is loaded only if it is the engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Union, overload

import numpy as np

from .data.decode import decode, read_image
from .data.loader import Loader
from .device import choose_device, use_device
from .engines.batches import Outputs
from .engines.load import Engine, load_engine
from .errors import InputError, RunError
from .familiarity import NONE, UNSURE, Calibration
from .model_dir import load_network, read_info
from .network.logits import softmax, top_k

BATCH_SIZE = 32  # of a list of images

# A path; the bytes of an image file; or pixels, uint8 [H, W, 3].
ImageLike = Union[str, Path, bytes, np.ndarray]


class Prediction(NamedTuple):
    """A class of an image, or that it has none.

    Attributes:
        class_id: 0 to num_classes - 1; None where the image is none of the classes, or where no
            class is as probable as was asked for. The nearest classes follow.
        name: of the class; None where the model directory has no class names. Where `class_id` is
            None it is "none of these" or "unsure".
        probability: 0 to 1; over all classes they sum to 1. NaN where `class_id` is None.
    """

    class_id: int | None
    name: str | None
    probability: float


@dataclass(frozen=True)
class Answer:
    """What a model says of an image.

    Attributes:
        logits: [num_classes], as the network gives them.
        probabilities: [num_classes], with the temperature of the calibration.
        refusal: "none of these", "unsure" or None.
        familiarity: how much the image is like those of the class it is given, in standard
            deviations above the mean of the validation images; None without a calibration.
    """

    logits: np.ndarray
    probabilities: np.ndarray
    refusal: str | None = None
    familiarity: float | None = None

    def top(self, k: int) -> list[tuple[int, float]]:
        """(class id, probability) of the `k` most probable classes, or of all, largest first."""
        return [(int(i), float(self.probabilities[i])) for i in top_k(self.logits[None], k)[0]]


def answers_of(
    logits: np.ndarray,
    means: np.ndarray | None,
    calibration: Calibration | None,
    min_probability: float | None = None,
) -> list[Answer]:
    """An answer for each image.

    Args:
        logits: float32 [N, num_classes].
        means: float32 [N, 512], of fire9's maps; None where there is no calibration.
        calibration: of the model; None where it has none.
        min_probability: an image is unsure if no class is as probable; None for no limit.

    Raises:
        RunError: logits are NaN or infinite.
    """
    check_finite(logits)
    familiarity: list[float | None] = [None] * len(logits)
    refused = np.zeros(len(logits), bool)
    if calibration is not None:
        assert means is not None
        values = calibration.familiarity(logits, means)
        familiarity, refused = values.tolist(), values < calibration.threshold
        probabilities = softmax(calibration.calibrated(logits))
    else:
        probabilities = softmax(logits)
    answers = []
    for i, row in enumerate(probabilities):
        refusal = NONE if refused[i] else None
        if refusal is None and min_probability is not None and row.max() < min_probability:
            refusal = UNSURE
        answers.append(Answer(logits[i], row, refusal, familiarity[i]))
    return answers


def check_finite(logits: np.ndarray) -> None:
    """Refuses logits that say nothing.

    Raises:
        RunError: some are NaN or infinite.
    """
    if not np.isfinite(logits).all():
        raise RunError("the network gives NaN or infinite logits: its weights are too large.")


def predictions(answer: Answer, k: int, names: Sequence[str] | None) -> list[Prediction]:
    """An answer as `Predictor` returns it."""
    top = [Prediction(i, names[i] if names else None, p) for i, p in answer.top(k)]
    return top if answer.refusal is None else [Prediction(None, answer.refusal, math.nan), *top]


class Predictor:
    """Runs the network of a model directory.

    Args:
        model_dir: a model directory, or the directory of a training run, whose best model is taken.
        device: "cpu", "gpu" or "gpu:N"; None takes a GPU where Paddle finds one.
        engine: one of `engines.load.ENGINES`, or "auto": on a CPU, the fastest that is installed
            and agrees with the network; on a GPU, "dynamic".
        precision: "float32", "bfloat16" or "int8", where the engine has it.
        threads: on a CPU; None takes one per core that the process may use.
        min_probability: an image is "unsure" if no class is as probable; None for no limit.

    Attributes:
        model_dir, device, engine, precision: as above, with the device and engine that were chosen.
        info: the description of the model directory.

    Raises:
        InputError: the model directory, the device or the engine is not usable.
        RunError: the engine does not compute the network.
    """

    def __init__(
        self,
        model_dir: str | Path,
        device: str | None = None,
        engine: str = "auto",
        precision: str = "float32",
        threads: int | None = None,
        min_probability: float | None = None,
    ) -> None:
        if min_probability is not None and not 0 <= min_probability <= 1:
            raise InputError(f"`min_probability`: 0 to 1 was expected, found {min_probability}.")
        self.min_probability = min_probability
        self.model_dir = Path(model_dir)
        self.info = read_info(model_dir)
        if device is None and engine not in ("auto", "dynamic"):
            device = "cpu"
        self.device = choose_device(device)
        self.precision = precision
        self._engine: Engine
        with_means = self.info.calibration is not None
        if self.device == "cpu":
            self.engine, self._engine = load_engine(
                self.model_dir, self.info, engine, precision, threads, with_means
            )
            return
        if engine not in ("auto", "dynamic") or precision != "float32":
            raise InputError(
                f"`device` {self.device}: only the engine dynamic, in float32, runs on a GPU."
            )
        use_device(self.device)
        from .engines.dynamic import DynamicEngine

        self.engine = "dynamic"
        network = load_network(self.model_dir, self.info)
        self._engine = DynamicEngine(network, self.device, with_means=with_means)

    @overload
    def __call__(
        self, images: ImageLike, top_k: int = 5, color: str = "bgr"
    ) -> list[Prediction]: ...

    @overload
    def __call__(
        self, images: list[ImageLike], top_k: int = 5, color: str = "bgr"
    ) -> list[list[Prediction]]: ...

    def __call__(
        self, images: ImageLike | list[ImageLike], top_k: int = 5, color: str = "bgr"
    ) -> list[Prediction] | list[list[Prediction]]:
        """Classifies an image, or each image of a list.

        Args:
            images: a path, the bytes of an image file, pixels as uint8 [H, W, 3], or a list of
                these.
            top_k: how many classes; at most all of them.
            color: order of the channels of pixels: "bgr", as OpenCV reads images, or "rgb", as
                Pillow does. Files and bytes need none.

        Returns:
            The most probable classes, the first one first; for a list, such a list per image. If
            the image is none of them, or unsure, one prediction more that says so comes before.

        Raises:
            InputError: an image cannot be read, or an argument is none of these.
        """
        if color not in ("bgr", "rgb"):
            raise InputError(f"color: bgr or rgb was expected, found {color!r}.")
        if top_k < 1:
            raise InputError(f"top_k: a whole number of at least 1 was expected, found {top_k}.")
        if not isinstance(images, (list, tuple)):
            return self([images], top_k, color)[0]
        names = self.info.names
        results: list[list[Prediction]] = []
        for start in range(0, len(images), BATCH_SIZE):
            decoded = [_decoded(each, color) for each in images[start : start + BATCH_SIZE]]
            answers = self.answers(np.stack([self.info.preprocess(each) for each in decoded]))
            results += [predictions(answer, top_k, names) for answer in answers]
        return results

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """Logits of inputs that `info.preprocess` made.

        Args:
            inputs: float32 [N, *info.preprocess.input_shape].

        Returns:
            float32 [N, num_classes].
        """
        return self._engine.logits(inputs)

    def outputs(self, inputs: np.ndarray) -> Outputs:
        """Logits and, where the model has a calibration, the means of fire9's maps."""
        return self._engine.outputs(inputs)

    def answers(self, inputs: np.ndarray) -> list[Answer]:
        """What the model says of inputs that `info.preprocess` made, with its calibration."""
        logits, means = self.outputs(inputs)
        return answers_of(logits, means, self.info.calibration, self.min_probability)


def _decoded(image: ImageLike, color: str) -> np.ndarray:
    """Pixels of an image, uint8 [H, W, 3] in BGR."""
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    if isinstance(image, bytes):
        return decode(image, "the bytes given")
    if not isinstance(image, np.ndarray):
        raise InputError(
            "an image was expected as a path, bytes, or a numpy array uint8 [H, W, 3]; "
            f"found {type(image).__name__}."
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(
            "an image as a numpy array has to be uint8 [H, W, 3], with values 0 to 255; "
            f"found {image.dtype} {list(image.shape)}."
        )
    return image if color == "bgr" else np.ascontiguousarray(image[:, :, ::-1])


def predict(predictor: Predictor, loader: Loader) -> Iterator[tuple[Path, Answer]]:
    """Classifies images in order; those that cannot be read are left to `loader.skipped`.

    Args:
        predictor: the model.
        loader: of the images.

    Yields:
        The path and the answer.
    """
    for batch in loader.epoch():
        for index, answer in zip(batch.indices, predictor.answers(batch.inputs)):
            yield loader.images.path(index), answer
