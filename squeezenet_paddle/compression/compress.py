"""Compresses the weights of a network to a size or to a loss, and measures what it costs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import InputError, RunError
from ..model_dir import ModelInfo
from ..network.logits import log_softmax
from ..network.weights import key_of
from ..progress import say
from ..sqz.format import Content, Indices, write
from ..training.checkpoint import remove_all
from .memory import Memory, newest_checkpoint
from .post import LEAST_BITS, Compressor, State
from .rounding import Rounded
from .walk import Walk

HELD_BACK = 4  # every fourth image is only for measuring, or fewer, so that they are
MOST_HELD_BACK = 128
MAX_BYTES = 450_000
STEPS = 150  # of a distillation; more fit some hundred images instead of the network
BATCH = 16  # images of a step
_TRIES = 6  # of sizes, to find the one for a loss
_FIRST_BITS = 3.0  # a weight, of the first try
_LEAST_LOSS = 0.01  # points; what is smaller is chance
_ROUNDED = "rounded"  # the folder in `checkpoints` that has the layers rounded so far
_BITS_FOR_HALF = 0.35  # bits more a weight that halve the loss, about


@dataclass(frozen=True)
class Cost:
    """What a compressed network loses against the float one, on images without labels.

    Attributes:
        images: how many it was measured on.
        agreement: the share of them for which the first class is the same.
        divergence: mean Kullback-Leibler divergence of the probabilities, in nats.
        expected_loss: of top-1, in points, if the float network's probabilities are right: the mean
            difference between those of its first class and of the compressed network's.
    """

    images: int
    agreement: float
    divergence: float
    expected_loss: float

    @staticmethod
    def between(float_logits: np.ndarray, logits: np.ndarray) -> Cost:
        """Compares the logits of both networks, [N, C]."""
        p, q = log_softmax(float_logits), log_softmax(logits)
        rows, first, other = np.arange(len(p)), p.argmax(axis=1), q.argmax(axis=1)
        lost = np.exp(p[rows, first]) - np.exp(p[rows, other])
        return Cost(
            images=len(p),
            agreement=float((first == other).mean()),
            divergence=float((np.exp(p) * (p - q)).sum(axis=1).mean()),
            expected_loss=100 * float(lost.mean()),
        )


@dataclass(frozen=True)
class Distilled:
    """How the units and biases of rounded weights are trained; see `distil.py`.

    Attributes:
        images: those of `inputs`, as `Preprocess` makes them without cropping.
        steps: of training.
    """

    images: Sequence[np.ndarray]
    steps: int


@dataclass(frozen=True)
class Compression:
    """A compressed network.

    Attributes:
        content: of the file.
        data: the file.
        sizes: bytes of its parts, whose sum is that of the file.
        layers: those with weights.
        cost: measured on the images that were held back.
        calibrated: how many images it was fitted to.
        steps: of training, of a distillation.
    """

    content: Content
    data: bytes
    sizes: dict[str, int]
    layers: list[Rounded]
    cost: Cost
    calibrated: int
    steps: int | None = None

    def record(self) -> dict[str, Any]:
        """What config.json keeps of it."""
        return {
            **(
                {"method": "post"}
                if self.steps is None
                else {"method": "distil", "steps": self.steps}
            ),
            "bytes": len(self.data),
            "calibration_images": self.calibrated,
            "checked_on_images": self.cost.images,
            "agreement": self.cost.agreement,
            "divergence": self.cost.divergence,
            "expected_loss_of_top1": self.cost.expected_loss,
        }


def compress(
    info: ModelInfo,
    state: State,
    inputs: Sequence[np.ndarray],
    *,
    max_bytes: int | None = None,
    max_loss: float | None = None,
    with_names: bool = False,
    seed: int = 0,
    threads: int | None = None,
    distilled: Distilled | None = None,
    checkpoints: Path | None = None,
) -> Compression:
    """Compresses a network; progress goes to standard error.

    Args:
        info: the description of its model directory.
        state: its float arrays by state-dict key.
        inputs: images, each as `info.preprocess` makes it, in float16; every fourth or fewer are
            held back to measure what is lost.
        max_bytes: the most that the file may take; None and no `max_loss` for `MAX_BYTES`.
        max_loss: the largest expected loss of top-1 in points, see `Cost`; the smallest file found
            that has no more is returned.
        with_names: put the class names into the file.
        seed: of random directions in which sensitivities are measured.
        threads: None takes one per core that the process may use.
        distilled: how units and biases are trained; None leaves them as they are.
        checkpoints: a folder that gets the state of the run every few seconds; the same call goes
            on from there, until `forget` removes it. None for no checkpoints.

    Raises:
        InputError: there are too few images, `max_loss` is to be distilled, the file cannot be that
            small, or the checkpoints are damaged or those of another compression.
        RunError: no file was found that loses so little.
    """
    if len(inputs) < HELD_BACK:
        raise InputError(
            f"`image`: at least {HELD_BACK} images were expected, some hundred are better; found "
            f"{len(inputs)}."
        )
    every = max(HELD_BACK, len(inputs) // MOST_HELD_BACK)
    held = inputs[every - 1 :: every]
    fitted = _without_every(every, inputs)
    extra = {
        "preprocess": info.preprocess.record(),
        "names": info.names if with_names else None,
    }
    limit = MAX_BYTES if max_bytes is None else max_bytes
    if distilled is not None:
        if max_loss is not None:
            raise InputError("`max_loss` is found by the `method` post; give distil `max_bytes`.")
        distilled = dataclasses.replace(distilled, images=_without_every(every, distilled.images))
    settings = [limit, max_loss, seed, extra, distilled and distilled.steps]
    more = distilled.images if distilled is not None else []
    fingerprint = _fingerprint(info, state, [*inputs, *more], settings)
    newest = None if checkpoints is None else newest_checkpoint(checkpoints, fingerprint)
    memory = Memory(None if checkpoints is None else checkpoints / _ROUNDED, fingerprint)
    compressor = Compressor(info.network, state, fitted, seed, extra, threads, memory)
    expected = Walk(info.network, held, threads).logits(state)

    def measured(content: Content, layers: list[Rounded], steps: int | None = None) -> Compression:
        data, sizes = write(content)
        logits = Walk(info.network, held, threads).logits(content.state)
        cost = Cost.between(expected, logits)
        return Compression(content, data, sizes, layers, cost, len(fitted), steps)

    def attempt(size: int) -> Compression:
        return measured(*compressor.compress(size))

    if distilled is not None:
        from .distil import Settings, distil  # Paddle

        start, layers = compressor.compress(limit)
        memory.save()
        content = distil(
            state,
            start,
            distilled.images,
            info.preprocess.crop_size,
            Settings(distilled.steps, seed),
            checkpoints,
            fingerprint,
            newest,
            threads,
        )
        return measured(content, _trained(layers, content), distilled.steps)

    if max_loss is None:
        return attempt(limit)

    tried: dict[int, Compression] = {}

    def loss(size: int) -> float:
        tried[size] = attempt(size)
        lost = tried[size].cost.expected_loss
        say(f"{len(tried[size].data):,} bytes: expected loss of top-1 {lost:.2f} points")
        return lost

    return tried[smallest_size(loss, max_loss, compressor.smallest, compressor.weights)]


def _without_every(n: int, images: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [x for i, x in enumerate(images) if i % n != n - 1]


def _trained(layers: Sequence[Rounded], content: Content) -> list[Rounded]:
    """The layers with what a distillation has made of them; their errors are not measured."""
    result = []
    for layer in layers:
        key = key_of(layer.name)
        indices, bias = content.arrays[f"{key}.weight"], content.arrays[f"{key}.bias"]
        assert isinstance(indices, Indices)
        assert isinstance(bias, np.ndarray)
        result.append(Rounded(layer.name, indices, bias, None))
    return result


def _fingerprint(
    info: ModelInfo, state: State, images: Sequence[np.ndarray], settings: list[Any]
) -> str:
    """Of everything that a compression depends on."""
    described = [__version__, dataclasses.asdict(info.network), settings]
    digest = hashlib.sha256(json.dumps(described).encode())
    for array in (*(state[key] for key in sorted(state)), *images):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def forget(checkpoints: Path) -> None:
    """Removes the checkpoints of a compression, once its result is written.

    What else is in the folder stays, and so does one that is a link.
    """
    for folder in (checkpoints / _ROUNDED, checkpoints):
        if folder.is_dir():
            remove_all(folder)
            if not folder.is_symlink() and not any(folder.iterdir()):
                folder.rmdir()


def smallest_size(loss: Callable[[int], float], max_loss: float, zeros: int, weights: int) -> int:
    """The smallest size found whose loss is at most `max_loss`, in a few tries.

    Args:
        loss: of a file of a size.
        max_loss: in points.
        zeros: bytes of a file whose weights are all 0.
        weights: how many there are.

    Raises:
        RunError: none was found.
    """
    limit = max(max_loss, _LEAST_LOSS)
    too_small, enough = zeros + weights * LEAST_BITS // 8, 0
    size, for_half = zeros + weights * _FIRST_BITS / 8, weights * _BITS_FOR_HALF / 8
    before: tuple[int, float] | None = None
    for _ in range(_TRIES):
        now, lost = round(size), max(loss(round(size)), _LEAST_LOSS)
        if lost <= limit:
            enough = now
        else:
            too_small = now
        if enough and enough < 1.02 * too_small:
            break
        if before is not None and (before[1] - lost) * (now - before[0]) > 0:
            for_half = (now - before[0]) / math.log2(before[1] / lost)
        before = now, lost
        size = now + for_half * min(max(math.log2(lost / limit), -2.0), 4.0)
        if enough:
            gap = enough - too_small
            size = min(max(size, too_small + gap / 5), enough - gap / 5)
        else:
            size = max(size, 1.03 * too_small)
    if not enough:
        raise RunError(f"no file was found that loses at most {max_loss:g} points (`max_loss`).")
    return enough
