"""Learning-rate policies, with Caffe's definitions where Caffe has them. Needs no Paddle."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from ..errors import InputError

POLICIES = ("poly", "cosine", "step", "multistep", "constant")

# Which policies read a field; setting one that the chosen policy does not read is an error.
_READ_BY = {
    "power": ("poly",),
    "cosine_t_max": ("cosine",),
    "eta_min": ("cosine",),
    "gamma": ("step", "multistep"),
    "step_size": ("step",),
    "milestones": ("multistep",),
}


@dataclass(frozen=True)
class Schedule:
    """The learning rate as a function of the update.

    The defaults are those of the authors' solver.prototxt: linear from 0.04 to 0.

    Warm-up multiplies the rate of the policy by 1/n, 2/n, ... in the first n updates. The policy
    itself starts at update 0, so that the end of a run is the same with and without a warm-up.

    Attributes:
        max_steps: updates in the whole run.
        base_lr: the rate that the policy starts from.
        policy: "poly", base_lr * (1 - step / max_steps) ** power; "cosine", half a cosine wave from
            base_lr to eta_min over cosine_t_max updates, then again from base_lr (Loshchilov and
            Hutter, arXiv:1608.03983, equation 5); "step", base_lr * gamma ** (step // step_size);
            "multistep", multiplied by gamma at each of `milestones`; "constant".
        power: of "poly".
        cosine_t_max: updates in a period of "cosine"; None: one period over the whole run.
        eta_min: the rate at which a period of "cosine" would end.
        gamma: the factor of "step" and "multistep".
        step_size: updates between two drops of "step".
        milestones: of "multistep", the updates, counted from 0, that are the first at a lower rate.
        warmup_steps: updates in the warm-up.

    Raises:
        InputError: a value is out of range, missing, or belongs to another policy. It is named as a
            setting of training: `lr` for `base_lr`, `lr_policy` for `policy`.
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
        object.__setattr__(self, "milestones", tuple(self.milestones))
        self._check_ranges()
        if self.policy == "step" and self.step_size is None:
            raise InputError("`lr_policy` step needs `step_size`, the updates between two drops.")
        if self.policy == "multistep" and not self.milestones:
            raise InputError("`lr_policy` multistep needs `milestones`, the updates of the drops.")
        for field in fields(self):
            policies = _READ_BY.get(field.name, POLICIES)
            if self.policy not in policies and getattr(self, field.name) != field.default:
                raise InputError(
                    f"`{field.name}` is for `lr_policy` {' or '.join(policies)}, "
                    f"found with {self.policy}."
                )

    def _check_ranges(self) -> None:
        rising = all(a < b for a, b in zip((0, *self.milestones), self.milestones))
        for name, value, good, expected in (
            ("max_steps", self.max_steps, self.max_steps >= 1, "at least 1"),
            ("lr", self.base_lr, 0 < self.base_lr < math.inf, "a number above 0"),
            ("lr_policy", self.policy, self.policy in POLICIES, f"one of {', '.join(POLICIES)}"),
            ("power", self.power, 0 < self.power < math.inf, "a number above 0"),
            (
                "cosine_t_max",
                self.cosine_t_max,
                self.cosine_t_max is None or self.cosine_t_max >= 1,
                "at least 1",
            ),
            (
                "eta_min",
                self.eta_min,
                0 <= self.eta_min <= self.base_lr,
                f"a number from 0 to `lr` {self.base_lr:g}",
            ),
            ("gamma", self.gamma, 0 < self.gamma <= 1, "a number above 0 and at most 1"),
            (
                "step_size",
                self.step_size,
                self.step_size is None or self.step_size >= 1,
                "at least 1",
            ),
            ("milestones", list(self.milestones), rising, "rising numbers of at least 1"),
            (
                "warmup_steps",
                self.warmup_steps,
                0 <= self.warmup_steps <= self.max_steps,
                f"from 0 to the {self.max_steps} updates of the run",
            ),
        ):
            if not good:
                raise InputError(f"`{name}` must be {expected}, found {value}.")

    def lr(self, step: int) -> float:
        """The learning rate of update `step`, 0 <= step < max_steps."""
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return warmup * self._policy_lr(step)

    def _policy_lr(self, step: int) -> float:
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
