"""Classifies images with a model directory, from Python:

    from squeezenet_paddle import Predictor

    predictor = Predictor("output/mine")
    for class_id, name, probability in predictor("cat.jpg"):
        print(f"{probability:.1%}  {name}")

Paddle is loaded only if it is the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Union, overload

import numpy as np

from .data.decode import decode, read_image
from .data.loader import Loader
from .device import choose_device, use_device
from .engines.load import Engine, load_engine
from .errors import InputError
from .model_dir import load_network, read_info
from .network.logits import softmax, top_k

BATCH_SIZE = 32  # of a list of images

# A path; the bytes of an image file; or pixels, uint8 [H, W, 3].
ImageLike = Union[str, Path, bytes, np.ndarray]


class Prediction(NamedTuple):
    """A class of an image.

    Attributes:
        class_id: 0 to num_classes - 1.
        name: None where the model directory has no class names.
        probability: 0 to 1; over all classes they sum to 1.
    """

    class_id: int
    name: str | None
    probability: float


class Predictor:
    """Runs the network of a model directory.

    Args:
        model_dir: a model directory, or the directory of a training run, whose best model is taken.
        device: "cpu", "gpu" or "gpu:N"; None takes a GPU where Paddle finds one.
        engine: one of `engines.load.ENGINES`, or "auto": on a CPU, the fastest that is installed
            and agrees with the network; on a GPU, "dynamic".
        precision: "float32", "bfloat16" or "int8", where the engine has it.
        threads: on a CPU; None takes one per core that the process may use.

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
    ) -> None:
        self.model_dir = Path(model_dir)
        self.info = read_info(model_dir)
        if device is None and engine not in ("auto", "dynamic"):
            device = "cpu"
        self.device = choose_device(device)
        self.precision = precision
        self._engine: Engine
        if self.device == "cpu":
            self.engine, self._engine = load_engine(
                self.model_dir, self.info, engine, precision, threads
            )
            return
        if engine not in ("auto", "dynamic") or precision != "float32":
            raise InputError(
                f"`device` {self.device}: only the engine dynamic, in float32, runs on a GPU."
            )
        use_device(self.device)
        from .engines.dynamic import DynamicEngine

        self.engine = "dynamic"
        self._engine = DynamicEngine(load_network(self.model_dir, self.info), self.device)

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
            The most probable classes, the first one first; for a list, such a list per image.

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
            logits = self.logits(np.stack([self.info.preprocess(each) for each in decoded]))
            results += [
                [Prediction(i, names[i] if names else None, p) for i, p in top]
                for top in top_classes(logits, top_k)
            ]
        return results

    def logits(self, inputs: np.ndarray) -> np.ndarray:
        """Logits of inputs that `info.preprocess` made.

        Args:
            inputs: float32 [N, *info.preprocess.input_shape].

        Returns:
            float32 [N, num_classes].
        """
        return self._engine.logits(inputs)


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


def top_classes(logits: np.ndarray, k: int) -> list[list[tuple[int, float]]]:
    """The most probable classes of each image.

    Args:
        logits: [N, num_classes].
        k: how many; clamped to the number of classes.

    Returns:
        (class id, probability) pairs of each image, largest first.
    """
    return [
        [(int(i), float(probabilities[i])) for i in ids]
        for ids, probabilities in zip(top_k(logits, k), softmax(logits))
    ]


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
        for index, top in zip(batch.indices, top_classes(logits, k)):
            yield loader.images.path(index), top
