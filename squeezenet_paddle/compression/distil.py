"""Trains the biases of a compressed network, and a scale for each layer, without labels.

The indices stay as `post.py` left them. The loss is the divergence of the network's probabilities
from the float network's on crops, mirror images and mixtures of the images, which both networks see
alike (Beyer et al. 2022, arXiv:2106.05237). Adam's learning rate falls to 0 as half a cosine.

Everything random is a function of (seed, step), and gradients are summed over groups of images that
do not depend on the number of threads: a resumed run gives the file of an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle
import paddle.nn.functional as F

from ..device import use_device
from ..engines.threads import PinnedThreads
from ..model_dir import network_of
from ..network import fast_cpu
from ..network.config import ModelConfig
from ..progress import Progress
from ..sqz.format import Array, Content, Indices
from ..training.checkpoint import Checkpoint, save
from .compress import BATCH

State = Mapping[str, np.ndarray]

_GROUP = 4  # images of one backward pass
_WARM_UP = 20
_RATE_OF_UNITS = 0.0003  # of the logarithm of a layer's unit
_RATE_OF_BIASES = 0.001  # in deviations of the layer's weights
_BETA1, _BETA2 = 0.9, 0.99
_CROPPED = 0.5  # the least share of an image's area
_MIXED = 0.5  # share of the images that get a part of another one


@dataclass(frozen=True)
class Settings:
    """What a distillation depends on beside network and images.

    Attributes:
        steps: of training.
        seed: of the images' crops and mixtures.
        checkpoint_every: steps between two checkpoints.
    """

    steps: int
    seed: int
    checkpoint_every: int = 50


def distil(
    state: State,
    start: Content,
    images: Sequence[np.ndarray],
    side: int,
    settings: Settings,
    checkpoints: Path | None,
    fingerprint: str,
    newest: Checkpoint | None = None,
    threads: int | None = None,
) -> Content:
    """Trains biases and units of a compressed network; progress goes to stderr.

    Args:
        state: the float network's arrays by state-dict key.
        start: the network after `post.py`.
        images: float16, each as `Preprocess` makes it without cropping.
        side: of the network's input, in pixels.
        settings: as above.
        checkpoints: the folder that gets checkpoints; None for none.
        fingerprint: of everything that the result depends on.
        newest: what to go on from; None starts from scratch.
        threads: None takes one per core that the process may use.
    """
    config = dataclasses.replace(start.network, data_format="NCHW")
    nhwc = start.network.data_format == "NHWC"
    images = [x.transpose(2, 0, 1) if nhwc else x for x in images]
    trained = _Trained(start)
    done = 0
    if newest is not None:
        trained.load(newest.arrays)
        done = newest.step
    divergence = _Divergence(config, state, threads)
    with Progress("distilling", settings.steps, "steps", done=done) as progress:
        for step in range(done, settings.steps):
            x = batch_of(images, side, settings.seed, step)
            now = trained.content(start).state
            gradients = divergence.gradients(now, x)
            share = min((step + 1) / _WARM_UP, 1.0)
            share *= 0.5 + 0.5 * math.cos(math.pi * step / settings.steps)
            trained.update(gradients, now, step, share)
            progress.update()
            is_due = (step + 1) % settings.checkpoint_every == 0 and step + 1 < settings.steps
            if checkpoints is not None and is_due:
                record = {"fingerprint": fingerprint}
                save(checkpoints, Checkpoint(step + 1, trained.arrays(), record), keep=2)
    return trained.content(start)


def batch_of(images: Sequence[np.ndarray], side: int, seed: int, step: int) -> np.ndarray:
    """The images of a step, float32 [N, 3, side, side], from `images`, float16 [3, H, W] each."""
    crops = [_crop(images, side, np.random.default_rng([seed, step, i])) for i in range(BATCH)]
    rng = np.random.default_rng([seed, step])
    result = np.stack(crops)
    for i in range(BATCH):
        kind, share, place = rng.random(), rng.random(), rng.random(2)
        other = crops[int(rng.random() * BATCH)]
        if kind < _MIXED / 2:
            share = 0.5 + 0.5 * share
            result[i] = share * result[i] + (1 - share) * other
        elif kind < _MIXED:
            size = int(side * (0.3 + 0.5 * share))
            top, left = (place * (side - size + 1)).astype(int)
            window = np.s_[:, top : top + size, left : left + size]
            result[i][window] = other[window]
    return result


def _crop(images: Sequence[np.ndarray], side: int, rng: np.random.Generator) -> np.ndarray:
    """Half or more of one of the images, mirrored or not, float32 [3, side, side]."""
    image = images[int(rng.random() * len(images))].astype("float32").transpose(1, 2, 0)
    height, width = image.shape[:2]
    share = math.sqrt(_CROPPED + (1 - _CROPPED) * rng.random())
    stretch = math.exp(0.2 * (rng.random() - 0.5))
    h, w = min(round(height * share / stretch), height), min(round(width * share * stretch), width)
    top, left = int(rng.random() * (height - h + 1)), int(rng.random() * (width - w + 1))
    crop = cv2.resize(image[top : top + h, left : left + w], (side, side))
    return (crop[:, ::-1] if rng.random() < 0.5 else crop).transpose(2, 0, 1)


class _Divergence:
    """The divergence of a network's probabilities from those of the float network."""

    def __init__(self, config: ModelConfig, state: State, threads: int | None) -> None:
        use_device("cpu")
        self._float = network_of(config, state, "the network")
        self._float.eval()
        self._names = [name for name, _ in self._float.named_parameters()]
        self._threads = PinnedThreads(threads)

    def gradients(self, state: State, x: np.ndarray) -> dict[str, np.ndarray]:
        """Of the mean divergence over the images, by state-dict key."""

        def work(images: np.ndarray) -> list[np.ndarray]:
            values = paddle.to_tensor(images)
            with paddle.no_grad():
                wanted = F.softmax(fast_cpu.forward(self._float, values))
            own = {name: paddle.to_tensor(state[name]) for name in self._names}
            for tensor in own.values():
                tensor.stop_gradient = False
            logits = fast_cpu.forward(self._float, values, parameters=own)
            loss = -(wanted * F.log_softmax(logits)).sum() / len(x)
            loss.backward()
            return [
                np.zeros(tensor.shape, "float32") if tensor.grad is None else tensor.grad.numpy()
                for tensor in own.values()
            ]

        groups = [x[i : i + _GROUP] for i in range(0, len(x), _GROUP)]
        total: list[Any] = [0.0] * len(self._names)
        for i in range(0, len(groups), self._threads.count):
            for found in self._threads.map(work, groups[i : i + self._threads.count]):
                total = [a + b for a, b in zip(total, found)]
        return dict(zip(self._names, total))


class _Trained:
    """The numbers that are trained, and the state of Adam for each.

    Of a unit it is the logarithm of what it is multiplied with.
    """

    def __init__(self, start: Content) -> None:
        self._values: dict[str, np.ndarray] = {}
        self._rates: dict[str, float] = {}
        for key, array in start.arrays.items():
            if isinstance(array, Indices):
                bias = _bias_of(key)
                self._values[f"unit/{key}"] = np.zeros(1, "float32")
                self._values[f"bias/{bias}"] = floats_of(start, bias).astype("float32")
                self._rates[f"unit/{key}"] = _RATE_OF_UNITS
                self._rates[f"bias/{bias}"] = _RATE_OF_BIASES * float(array.weight.std())
        self._first = {name: np.zeros_like(v) for name, v in self._values.items()}
        self._second = {name: np.zeros_like(v) for name, v in self._values.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint holds."""
        parts = {"value": self._values, "first": self._first, "second": self._second}
        return {f"{part}/{n}": v for part, values in parts.items() for n, v in values.items()}

    def load(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Goes on from what a checkpoint holds."""
        for part, values in (
            ("value", self._values),
            ("first", self._first),
            ("second", self._second),
        ):
            for name in values:
                values[name] = arrays[f"{part}/{name}"].copy()

    def content(self, start: Content) -> Content:
        """The file's contents."""
        arrays: dict[str, Array] = dict(start.arrays)
        for key, array in start.arrays.items():
            if isinstance(array, Indices):
                unit = np.float32(array.unit) * np.exp(self._values[f"unit/{key}"][0])
                arrays[key] = dataclasses.replace(array, unit=np.float32(unit))
                bias = _bias_of(key)
                arrays[bias] = self._values[f"bias/{bias}"].astype(floats_of(start, bias).dtype)
        return dataclasses.replace(start, arrays=arrays)

    def update(
        self, gradients: Mapping[str, np.ndarray], now: State, step: int, share: float
    ) -> None:
        """One step of Adam, the first of which is 0, at a share of the learning rates."""
        for name, value in self._values.items():
            kind, _, key = name.partition("/")
            gradient = gradients[key]
            if kind == "unit":
                gradient = np.full(1, np.sum(gradient * now[key], dtype="float64"), "float32")
            first, second = self._first[name], self._second[name]
            first += np.float32(1 - _BETA1) * (gradient - first)
            second += np.float32(1 - _BETA2) * (np.square(gradient) - second)
            size = np.sqrt(second / np.float32(1 - _BETA2 ** (step + 1))) + np.float32(1e-16)
            rate = share * self._rates[name] / (1 - _BETA1 ** (step + 1))
            value -= np.float32(rate) * first / size


def _bias_of(weight: str) -> str:
    return f"{weight.rpartition('.')[0]}.bias"


def floats_of(content: Content, key: str) -> np.ndarray:
    """An array of a file that is no indices."""
    array = content.arrays[key]
    assert isinstance(array, np.ndarray)
    return array
