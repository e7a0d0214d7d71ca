"""Optimizers, the moving average of the weights, and dynamic loss scaling.

Paddle's optimizers name their state by automatic parameter names, which depend on what the process
created before, and skip a parameter without a gradient. Here the state has the network's own names,
so that any process can resume it. The formulas of Adam, AdamW and RMSProp are Paddle's, constants
included; momentum is Caffe's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import paddle
from paddle import Tensor

from ..errors import InputError, describe_problems

GROWTH_INTERVAL = 2000  # updates; this and the factors of LossScale are the usual ones
LARGEST, SMALLEST = 2.0**24, 1.0


class Optimizer(ABC):
    """Updates parameters in place; they keep their storage.

    Args:
        parameters: the trained float32 parameters by state-dict key.
        momentum: for `Momentum` and `RMSProp`, at least 0 and below 1.
        weight_decay: for every parameter, biases too, as in the authors' solver. It adds
            weight_decay * w to the gradient, except in `AdamW`.
        lr_mults: factors of the learning rate by state-dict key; 1 for the others.
    """

    slots: ClassVar[tuple[str, ...]]  # names of the arrays kept for each parameter, 0 at first

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
        """Updates every parameter; a missing gradient counts as 0."""
        self._updates += 1
        for key, weight in self._parameters.items():
            gradient = weight.grad
            if gradient is None:
                gradient = paddle.zeros_like(weight)
            own_lr = lr * self._lr_mults.get(key, 1.0)
            decayed = self._decay(weight, gradient, own_lr)
            self._update(weight, decayed, own_lr, *self._state[key])

    def _decay(self, weight: Tensor, gradient: Tensor, lr: float) -> Tensor:
        """Applies weight decay and returns the gradient to update with."""
        return weight.scale(self._weight_decay).add_(gradient)

    @abstractmethod
    def _update(self, weight: Tensor, gradient: Tensor, lr: float, *slots: Tensor) -> None:
        """Updates one parameter and its slots; does not change the gradient."""

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the state that the next update depends on.

        float32 arrays by names such as "conv1.weight/velocity", and int64 "updates", their number.
        """
        state = {"updates": np.array(self._updates, np.int64)}
        for key, tensors in self._state.items():
            for slot, tensor in zip(self.slots, tensors):
                state[f"{key}/{slot}"] = tensor.numpy()
        return state

    def set_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Restores what `state_dict` returned.

        Raises:
            InputError: an array is missing, unexpected or of another shape; nothing was changed.
        """
        _check_state(self.state_dict(), state, "the state of the optimizer")
        self._updates = int(state["updates"])
        for key, tensors in self._state.items():
            for slot, tensor in zip(self.slots, tensors):
                tensor.set_value(state[f"{key}/{slot}"])


class Momentum(Optimizer):
    """v = momentum * v + lr * g, w = w - v, as in Caffe's SGDSolver.

    Paddle's Momentum is v = momentum * v + g, w = w - lr * v, where a falling rate also slows down
    past gradients. The original weights were trained with Caffe's.
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
    """Adam with decoupled weight decay, w = w * (1 - lr * weight_decay) (arXiv:1711.05101)."""

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
    """Makes an optimizer by its name in the settings; see `Optimizer` for the arguments.

    Raises:
        InputError: the name is unknown.
    """
    if name not in _CLASSES:
        raise InputError(f"`optimizer` must be one of {', '.join(_CLASSES)}, found {name}.")
    return _CLASSES[name](parameters, momentum, weight_decay, lr_mults)


@paddle.no_grad()
def joint_norm(parameters: Iterable[Tensor]) -> float:
    """The Euclidean norm of all gradients together.

    `Tensor.norm` of Paddle 3.3 is slower, and its relative error over a million values is 3e-4.
    """
    squares = [p.grad.square().sum() for p in parameters if p.grad is not None]
    return math.sqrt(paddle.add_n(squares).item()) if squares else 0.0


@paddle.no_grad()
def scale_gradients(parameters: Iterable[Tensor], factor: float) -> None:
    """Multiplies all gradients in place."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.scale_(factor)


class Ema:
    """An exponential moving average of the weights, to validate and save in their place.

    After each update, average = decay * average + (1 - decay) * weight. Update n, counted from 0,
    uses the smaller of `decay` and (1 + n) / (10 + n), so that the average soon leaves the initial
    weights. Buffers (batch statistics) are running averages already and are not averaged.

    Args:
        parameters: the float32 weights by state-dict key; they are the first average.
        decay: share of the average that an update keeps, at least 0 and below 1.
    """

    def __init__(self, parameters: Mapping[str, Tensor], decay: float) -> None:
        self._decay = decay
        self._updates = 0
        self._parameters = dict(parameters)
        self._averages = {key: p.detach().clone() for key, p in self._parameters.items()}

    @paddle.no_grad()
    def update(self) -> None:
        """Adds the current weights to the average."""
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        self._updates += 1
        for key, parameter in self._parameters.items():
            average = self._averages[key]
            average.add_((parameter - average).scale_(1 - decay))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Puts the averages into the parameters inside the context; restores the weights after."""
        weights = {key: p.detach().clone() for key, p in self._parameters.items()}
        self._fill(self._averages)
        try:
            yield
        finally:
            self._fill(weights)

    @paddle.no_grad()
    def _fill(self, values: Mapping[str, Tensor]) -> None:
        for key, parameter in self._parameters.items():
            paddle.assign(values[key], output=parameter)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the averages by state-dict key, and int64 "updates", their number."""
        averages = {key: average.numpy() for key, average in self._averages.items()}
        return {"updates": np.array(self._updates, np.int64), **averages}

    def set_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Restores what `state_dict` returned.

        Raises:
            InputError: an array is missing, unexpected or of another shape; nothing was changed.
        """
        _check_state(self.state_dict(), state, "the state of the averaged weights")
        self._updates = int(state["updates"])
        for key, average in self._averages.items():
            average.set_value(state[key])


class LossScale:
    """The factor of the loss that keeps small gradients from vanishing in float16.

    It is halved when a gradient overflows (the caller then skips the update), and doubled after
    2,000 updates without an overflow. See Micikevicius et al., "Mixed precision training", 2018.

    Attributes:
        value: the current factor.
    """

    def __init__(self, value: float = 2.0**15) -> None:
        self.value = value
        self._good = 0

    def update(self, finite: bool) -> None:
        """Adapts to an update whose gradients were all finite, or not."""
        self._good = self._good + 1 if finite else 0
        if not finite:
            self.value = max(self.value / 2, SMALLEST)
        elif self._good == GROWTH_INTERVAL:
            self.value, self._good = min(self.value * 2, LARGEST), 0

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "good": self._good}

    def set_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self._good = state["value"], state["good"]


def _check_state(
    expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], source: str
) -> None:
    """Checks arrays against those `expected`.

    Raises:
        InputError: names, types or shapes differ; all differences are named.
    """
    problems = [f"{key} is missing" for key in expected if key not in found]
    problems += [f"{key} is unexpected" for key in found if key not in expected]
    for key in (key for key in expected if key in found):
        right, wrong = (f"{a.dtype} {list(a.shape)}" for a in (expected[key], found[key]))
        if wrong != right:
            problems.append(f"{key} is {wrong} where {right} is expected")
    if problems:
        raise InputError(f"{source} does not fit: {describe_problems(problems)}.")
