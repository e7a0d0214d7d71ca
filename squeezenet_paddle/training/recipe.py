"""How a run trains, from what, on what it computes, and what happens when. No Paddle here."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..data.loader import Batches
from ..errors import InputError
from .schedule import Schedule

OPTIMIZERS = ("momentum", "adam", "adamw", "rmsprop")


@dataclass(frozen=True)
class Amp:
    """Mixed precision.

    Attributes:
        level: "O1", operators that gain from it and lose little; "O2", nearly all of them. The
            weights stay float32.
        dtype: "float16", with a loss scale, or "bfloat16".
    """

    level: str
    dtype: str = "float16"


@dataclass(frozen=True)
class Recipe:
    """How to train. The defaults are the authors' solver.prototxt.

    Attributes:
        schedule: the learning rate, and the length of the run in updates.
        batch_size: images an update, over all processes.
        iter_size: parts in which a batch is read and computed, whose gradients add up.
        optimizer: "momentum" (Caffe's), "adam", "adamw" or "rmsprop".
        momentum: of "momentum" and "rmsprop".
        weight_decay: of every parameter, biases too.
        label_smoothing: share of the target that is spread evenly over the classes.
        clip_norm: gradients whose joint norm is larger are scaled down to it; None: never.
        ema_decay: of the moving average of the weights that is scored and kept; None: the weights.
        seed: of everything random.
        first: the first of `architecture.STAGES` that is trained; those before it stay as they are.
        head_lr_mult: what the learning rate is multiplied by for the stage "head".
        balance: images of rare classes count more, so that all classes count the same.
        patience: evaluations without a better score after which the run ends; None: it does not.
    """

    schedule: Schedule
    batch_size: int = 512
    iter_size: int = 16
    optimizer: str = "momentum"
    momentum: float = 0.9
    weight_decay: float = 2e-4
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    ema_decay: float | None = None
    seed: int = 0
    first: str = "conv1"
    head_lr_mult: float = 1.0
    balance: bool = False
    patience: int | None = None

    def __post_init__(self) -> None:
        for flag, value, low, high in (
            ("momentum", self.momentum, 0, 1),
            ("label_smoothing", self.label_smoothing, 0, 1),
            ("ema_decay", self.ema_decay or 0, 0, 1),
            ("weight_decay", self.weight_decay, 0, math.inf),
        ):
            if not low <= value < high:
                wanted = "at least 0" if high == math.inf else "at least 0 and below 1"
                raise InputError(f"--{flag}: {wanted} was expected, found {value}.")
        for flag, limit in (("clip_norm", self.clip_norm), ("head_lr_mult", self.head_lr_mult)):
            if limit is not None and not 0 < limit < math.inf:
                raise InputError(f"--{flag}: above 0 was expected, found {limit}.")

    def is_done(self, step: int, not_better: int) -> bool:
        """Whether `step` updates are all, or the last `not_better` evaluations are too many."""
        if self.patience is not None and not_better >= self.patience:
            return True
        return step >= self.schedule.max_steps


def balanced_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """What an image counts by its class, so that all classes count the same: 1 on average.

    Args:
        labels: of all images, int64 [n].
        num_classes: length of the result.

    Returns:
        float32 [num_classes]; 0 for a class that has no image.
    """
    counts = np.bincount(labels, minlength=num_classes)
    present = np.count_nonzero(counts)
    weights = len(labels) / (present * np.maximum(counts, 1))
    return np.where(counts > 0, weights, 0).astype("float32")


@dataclass(frozen=True)
class Inputs:
    """What a run reads.

    Attributes:
        train: the training list, whose sampler has batches of a part, `batch_size / iter_size`.
        val: the validation list; None for none.
        features_size: height and width of the images of which the batches hold, in place of
            pixels, the features before the first trained stage, as `model.unpacked` takes them;
            None: pixels.
    """

    train: Batches
    val: Batches | None
    features_size: int | None = None


@dataclass(frozen=True)
class Machine:
    """On what a run computes; nothing here is meant to change what it learns.

    Attributes:
        device: "cpu", "gpu" or "gpu:N".
        to_static: through the static graph.
        amp: mixed precision; None for float32.
    """

    device: str = "cpu"
    to_static: bool = False
    amp: Amp | None = None


@dataclass(frozen=True)
class Intervals:
    """What happens every so many updates.

    Attributes:
        log: a line of progress.
        evaluate: a score on the validation list.
        save: a checkpoint.
        keep: checkpoints that stay.
    """

    log: int
    evaluate: int
    save: int
    keep: int = 3
