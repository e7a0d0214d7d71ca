"""How a run trains, on what it computes, and what happens when. No Paddle here."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
        batch_size: pictures an update, over all processes.
        iter_size: parts in which a batch is read and computed, whose gradients add up.
        optimizer: "momentum" (Caffe's), "adam", "adamw" or "rmsprop".
        momentum: of "momentum" and "rmsprop".
        weight_decay: of every parameter, biases too.
        label_smoothing: share of the target that is spread evenly over the classes.
        clip_norm: gradients whose joint norm is larger are scaled down to it; None: never.
        ema_decay: of the moving average of the weights that is scored and kept; None: the weights.
        seed: of everything random.
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
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise InputError(f"--clip_norm: above 0 was expected, found {self.clip_norm}.")


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
