"""Class activation maps: where in an image the network sees evidence for a class.

For the heads with a conv10 the map is exact (Zhou et al., "Learning Deep Features for
Discriminative Localization", arXiv:1512.04150): the logit is the mean of the map over its
positions. The activated maps of conv10 are such maps already; with the head `conv_fc` they are
weighted by the row of `fc`.

The heads `multiscale` and `compact` are small networks on the means of all fires' maps, so their
logits are not sums over positions. There, each channel is weighted by the gradient of the logit, as
in Grad-CAM (Selvaraju et al., arXiv:1610.02391), and counted from its mean over the training data.
That is a linear approximation around this image: it shows which positions raise the logit while the
same hidden units stay active, not what the network would say if a position were covered. The maps
of all fires are added; early ones give detail, late ones coarse shapes. With ReLU the approximation
is exact up to a constant: the means of the maps sum to the logit minus the value of the linear
function at the training data's mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from .data.decode import MAX_PIXELS, read_image
from .data.loader import Loader
from .data.preprocess import Preprocess
from .device import use_device
from .errors import InputError
from .evaluation import plots
from .files import write_bytes
from .model_dir import load_network, read_info
from .network.centers import centers
from .network.config import FIRE9_CHANNELS, FIRES, ModelConfig
from .network.heads import HEADS
from .network.logits import top_k
from .predict import Answer, answers_of

_OPACITY = 0.75  # of the largest value of a map
_SIDE = 360  # pixels of the longer side of an image beside its map
_COLORS = cv2.COLORMAP_INFERNO  # perceptually uniform


class Map(NamedTuple):
    """Evidence for a class at the positions of a layer.

    Attributes:
        layer: the layer whose positions they are.
        values: float32 [N, h, w].
    """

    layer: str
    values: np.ndarray


class Explainer:
    """Runs the network of a model directory and maps the evidence for the predicted class.

    Args:
        model_dir: as `model_dir.py` describes it.
        device: "cpu", "gpu" or "gpu:N"; None takes a GPU where Paddle finds one.
        min_probability: an image is unsure if no class is as probable; None for no limit.

    Attributes:
        info: the description of the model directory.

    Raises:
        InputError: the model directory or the device is not usable.
    """

    def __init__(
        self,
        model_dir: str | Path,
        device: str | None = None,
        min_probability: float | None = None,
    ) -> None:
        import paddle

        self._min_probability = min_probability
        self.info = read_info(model_dir)
        self._head = HEADS[self.info.network.head]
        self._paddle = paddle
        use_device(device)
        self._network = load_network(model_dir, self.info)
        self._outputs: dict[str, Any] = {}
        names = FIRES if self._head.pools_fires else ("relu_conv10",)
        for name in names:
            layer = getattr(self._network, name)
            layer.register_forward_post_hook(
                lambda layer, inputs, output, name=name: self._outputs.update({name: output})
            )

    def __call__(self, inputs: np.ndarray) -> tuple[np.ndarray, list[Map]]:
        """Classifies inputs and maps the class that each is classified as.

        Args:
            inputs: float32 [N, *preprocess.input_shape].

        Returns:
            Logits, float32 [N, num_classes], and maps; see the module for what their means are.
            One map, or one for each fire with the heads `multiscale` and `compact`.
        """
        logits, _, maps = self._run(inputs)
        return logits, maps

    def answers(self, inputs: np.ndarray) -> tuple[list[Answer], list[Map]]:
        """The same, with the model's calibration."""
        logits, means, maps = self._run(inputs)
        return answers_of(logits, means, self.info.calibration, self._min_probability), maps

    def _run(self, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[Map]]:
        """Logits, the means of fire9's maps, and maps of evidence."""
        network = self._network
        with self._paddle.no_grad():
            features = network.forward_features(self._paddle.to_tensor(inputs))
        features.stop_gradient = False
        logits = network.forward_head(features)
        best = top_k(logits.numpy(), 1)[:, 0]
        if not self._head.pools_fires:
            axes = (2, 3) if self.info.network.data_format == "NCHW" else (1, 2)
            means = features.numpy().mean(axis=axes)
            return logits.numpy(), means, [Map("conv10", self._conv10(best))]
        chosen = self._paddle.take_along_axis(logits, self._paddle.to_tensor(best[:, None]), 1)
        gradient = self._paddle.grad(chosen.sum(), features)[0].numpy()
        mean = network.bn_pools._mean.numpy()
        maps, start = [], 0
        for fire in FIRES:
            output = self._channels_first(fire)
            channels = slice(start, start + output.shape[1])
            start = channels.stop
            deviation = output - mean[channels, None, None]
            maps.append(Map(fire, np.einsum("nchw,nc->nhw", deviation, gradient[:, channels])))
        return logits.numpy(), features.numpy()[:, -FIRE9_CHANNELS:], maps

    def _conv10(self, best: np.ndarray) -> np.ndarray:
        """float32 [N, h, w], whose mean is the largest logit (without the bias of `fc`)."""
        activated = self._channels_first("relu_conv10")
        if self._head.classifier == "fc":
            weights = self._network.fc.weight.numpy()[:, best]  # [1000, N]
            return np.einsum("nchw,cn->nhw", activated, weights)
        return activated[np.arange(len(best)), best]

    def _channels_first(self, name: str) -> np.ndarray:
        """The output of a sublayer, float32 [N, C, h, w]."""
        output = self._outputs[name].numpy()
        return output.transpose(0, 3, 1, 2) if self.info.network.data_format == "NHWC" else output


def enlarge(values: np.ndarray, at: Sequence[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """A map at every pixel of the input: linear between the centers, constant outside.

    Args:
        values: [h, w].
        at: `centers` of the rows and of the columns.
        size: height and width of the input.
    """
    for axis, (places, pixels) in enumerate(zip(at, size)):
        weights = np.stack(
            [np.interp(np.arange(pixels), places, row) for row in np.eye(len(places))]
        )  # [count, pixels]
        values = np.moveaxis(np.tensordot(values, weights, (axis, 0)), -1, axis)
    return values


def heat_of(maps: Sequence[Map], index: int, config: ModelConfig, size: int) -> np.ndarray:
    """float64 [size, size]: the sum of an input's maps at every pixel of the crop."""
    heat = np.zeros((size, size))
    for layer, values in maps:
        at = [centers(config, layer, count) for count in values.shape[1:]]
        heat += enlarge(values[index], at, (size, size))
    return heat


def overlay(image: np.ndarray, heat: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """An image under the colours of its map, uint8 in its size; the map's strength is its opacity.

    Args:
        image: uint8 [H, W, 3], BGR.
        heat: [crop_size, crop_size]; values of 0 or less are transparent. What lies outside the
            crop, and so was not seen, is a little darker.
        preprocess: how the crop was made of the image.
    """
    size = preprocess.resized(image).shape[:2]
    strength, outside = np.zeros(size, "float32"), np.ones(size, "float32")
    if heat.max() > 0:
        preprocess.center_crop(strength)[:] = np.clip(heat / heat.max(), 0, 1)
    preprocess.center_crop(outside)[:] = 0
    height, width = image.shape[:2]
    strength, outside = (
        cv2.resize(each, (width, height), interpolation=cv2.INTER_LINEAR)[:, :, None]
        for each in (strength, outside)
    )
    colors = cv2.applyColorMap(np.rint(strength * 255).astype("uint8"), _COLORS)
    opacity = strength * _OPACITY
    return np.rint((1 - 0.3 * outside) * (image * (1 - opacity) + colors * opacity)).astype("uint8")


def explanation(image: np.ndarray, heat: np.ndarray, preprocess: Preprocess, caption: str) -> bytes:
    """A PNG file: an image, its map beside it, and a line of text below.

    Args:
        image: uint8 [H, W, 3], BGR.
        heat: see `overlay`.
        preprocess: how the crop was made of the image.
        caption: the line.
    """
    if preprocess.resize == "short_side":  # which may leave out the ends of a long image
        image = preprocess.resized(image)
    image = plots.resized(image, _SIDE)
    return plots.captioned([image, overlay(image, heat, preprocess)], caption)


class PngFolder:
    """A folder that gets new PNG files and keeps what is in it.

    Args:
        path: the folder, which is made if it does not exist.

    Raises:
        InputError: there can be no such folder.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = path = Path(path)
        self._last: dict[str, int] = {}  # number by name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{path}: cannot be made a folder of images ({error.strerror})."
            ) from error

    def add(self, name: str, png: bytes) -> Path:
        """Writes `png` as `name`.png or, if that exists, as `name`-2.png, -3 and so on."""
        while True:
            number = self._last[name] = self._last.get(name, 0) + 1
            target = self._path / (f"{name}.png" if number == 1 else f"{name}-{number}.png")
            try:
                target.touch(exist_ok=False)
            except FileExistsError:
                continue
            write_bytes(target, png)
            return target


def explain(
    explainer: Explainer,
    loader: Loader,
    folder: PngFolder,
    names: Sequence[str] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[tuple[Path, Answer, Path]]:
    """Classifies images as `predict` does, and saves each with the map of its first class.

    Args:
        explainer: the model.
        loader: of the images, center crops.
        folder: where the PNG files go.
        names: class names; None shows class ids.
        max_pixels: of the loader.

    Yields:
        The path, the answer, and the PNG file.
    """
    config, preprocess = explainer.info.network, explainer.info.preprocess
    for batch in loader.epoch():
        for index, sample in zip(batch.indices, batch.inputs):
            [answer], maps = explainer.answers(sample[None])
            [(best, probability)] = answer.top(1)
            name = plots.short_name(names[best]) if names else f"class {best}"
            caption = f"{probability:.1%}  {name}"
            if answer.refusal is not None:
                caption = f"{answer.refusal}; nearest: {name}"
            path = loader.images.path(index)
            image = read_image(path, max_pixels)
            heat = heat_of(maps, 0, config, preprocess.crop_size)
            png = explanation(image, heat, preprocess, caption)
            yield path, answer, folder.add(path.name, png)
