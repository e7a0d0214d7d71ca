"""Learning-rate policies and optimizers, as Caffe's solver defines them where it has them."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from .errors import InputError

POLICIES = ("poly", "cosine", "step", "multistep", "constant")
OPTIMIZERS = ("momentum", "adam", "adamw", "rmsprop")


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a function of the update.

    The defaults are the authors' solver.prototxt: a polynomial of power 1 from 0.04 to 0.

    Attributes:
        max_steps: updates in the whole run.
        base_lr: the rate that the policy starts from.
        policy: "poly", base * (1 - step / max_steps) ** power; "cosine", half a wave from base to
            `eta_min` in `cosine_t_max` updates, then again; "step", base * gamma ** (step //
            step_size); "multistep", times gamma at each of `milestones`; "constant".
        power: of "poly".
        cosine_t_max: None for one half wave over the whole run.
        eta_min: the lowest rate of "cosine".
        gamma, step_size, milestones: of "step" and "multistep", in updates.
        warmup_steps: the rate grows linearly to the policy's over so many updates.
    """

    max_steps: int
    base_lr: float = 0.04
    policy: str = "poly"
    power: float = 1.0
    cosine_t_max: int | None = None
    eta_min: float = 0.0
    gamma: float = 0.1
    step_size: int | None = None
    milestones: Sequence[int] = ()
    warmup_steps: int = 0

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise InputError(
                f"lr_policy must be one of {', '.join(POLICIES)}, found {self.policy!r}."
            )
        if not 0 < self.base_lr < math.inf:
            raise InputError(f"lr must be a number above 0, found {self.base_lr}.")
        if self.policy == "step" and not self.step_size:
            raise InputError("lr_policy step needs step_size, the updates between two steps.")
        if self.policy == "multistep" and list(self.milestones) != sorted(self.milestones):
            raise InputError(f"milestones must ascend, found {list(self.milestones)}.")

    def lr(self, step: int) -> float:
        """The rate of the update `step`, counted from 0."""
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return warmup * self._policy(step)

    def _policy(self, step: int) -> float:
        if self.policy == "poly":
            return self.base_lr * (1 - step / self.max_steps) ** self.power
        if self.policy == "cosine":
            period = self.cosine_t_max or self.max_steps
            wave = (1 + math.cos(math.pi * (step % period) / period)) / 2
            return self.eta_min + (self.base_lr - self.eta_min) * wave
        if self.policy == "step":
            assert self.step_size is not None
            return self.base_lr * self.gamma ** (step // self.step_size)
        if self.policy == "multistep":
            return self.base_lr * self.gamma ** bisect.bisect_right(self.milestones, step)
        return self.base_lr


class CaffeMomentum:
    """Stochastic gradient descent with momentum by Caffe's definition.

    v = momentum * v + lr * (gradient + weight_decay * w); w = w - v. Paddle's own multiplies the
    whole velocity by the rate of the moment, so that under a falling rate it slows down the past
    too; the original results were made with this one.

    Args:
        parameters: what is trained.
        momentum: share of the last update that is kept.
        weight_decay: of every parameter, biases too, as in the authors' solver.
    """

    def __init__(
        self, parameters: Sequence[paddle.Tensor], momentum: float, weight_decay: float
    ) -> None:
        self._parameters = list(parameters)
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._velocities = [paddle.zeros_like(p) for p in self._parameters]

    @paddle.no_grad()
    def step(self, lr: float) -> None:
        """Updates the parameters by their gradients."""
        for parameter, velocity in zip(self._parameters, self._velocities):
            change = parameter.grad + self._weight_decay * parameter
            velocity.scale_(self._momentum)
            velocity.add_(lr * change)
            parameter.subtract_(velocity)

    def state_dict(self) -> dict[str, np.ndarray]:
        return {str(i): v.numpy() for i, v in enumerate(self._velocities)}

    def set_state_dict(self, state: dict[str, np.ndarray]) -> None:
        for i, velocity in enumerate(self._velocities):
            velocity.set_value(state[str(i)])
