"""Learning-rate policies, with Caffe's definitions where Caffe has them. Needs no Paddle."""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from functools import partial

from ..errors import InputError
from ..settings import MAY_CHANGE, Checked, setting

POLICIES = ("poly", "cosine", "step", "multistep", "constant")

# Which policies read a setting; one that the chosen policy does not read is an error.
_READ_BY = {
    "power": ("poly",),
    "cosine_t_max": ("cosine",),
    "eta_min": ("cosine",),
    "gamma": ("step", "multistep"),
    "step_size": ("step",),
    "milestones": ("multistep",),
}

_setting = partial(setting, on_resume=MAY_CHANGE)


@dataclass(frozen=True)
class Schedule(Checked):
    """The learning rate as a function of the update.

    The defaults are those of the authors' solver.prototxt: linear from 0.04 to 0. The policies are
    "poly", lr * (1 - step / max_steps) ** power; "cosine", half a cosine wave from lr to eta_min
    over cosine_t_max updates, then again from lr (Loshchilov and Hutter, arXiv:1608.03983, equation
    5); "step", lr * gamma ** (step // step_size); "multistep", multiplied by gamma at each of
    `milestones`, which are updates counted from 0; "constant".

    Warm-up multiplies the rate of the policy by 1/n, 2/n, ... in the first n updates. The policy
    itself starts at update 0, so that the end of a run is the same with and without a warm-up.

    Raises:
        InputError: a value is out of range, missing, or belongs to another policy.
    """

    lr: float = _setting(0.04, "learning rate", above=0)
    lr_policy: str = _setting("poly", "how the rate falls", choices=POLICIES)
    power: float = _setting(1.0, "of poly", above=0)
    cosine_t_max: int | None = _setting(
        None, "updates to a restart of cosine", int, at_least=1, shown="the length of the run"
    )
    eta_min: float = _setting(0.0, "lowest rate of cosine", at_least=0)
    gamma: float = _setting(0.1, "factor of step and multistep", above=0, at_most=1)
    step_size: int | None = _setting(None, "updates between drops of step", int, at_least=1)
    milestones: tuple[int, ...] = _setting(
        (), "updates of the drops of multistep", int, count="+", at_least=1
    )
    warmup_steps: int = _setting(0, "updates in which the rate grows to the policy's", at_least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lr_policy == "step" and self.step_size is None:
            raise InputError("`lr_policy` step needs `step_size`, the updates between two drops.")
        if self.lr_policy == "multistep" and not self.milestones:
            raise InputError("`lr_policy` multistep needs `milestones`, the updates of the drops.")
        for name, policies in _READ_BY.items():
            if self.lr_policy not in policies and getattr(self, name) != getattr(Schedule, name):
                raise InputError(
                    f"`{name}` is for `lr_policy` {' or '.join(policies)}, "
                    f"found with {self.lr_policy}."
                )
        if self.eta_min > self.lr:
            raise InputError(
                f"`eta_min`: at most `lr` {self.lr:g} was expected, found {self.eta_min:g}."
            )
        if any(a >= b for a, b in zip(self.milestones, self.milestones[1:])):
            raise InputError(
                f"`milestones`: rising numbers were expected, found {list(self.milestones)}."
            )

    def rate(self, step: int, max_steps: int) -> float:
        """The learning rate of update `step`, 0 <= step < max_steps, in a run of `max_steps`."""
        warmup = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        return warmup * self._policy_rate(step, max_steps)

    def _policy_rate(self, step: int, max_steps: int) -> float:
        if self.lr_policy == "poly":
            return self.lr * (1 - step / max_steps) ** self.power
        if self.lr_policy == "cosine":
            period = self.cosine_t_max or max_steps
            wave = (1 + math.cos(math.pi * (step % period) / period)) / 2
            return self.eta_min + (self.lr - self.eta_min) * wave
        if self.lr_policy == "step":
            assert self.step_size is not None
            return self.lr * self.gamma ** (step // self.step_size)
        if self.lr_policy == "multistep":
            return self.lr * self.gamma ** bisect.bisect_right(self.milestones, step)
        return self.lr
