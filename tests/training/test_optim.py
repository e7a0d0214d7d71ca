"""Optimizers beside their formulas in float64, beside Paddle's own, and stopped and taken up."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Callable

import numpy as np
import paddle
import pytest

from squeezenet_paddle.errors import InputError
from squeezenet_paddle.training import optim
from squeezenet_paddle.training.config import OPTIMIZERS
from squeezenet_paddle.training.optim import joint_norm, make_optimizer, scale_gradients
from squeezenet_paddle.training.schedule import Schedule

Arrays = dict[str, np.ndarray]
SHAPES = {"conv1.weight": (4, 3, 2, 2), "conv1.bias": (4,), "fire2.squeeze1x1.weight": (2, 4, 1, 1)}
SCHEDULE = Schedule(lr=0.1, warmup_steps=3)


def rate(step: int) -> float:
    return SCHEDULE.rate(step, 12)


MOMENTUM, WEIGHT_DECAY = 0.9, 0.05


def values(seed: int, scale: float = 1.0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {key: rng.normal(0, scale, s).astype("float32") for key, s in SHAPES.items()}


def parameters(arrays: Arrays) -> dict[str, paddle.Tensor]:
    made = {}
    for key, array in arrays.items():
        made[key] = paddle.create_parameter(list(array.shape), "float32")
        made[key].set_value(array)
    return made


def set_gradients(weights: dict[str, paddle.Tensor], step: int) -> None:
    """Those of update `step`: of very different sizes; the bias has none in every third."""
    for key, gradient in values(1000 + step, 10.0 ** (step % 3 - 1)).items():
        weights[key].clear_gradient(False)
        if not (key == "conv1.bias" and step % 3 == 2):
            weights[key].grad = paddle.to_tensor(gradient)


def gradient_of(weights: dict[str, paddle.Tensor], key: str) -> np.ndarray:
    gradient = weights[key].grad
    return np.zeros(SHAPES[key]) if gradient is None else gradient.numpy().astype("float64")


Rule = Callable[[np.ndarray, np.ndarray, float, int, Arrays], np.ndarray]


def caffe_momentum(w: np.ndarray, g: np.ndarray, lr: float, t: int, state: Arrays) -> np.ndarray:
    """SGDSolver: Regularize, then ComputeUpdateValue, then Blob::Update."""
    diff = g + WEIGHT_DECAY * w
    state["v"] = lr * diff + MOMENTUM * state.get("v", 0.0)
    return w - state["v"]


def adam(w: np.ndarray, g: np.ndarray, lr: float, t: int, state: Arrays) -> np.ndarray:
    """Algorithm 1 of the paper, on the loss with an L2 term."""
    return _adam_step(w, g + WEIGHT_DECAY * w, lr, t, state)


def adamw(w: np.ndarray, g: np.ndarray, lr: float, t: int, state: Arrays) -> np.ndarray:
    return _adam_step(w, g, lr, t, state) - lr * WEIGHT_DECAY * w


def _adam_step(w: np.ndarray, g: np.ndarray, lr: float, t: int, state: Arrays) -> np.ndarray:
    state["m"] = 0.9 * state.get("m", 0.0) + 0.1 * g
    state["v"] = 0.999 * state.get("v", 0.0) + 0.001 * g**2
    m_hat, v_hat = state["m"] / (1 - 0.9**t), state["v"] / (1 - 0.999**t)
    return w - lr * m_hat / (np.sqrt(v_hat) + 1e-8)


def rmsprop(w: np.ndarray, g: np.ndarray, lr: float, t: int, state: Arrays) -> np.ndarray:
    g = g + WEIGHT_DECAY * w
    state["s"] = 0.95 * state.get("s", 0.0) + 0.05 * g**2
    state["v"] = MOMENTUM * state.get("v", 0.0) + lr * g / np.sqrt(state["s"] + 1e-6)
    return w - state["v"]


RULES: dict[str, Rule] = {
    "momentum": caffe_momentum,
    "adam": adam,
    "adamw": adamw,
    "rmsprop": rmsprop,
}


def train(name: str, steps: range, weights: dict[str, paddle.Tensor], state: Arrays) -> Arrays:
    """The updates of these numbers; returns the state after them."""
    optimizer = make_optimizer(name, weights, MOMENTUM, WEIGHT_DECAY)
    if state:
        optimizer.set_state_dict(state)
    for step in steps:
        set_gradients(weights, step)
        optimizer.step(rate(step))
    return optimizer.state_dict()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_twelve_updates_under_a_changing_rate_by_the_formula(name: str) -> None:
    weights = parameters(values(0))
    mults = {"conv1.bias": 7.0}
    optimizer = make_optimizer(name, weights, MOMENTUM, WEIGHT_DECAY, mults)
    expected = {key: array.astype("float64") for key, array in values(0).items()}
    states: dict[str, Arrays] = {key: {} for key in expected}
    for step in range(12):
        set_gradients(weights, step)
        optimizer.step(rate(step))
        for key in expected:
            gradient = gradient_of(weights, key)
            lr = rate(step) * mults.get(key, 1.0)
            expected[key] = RULES[name](expected[key], gradient, lr, step + 1, states[key])
            found = weights[key].numpy()
            np.testing.assert_allclose(found, expected[key], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop"])
def test_as_paddles_optimizer(name: str) -> None:
    ours, theirs = parameters(values(0)), parameters(values(0))
    options = {"parameters": list(theirs.values()), "weight_decay": WEIGHT_DECAY}
    judge = {
        "adam": lambda: paddle.optimizer.Adam(0.1, **options),
        "adamw": lambda: paddle.optimizer.AdamW(0.1, **options),
        "rmsprop": lambda: paddle.optimizer.RMSProp(0.1, momentum=MOMENTUM, **options),
    }[name]()
    optimizer = make_optimizer(name, ours, MOMENTUM, WEIGHT_DECAY)
    for step in range(0, 30, 3):  # where every parameter has a gradient
        for weights in (ours, theirs):
            set_gradients(weights, step)
        lr = 0.1 / (step + 1)
        optimizer.step(lr)
        judge.set_lr(lr)
        judge.step()
        for key in SHAPES:
            np.testing.assert_allclose(ours[key].numpy(), theirs[key].numpy(), rtol=2e-5, atol=2e-6)


def test_momentum_is_not_paddles_under_a_changing_rate() -> None:
    """Otherwise the tests could not tell the two definitions apart."""
    ours, theirs = parameters(values(0)), parameters(values(0))
    optimizer = make_optimizer("momentum", ours, MOMENTUM, 0.0)
    judge = paddle.optimizer.Momentum(0.1, MOMENTUM, list(theirs.values()))
    for lr, same in ((0.1, True), (0.1, True), (0.01, False)):
        for weights in (ours, theirs):
            set_gradients(weights, 0)
        optimizer.step(lr)
        judge.set_lr(lr)
        judge.step()
        a, b = ours["conv1.weight"].numpy(), theirs["conv1.weight"].numpy()
        assert np.allclose(a, b, rtol=1e-5, atol=1e-6) == same


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_an_update_leaves_alone(name: str) -> None:
    weights = parameters(values(0))
    places = {key: weight.data_ptr() for key, weight in weights.items()}
    optimizer = make_optimizer(name, weights, MOMENTUM, WEIGHT_DECAY)
    set_gradients(weights, 0)
    optimizer.step(0.1)
    snapshot = optimizer.state_dict()
    copy = {key: array.copy() for key, array in snapshot.items()}
    set_gradients(weights, 1)
    optimizer.step(0.1)
    assert {key: weight.data_ptr() for key, weight in weights.items()} == places
    for key, gradient in values(1001).items():
        np.testing.assert_array_equal(weights[key].grad.numpy(), gradient)
        assert not weights[key].stop_gradient
    for key, array in snapshot.items():
        np.testing.assert_array_equal(array, copy[key])


def test_the_names_in_the_state() -> None:
    found = {
        name: set(make_optimizer(name, parameters(values(0)), 0.9, 0.0).state_dict())
        for name in OPTIMIZERS
    }
    assert found["momentum"] == {"updates", *(f"{key}/velocity" for key in SHAPES)}
    moments = {f"{key}/{moment}" for key in SHAPES for moment in ("moment1", "moment2")}
    assert found["adam"] == found["adamw"] == {"updates", *moments}
    slots = {f"{key}/{slot}" for key in SHAPES for slot in ("mean_square", "velocity")}
    assert found["rmsprop"] == {"updates", *slots}


def go_on(folder: Path) -> None:
    """What a fresh process does: takes up each optimizer at update 5 and trains to 12."""
    paddle.nn.Sequential(paddle.nn.Linear(2, 2), paddle.nn.Conv2D(3, 4, 2))  # shifts all names
    for name in OPTIMIZERS:
        with np.load(folder / f"{name}.npz") as saved:
            groups: dict[str, Arrays] = {"weights": {}, "state": {}}
            for key in saved.files:
                group, _, rest = key.partition(":")
                groups[group][rest] = saved[key]
        weights = parameters(groups["weights"])
        train(name, range(5, 12), weights, groups["state"])
        np.savez(folder / f"{name}_done.npz", **{k: w.numpy() for k, w in weights.items()})


def test_another_process_goes_on_bit_for_bit(tmp_path: Path) -> None:
    expected = {}
    for name in OPTIMIZERS:
        weights = parameters(values(0))
        state = train(name, range(5), weights, {})
        arrays = {f"weights:{key}": weight.numpy() for key, weight in weights.items()}
        arrays.update({f"state:{key}": array for key, array in state.items()})
        np.savez(tmp_path / f"{name}.npz", **arrays)
        unbroken = parameters(values(0))
        train(name, range(12), unbroken, {})
        expected[name] = {key: weight.numpy() for key, weight in unbroken.items()}
    subprocess.run([sys.executable, __file__, str(tmp_path)], check=True, timeout=120)
    for name, arrays in expected.items():
        with np.load(tmp_path / f"{name}_done.npz") as found:
            for key, array in arrays.items():
                np.testing.assert_array_equal(found[key], array, err_msg=f"{name} {key}")


def test_a_state_that_does_not_fit_is_refused_whole() -> None:
    optimizer = make_optimizer("adam", parameters(values(0)), 0.9, 0.0)
    before = optimizer.state_dict()
    state = {key: array + 1 for key, array in before.items()}
    del state["conv1.bias/moment1"]
    state["conv1.bias/velocity"] = np.zeros(4, "float32")
    state["conv1.weight/moment2"] = np.zeros((4, 3, 2), "float32")
    state["fire2.squeeze1x1.weight/moment1"] = np.zeros((2, 4, 1, 1), "float64")
    with pytest.raises(InputError) as caught:
        optimizer.set_state_dict(state)
    assert str(caught.value) == (
        "the state of the optimizer does not fit: conv1.bias/moment1 is missing; "
        "conv1.bias/velocity is unexpected; conv1.weight/moment2 is float32 [4, 3, 2] where "
        "float32 [4, 3, 2, 2] is expected; fire2.squeeze1x1.weight/moment1 is float64 "
        "[2, 4, 1, 1] where float32 [2, 4, 1, 1] is expected."
    )
    for key, array in optimizer.state_dict().items():
        np.testing.assert_array_equal(array, before[key])


def test_an_unknown_name_is_refused() -> None:
    assert tuple(optim._CLASSES) == OPTIMIZERS  # what the command line offers
    message = re.escape("`optimizer` must be one of momentum, adam, adamw, rmsprop, found sgd.")
    with pytest.raises(InputError, match=message):
        make_optimizer("sgd", {}, 0.9, 0.0)


def test_the_joint_norm_and_its_scaling() -> None:
    weights = parameters(values(0))
    assert joint_norm(weights.values()) == 0.0
    scale_gradients(weights.values(), 0.5)
    set_gradients(weights, 2)
    gradients = values(1002, 10.0)
    del gradients["conv1.bias"]  # has none
    norm = np.sqrt(sum((g.astype("float64") ** 2).sum() for g in gradients.values()))
    assert joint_norm(weights.values()) == pytest.approx(norm, rel=1e-6)
    scale_gradients(weights.values(), 0.5)
    assert weights["conv1.bias"].grad is None
    for key, gradient in gradients.items():
        np.testing.assert_array_equal(weights[key].grad.numpy(), gradient * np.float32(0.5))


def test_the_joint_norm_of_a_million_values() -> None:
    big = paddle.create_parameter([1100, 1100], "float32")
    gradient = np.random.default_rng(0).normal(0, 0.01, (1100, 1100)).astype("float32")
    big.grad = paddle.to_tensor(gradient)
    assert joint_norm([big]) == pytest.approx(np.linalg.norm(gradient.astype("float64")), rel=1e-6)


if __name__ == "__main__":
    go_on(Path(sys.argv[1]))
