"""Trains rounded weights to say what the float network says, on images without labels.

The weights begin as `post.py` left them. What is trained of a weight is a real number in steps of
its layer; the network computes with the nearest whole one, and the gradient is that of the rounded
weight (straight-through, Bengio et al. 2013, arXiv:1308.3432). The loss is the divergence of the
network's probabilities from the float network's on crops, mirror images and mixtures of the images,
which both networks see alike (Beyer et al. 2022, arXiv:2106.05237), plus the bits of the indices,
each worth `price`. A bit's price follows the size of the file: it falls while the file is smaller
than it may be. Adam's learning rate falls to 0 as half a cosine.

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
from ..errors import InputError
from ..model_dir import network_of
from ..network import fast_cpu
from ..network.config import ModelConfig, layers
from ..network.weights import key_of
from ..progress import Progress, say
from ..sqz.format import INDICES, Array, Content, Indices, write
from ..training.checkpoint import Checkpoint, load_newest, save
from .compress import BATCH
from .post import Rounded
from .rounding import Bits

State = Mapping[str, np.ndarray]

_GROUP = 4  # images of one backward pass
_WARM_UP = 20
_RATE_OF_UNITS = 0.0003  # of the logarithm of a layer's step
_RATE_OF_BIASES = 0.001  # in deviations of the layer's weights
_BETA1, _BETA2 = 0.9, 0.99
_NEAR = 0.4  # how far from its index towards the float weight a number begins, at most
_PRICE = 4e-7  # nats a bit, at the start
_PRICED = 10  # steps between two looks at the size
_CROPPED = 0.5  # the least share of an image's area
_MIXED = 0.5  # share of the images that get a part of another one


@dataclass(frozen=True)
class Settings:
    """What a distillation depends on beside network and images.

    Attributes:
        steps: of training.
        seed: of the images' crops and mixtures.
        max_bytes: the most that the file may take.
        rate: learning rate of an index.
        checkpoint_every: steps between two checkpoints.
    """

    steps: int
    seed: int
    max_bytes: int
    rate: float = 0.003
    checkpoint_every: int = 50


def distil(
    state: State,
    start: Content,
    images: Sequence[np.ndarray],
    side: int,
    settings: Settings,
    checkpoints: Path,
    fingerprint: str,
    newest: Checkpoint | None = None,
    threads: int | None = None,
) -> Content:
    """Trains the indices, steps and biases of a compressed network; progress goes to stderr.

    Args:
        state: the float network's arrays by state-dict key.
        start: the network after `post.py`.
        images: float16, each as `Preprocess` makes it without cropping.
        side: of the network's input, in pixels.
        settings: as above.
        checkpoints: the folder that gets checkpoints.
        fingerprint: of everything that the result depends on.
        newest: what to go on from; None starts from scratch.
        threads: None takes one per core that the process may use.
    """
    config = dataclasses.replace(start.network, data_format="NCHW")
    nhwc = start.network.data_format == "NHWC"
    images = [x.transpose(2, 0, 1) if nhwc else x for x in images]
    trained = _Trained(start, state, settings.rate)
    done = 0
    if newest is not None:
        trained.load(newest.arrays, newest.record)
        done = newest.step
    divergence = _Divergence(config, state, threads)
    sizes = _Sizes(start, settings.max_bytes)
    with Progress("distilling", settings.steps, "steps", done=done) as progress:
        for step in range(done, settings.steps):
            if step % _PRICED == 0:
                excess = sizes.of(trained.content(start)) / settings.max_bytes - 1
                trained.price *= math.exp(min(max(8 * excess, -0.3), 0.3))
            x = batch_of(images, side, settings.seed, step)
            gradients = divergence.gradients(trained.state(start), x)
            share = min((step + 1) / _WARM_UP, 1.0)
            share *= 0.5 + 0.5 * math.cos(math.pi * step / settings.steps)
            trained.update(gradients, share)
            progress.update()
            if (step + 1) % settings.checkpoint_every == 0 and step + 1 < settings.steps:
                record = {"fingerprint": fingerprint, **trained.record()}
                save(checkpoints, Checkpoint(step + 1, trained.arrays(), record), keep=2)
    return trained.fitted(start, settings.max_bytes)


def newest_checkpoint(folder: Path, fingerprint: str) -> Checkpoint | None:
    """The newest checkpoint of a distillation that is not damaged; None if there are none.

    Raises:
        InputError: all are damaged, or they are those of another run.
    """
    try:
        newest = load_newest(folder, say)
    except InputError as error:  # which ends with what the commands that train do about it
        problem = str(error).rpartition(";")[0]
        raise InputError(f"{problem}; remove that folder to start from scratch.") from error
    if newest is not None and newest.record.get("fingerprint") != fingerprint:
        raise InputError(
            f"{folder} holds checkpoints of another distillation; remove it to start from scratch."
        )
    return newest


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
    """The numbers that are trained, in Caffe's order, and the state of Adam for each.

    Attributes:
        price: of a bit, in nats.
    """

    def __init__(self, start: Content, state: State, rate: float) -> None:
        self._linear = {
            f"{key_of(each)}.weight"
            for each in layers(start.network)
            if each.type == "InnerProduct"
        }
        self._steps: dict[str, np.ndarray] = {}
        self._values: dict[str, np.ndarray] = {}
        self._rates: dict[str, float] = {}
        for key, array in start.arrays.items():
            if isinstance(array, Indices):
                bias = f"{key.rpartition('.')[0]}.bias"
                self._steps[key] = np.float32(array.unit) * array.factors.astype("float32")
                index = array.values.astype("float32")
                exact = state[key].T if key in self._linear else state[key]
                steps = self._steps[key].reshape(-1, *[1] * (index.ndim - 1))
                index += np.clip(exact / steps - index, -_NEAR, _NEAR)
                self._values[f"index/{key}"] = index
                self._values[f"unit/{key}"] = np.zeros(1, "float32")
                self._values[f"bias/{bias}"] = floats_of(start, bias).astype("float32")
                deviation = float(array.weight.std())
                self._rates[f"index/{key}"] = rate
                self._rates[f"unit/{key}"] = _RATE_OF_UNITS
                self._rates[f"bias/{bias}"] = _RATE_OF_BIASES * deviation
        self._first = {name: np.zeros_like(v) for name, v in self._values.items()}
        self._second = {name: np.zeros_like(v) for name, v in self._values.items()}
        self._updates = 0
        self.price = _PRICE

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint holds."""
        parts = {"value": self._values, "first": self._first, "second": self._second}
        return {f"{part}/{n}": v for part, values in parts.items() for n, v in values.items()}

    def record(self) -> dict[str, Any]:
        """What else it holds."""
        return {"price": self.price, "updates": self._updates}

    def load(self, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
        """Goes on from what a checkpoint holds."""
        for part, values in (
            ("value", self._values),
            ("first", self._first),
            ("second", self._second),
        ):
            for name in values:
                values[name] = arrays[f"{part}/{name}"].copy()
        self.price, self._updates = record["price"], record["updates"]

    def content(self, start: Content, price: float = 0.0) -> Content:
        """The file's contents; with a `price` in squared steps, some indices are cheaper ones."""
        arrays: dict[str, Array] = dict(start.arrays)
        for key, array in start.arrays.items():
            if isinstance(array, Indices):
                u = self._values[f"index/{key}"]
                q = np.rint(u).astype("int32")
                if price:
                    rows = q.reshape(len(q), -1)
                    q = Bits(rows).cheapest(u.reshape(rows.shape), price).reshape(q.shape)
                unit = np.float32(array.unit) * np.exp(self._values[f"unit/{key}"][0])
                arrays[key] = Indices(q.astype("int16"), np.float32(unit), array.factors)
                bias = f"{key.rpartition('.')[0]}.bias"
                arrays[bias] = self._values[f"bias/{bias}"].astype(floats_of(start, bias).dtype)
        return dataclasses.replace(start, arrays=arrays)

    def fitted(self, start: Content, max_bytes: int) -> Content:
        """The contents of a file of at most `max_bytes`."""

        def fits(price: float) -> bool:
            return len(write(self.content(start, price))[0]) <= max_bytes

        low, high = 0.0, 0.01
        if fits(low):
            return self.content(start)
        while not fits(high):
            low, high = high, 2 * high
        for _ in range(5):
            middle = (low + high) / 2
            low, high = (low, middle) if fits(middle) else (middle, high)
        return self.content(start, high)

    def state(self, start: Content) -> dict[str, np.ndarray]:
        """Arrays of the rounded network by state-dict key."""
        return self.content(start).state

    def update(self, gradients: Mapping[str, np.ndarray], share: float) -> None:
        """One step of Adam, at a share of the learning rates."""
        self._updates += 1
        for key, steps in self._steps.items():
            gradient = gradients[key].T if key in self._linear else gradients[key]
            index, unit = self._values[f"index/{key}"], self._values[f"unit/{key}"]
            now = steps.reshape(-1, *[1] * (index.ndim - 1)) * np.exp(unit[0])
            of_index = gradient * now
            of_unit = float(np.sum(of_index * np.rint(index), dtype="float64"))
            of_index = of_index + np.float32(self.price) * _slopes(index)
            bias = f"{key.rpartition('.')[0]}.bias"
            self._step(f"index/{key}", of_index, share)
            self._step(f"unit/{key}", np.full(1, of_unit, "float32"), share)
            self._step(f"bias/{bias}", gradients[bias], share)
            np.clip(index, -INDICES, INDICES, out=index)

    def _step(self, name: str, gradient: np.ndarray, share: float) -> None:
        first, second = self._first[name], self._second[name]
        first += np.float32(1 - _BETA1) * (gradient - first)
        second += np.float32(1 - _BETA2) * (np.square(gradient) - second)
        size = np.sqrt(second / np.float32(1 - _BETA2**self._updates)) + np.float32(1e-16)
        rate = share * self._rates[name] / (1 - _BETA1**self._updates)
        self._values[name] -= np.float32(rate) * first / size


class _Sizes:
    """Bytes of a file, from the entropy of its indices."""

    def __init__(self, start: Content, max_bytes: int) -> None:
        self._other = len(write(start)[0]) - self._indices(start)

    @staticmethod
    def _indices(content: Content) -> float:
        return sum(
            Rounded("", array, np.zeros(0), 0.0).bytes
            for array in content.arrays.values()
            if isinstance(array, Indices)
        )

    def of(self, content: Content) -> float:
        return self._other + self._indices(content)


def floats_of(content: Content, key: str) -> np.ndarray:
    """An array of a file that is no indices."""
    array = content.arrays[key]
    assert isinstance(array, np.ndarray)
    return array


def _slopes(index: np.ndarray) -> np.ndarray:
    """How many bits an index costs more a step upwards, between the whole numbers around it."""
    nearest = np.rint(index).astype("int32")
    low = int(nearest.min()) - 2
    counts = np.bincount(nearest.ravel() - low, minlength=int(nearest.max()) + 3 - low) + 0.5
    slopes = np.diff(-np.log2(counts / counts.sum())).astype("float32")
    return slopes[np.clip(np.floor(index).astype("int32") - low, 0, len(slopes) - 1)]
