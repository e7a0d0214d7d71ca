"""Class activation maps: where in an image the network found its class.

Zhou et al., "Learning Deep Features for Discriminative Localization", arXiv:1512.04150: the logit
is a mean over positions, and the map is what it is the mean of. In SqueezeNet the activated maps of
conv10 are that already; with the head `conv_fc` they are weighted by the row of `fc`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .data.loader import Loader
from .data.preprocess import Preprocess
from .errors import InputError
from .evaluation.metrics import softmax, top_k
from .files import write_bytes
from .model_dir import load_network, read_info
from .network.config import ModelConfig, layers
from .network.heads import HEADS
from .predict import choose_device

_OPACITY = 0.5  # of the map


class Explainer:
    """Runs the network of a model directory and keeps the maps that its logits are made of.

    Args:
        model_dir: as `model_dir.py` describes it.
        device: "cpu", "gpu" or "gpu:N"; None takes a GPU where Paddle finds one.

    Attributes:
        info: what the model directory says.

    Raises:
        InputError: the model directory or the device is not usable, or the network has no maps.
    """

    def __init__(self, model_dir: Path, device: str | None = None) -> None:
        self.info = read_info(model_dir)
        if not HEADS[self.info.network.head].has_conv10:
            raise InputError(
                f"{model_dir}: a network of the head multiscale has no class activation maps; its "
                "classes are made of the means of maps."
            )
        import paddle

        self._paddle = paddle
        paddle.set_device(choose_device(device))
        self._network = load_network(model_dir, self.info)
        self._network.relu_conv10.register_forward_post_hook(self._keep)
        self._activated: Any = None

    def _keep(self, layer: Any, inputs: Any, output: Any) -> None:
        self._activated = output

    def __call__(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Classifies inputs and maps the class that each is taken for.

        Args:
            inputs: float32 [N, *preprocess.input_shape].

        Returns:
            Logits, float32 [N, num_classes], and maps, float32 [N, h, w], whose mean is the
            largest logit (less the bias of `fc`, for the head `conv_fc`).
        """
        with self._paddle.no_grad():
            logits = self._network(self._paddle.to_tensor(inputs)).numpy()
        activated = self._activated.numpy()
        if self.info.network.data_format == "NHWC":
            activated = activated.transpose(0, 3, 1, 2)
        best = top_k(logits, 1)[:, 0]
        if HEADS[self.info.network.head].classifier == "fc":
            weights = self._network.fc.weight.numpy()[:, best]  # [1000, N]
            return logits, np.einsum("nchw,cn->nhw", activated, weights)
        return logits, activated[np.arange(len(best)), best]


def centers(config: ModelConfig, count: int) -> np.ndarray:
    """float64 [count]: the pixel of the input that each row (or column) of conv10's maps sees.

    It is the middle of the window through which the position sees the input. It moves by 16 pixels
    a step, and does not start half a step from the edge, as a plain enlargement would have it.
    """
    first, step = 0.0, 1
    for layer in layers(config):
        # The branches of a fire are centered alike: 1x1 does not move the middle, 3x3 has a pad.
        if layer.type in ("Convolution", "Pooling") and layer.kernel:
            first += ((layer.kernel - 1) / 2 - layer.pad) * step
            step *= layer.stride
    return first + step * np.arange(count)


def enlarge(activation_map: np.ndarray, config: ModelConfig, size: tuple[int, int]) -> np.ndarray:
    """A map [h, w] at the [H, W] pixels of the input: linear between centers, flat outside."""
    for axis, pixels in enumerate(size):
        count = activation_map.shape[axis]
        at = np.arange(pixels)
        places = centers(config, count)
        weights = np.stack([np.interp(at, places, row) for row in np.eye(count)])  # [count, pixels]
        activation_map = np.moveaxis(np.tensordot(activation_map, weights, (axis, 0)), -1, axis)
    return activation_map


def image_of(inputs: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """The crop, uint8 [H, W, 3] in BGR, that an input was made of: undoes `normalise`."""
    crop = inputs.transpose(1, 2, 0) if preprocess.data_format == "NCHW" else inputs
    crop = (crop * np.array(preprocess.std) + np.array(preprocess.mean)) / preprocess.scale
    crop = np.clip(np.rint(crop), 0, 255).astype("uint8")
    return cv2.cvtColor(crop, cv2.COLOR_RGB2BGR) if preprocess.channel_order == "RGB" else crop


def overlay(crop: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The image, uint8 [H, W, 3] in BGR, under the colours of a map [H, W].

    Red is the largest value of the map, blue is 0 or less.
    """
    largest = heat.max()
    values = np.clip(heat / largest, 0, 1) if largest > 0 else np.zeros(heat.shape)
    colors = cv2.applyColorMap(np.rint(values * 255).astype("uint8"), cv2.COLORMAP_JET)
    return cv2.addWeighted(crop, 1 - _OPACITY, colors, _OPACITY, 0)


class PngFolder:
    """A folder that gets new PNG files, beside what is in it.

    Args:
        path: the folder; it is made.

    Raises:
        InputError: there can be no such folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: dict[str, int] = {}  # number by name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be made a folder of images ({error.strerror})."
            ) from error

    def add(self, name: str, image: np.ndarray) -> Path:
        """Writes `image` as `name`.png or, if there is one, as `name`-2.png, -3 and so on."""
        while True:
            number = self._last[name] = self._last.get(name, 0) + 1
            target = self._path / (f"{name}.png" if number == 1 else f"{name}-{number}.png")
            try:
                target.touch(exist_ok=False)
            except FileExistsError:
                continue
            write_bytes(target, cv2.imencode(".png", image)[1].tobytes())
            return target


def explain(
    explainer: Explainer, loader: Loader, k: int, folder: PngFolder
) -> Iterator[tuple[Path, list[tuple[int, float]], Path]]:
    """As `prediction.predict`, and saves the map of the first class over each image's crop.

    Yields:
        The path, its (class id, probability) pairs, and the PNG file.
    """
    info = explainer.info
    for batch in loader.epoch():
        for index, sample in zip(batch.indices, batch.inputs):
            logits, maps = explainer(sample[None])
            crop = image_of(sample, info.preprocess)
            heat = enlarge(maps[0], info.network, crop.shape[:2])
            path = loader.images.path(index)
            saved = folder.add(path.name, overlay(crop, heat))
            probabilities = softmax(logits)[0]
            yield path, [(int(i), float(probabilities[i])) for i in top_k(logits, k)[0]], saved
