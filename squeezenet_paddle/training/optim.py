"""Optimizers. Their state goes by the network's own names, so that any process can take it up.

Paddle's optimizers name their state by the parameters' automatic names, which differ with what a
process made before, and leave out a parameter that has no gradient. The formulas of Adam, AdamW and
RMSProp are theirs, constants included; momentum is Caffe's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np
import paddle
from paddle import Tensor

from ..errors import InputError, describe_problems


class Optimizer(ABC):
    """Updates parameters in place; each keeps its storage.

    Args:
        parameters: float32, what is trained, by state-dict key.
        momentum: of `Momentum` and `RMSProp`, at least 0 and below 1.
        weight_decay: of every parameter, biases too, as in the authors' solver. It adds
            weight_decay * w to the gradient, but for `AdamW`.
        lr_mults: by state-dict key, what the learning rate is multiplied by; 1 for the others.
    """

    slots: ClassVar[tuple[str, ...]]  # the arrays that each parameter has, 0 at first

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        momentum: float,
        weight_decay: float,
        lr_mults: Mapping[str, float] | None = None,
    ) -> None:
        self._lr_mults = dict(lr_mults or {})
        self._momentum, self._weight_decay = momentum, weight_decay
        self._updates = 0
        self._parameters = dict(parameters)
        self._state = {
            key: [paddle.zeros_like(weight) for _ in self.slots]
            for key, weight in self._parameters.items()
        }

    @paddle.no_grad()
    def step(self, lr: float) -> None:
        """Updates every parameter by its gradient, which is 0 where it has none."""
        self._updates += 1
        for key, weight in self._parameters.items():
            gradient = weight.grad
            if gradient is None:
                gradient = paddle.zeros_like(weight)
            own_lr = lr * self._lr_mults.get(key, 1.0)
            decayed = self._decay(weight, gradient, own_lr)
            self._update(weight, decayed, own_lr, *self._state[key])

    def _decay(self, weight: Tensor, gradient: Tensor, lr: float) -> Tensor:
        """Applies the weight decay; returns the gradient to go on with."""
        return weight.scale(self._weight_decay).add_(gradient)

    @abstractmethod
    def _update(self, weight: Tensor, gradient: Tensor, lr: float, *slots: Tensor) -> None:
        """Updates one parameter and its slots; the gradient stays as it is."""

    def state_dict(self) -> dict[str, np.ndarray]:
        """What the next update depends on, as copies.

        float32 by names such as "conv1.weight/velocity", and int64 "updates", how many there were.
        """
        state = {"updates": np.array(self._updates, np.int64)}
        for key, tensors in self._state.items():
            for slot, tensor in zip(self.slots, tensors):
                state[f"{key}/{slot}"] = tensor.numpy()
        return state

    def set_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Goes on from what `state_dict` gave, bit for bit.

        Raises:
            InputError: something is missing, unexpected or of another shape; nothing was changed.
        """
        check_state(self.state_dict(), state, "the state of the optimizer")
        self._updates = int(state["updates"])
        for key, tensors in self._state.items():
            for slot, tensor in zip(self.slots, tensors):
                tensor.set_value(state[f"{key}/{slot}"])


class Momentum(Optimizer):
    """v = momentum * v + lr * g, w = w - v, as in Caffe's SGDSolver.

    Paddle's own has v = momentum * v + g, w = w - lr * v, so that a falling rate slows down what is
    past too. The original weights were trained with Caffe's.
    """

    slots = ("velocity",)

    def _update(self, weight: Tensor, gradient: Tensor, lr: float, *slots: Tensor) -> None:
        (velocity,) = slots
        velocity.scale_(self._momentum).add_(gradient.scale(lr))
        weight.subtract_(velocity)


class Adam(Optimizer):
    """Adam (arXiv:1412.6980, algorithm 1)."""

    slots = ("moment1", "moment2")
    beta1, beta2, epsilon = 0.9, 0.999, 1e-8

    def _update(self, weight: Tensor, gradient: Tensor, lr: float, *slots: Tensor) -> None:
        moment1, moment2 = slots
        moment1.scale_(self.beta1).add_(gradient.scale(1 - self.beta1))
        moment2.scale_(self.beta2).add_(gradient.square().scale_(1 - self.beta2))
        correction1 = 1 / (1 - self.beta1**self._updates)
        correction2 = 1 / (1 - self.beta2**self._updates)
        deviation = moment2.sqrt().scale_(math.sqrt(correction2), bias=self.epsilon)
        weight.subtract_(moment1.scale(lr * correction1).divide_(deviation))


class AdamW(Adam):
    """Adam whose weight decay leaves the gradient alone: w = w * (1 - lr * weight_decay) before.

    Source: arXiv:1711.05101.
    """

    def _decay(self, weight: Tensor, gradient: Tensor, lr: float) -> Tensor:
        weight.scale_(1 - lr * self._weight_decay)
        return gradient


class RMSProp(Optimizer):
    """s = rho * s + (1 - rho) * g^2, v = momentum * v + lr * g / sqrt(s + epsilon), w = w - v."""

    slots = ("mean_square", "velocity")
    rho, epsilon = 0.95, 1e-6

    def _update(self, weight: Tensor, gradient: Tensor, lr: float, *slots: Tensor) -> None:
        mean_square, velocity = slots
        mean_square.scale_(self.rho).add_(gradient.square().scale_(1 - self.rho))
        deviation = mean_square.scale(1.0, bias=self.epsilon).sqrt_()
        velocity.scale_(self._momentum).add_(gradient.scale(lr).divide_(deviation))
        weight.subtract_(velocity)


_CLASSES: dict[str, type[Optimizer]] = {
    "momentum": Momentum,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSProp,
}


def make_optimizer(
    name: str,
    parameters: Mapping[str, Tensor],
    momentum: float,
    weight_decay: float,
    lr_mults: Mapping[str, float] | None = None,
) -> Optimizer:
    """An optimizer by its name on the command line; see `Optimizer` for the arguments.

    Raises:
        InputError: there is no such one.
    """
    if name not in _CLASSES:
        raise InputError(f"--optimizer must be one of {', '.join(_CLASSES)}, found {name}.")
    return _CLASSES[name](parameters, momentum, weight_decay, lr_mults)


@paddle.no_grad()
def joint_norm(parameters: Iterable[Tensor]) -> float:
    """The Euclidean norm of all gradients as one vector.

    Not by `Tensor.norm`: Paddle 3.3's is 3e-4 off over a million values, and slower.
    """
    squares = [p.grad.square().sum() for p in parameters if p.grad is not None]
    return math.sqrt(paddle.add_n(squares).item()) if squares else 0.0


@paddle.no_grad()
def scale_gradients(parameters: Iterable[Tensor], factor: float) -> None:
    """Multiplies all gradients in place."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.scale_(factor)


def check_state(
    expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], source: str
) -> None:
    """Refuses arrays that differ from those `expected` in name, type or shape.

    Raises:
        InputError: with all the differences.
    """
    problems = [f"{key} is missing" for key in expected if key not in found]
    problems += [f"{key} is unexpected" for key in found if key not in expected]
    for key in (key for key in expected if key in found):
        wanted, given = (f"{a.dtype} {list(a.shape)}" for a in (expected[key], found[key]))
        if given != wanted:
            problems.append(f"{key} is {given} where {wanted} is expected")
    if problems:
        raise InputError(f"{source} does not fit: {describe_problems(problems)}.")
