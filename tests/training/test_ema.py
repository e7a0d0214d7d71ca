"""The moving average of the weights: by its formula, put in and taken out again."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from squeezenet_paddle.errors import InputError
from squeezenet_paddle.training.optim import Ema

SHAPES = {"conv1.weight": (4, 3, 2, 2), "conv1.bias": (4,)}


def values(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {key: rng.normal(size=shape).astype("float32") for key, shape in SHAPES.items()}


def fill(weights: dict[str, paddle.Tensor], arrays: dict[str, np.ndarray]) -> None:
    for key, array in arrays.items():
        weights[key].set_value(array)


@pytest.fixture
def weights() -> dict[str, paddle.Tensor]:
    made = {key: paddle.create_parameter(list(s), "float32") for key, s in SHAPES.items()}
    fill(made, values(0))
    return made


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_the_average_by_its_formula(weights, decay: float) -> None:
    ema = Ema(weights, decay)
    expected = {key: array.astype("float64") for key, array in values(0).items()}
    for n in range(30):
        fill(weights, values(n + 1))
        ema.update()
        share = min(decay, (1 + n) / (10 + n))
        for key, array in values(n + 1).items():
            expected[key] = share * expected[key] + (1 - share) * array
    state = ema.state_dict()
    assert state.pop("updates") == 30
    assert state.keys() == expected.keys()
    for key, array in expected.items():
        np.testing.assert_allclose(state[key], array, rtol=1e-5, atol=1e-6)


def test_weights_that_stay_are_their_own_average(weights) -> None:
    ema = Ema(weights, 0.9)
    for _ in range(20):
        ema.update()
    for key, array in values(0).items():
        np.testing.assert_array_equal(ema.state_dict()[key], array)


def test_applied_and_taken_back_bit_for_bit(weights) -> None:
    ema = Ema(weights, 0.9)
    now = values(1)
    now["conv1.bias"][:] = [-0.0, 1e-42, np.inf, np.nan]
    fill(weights, values(1))
    ema.update()
    fill(weights, now)
    places = {key: weight.data_ptr() for key, weight in weights.items()}
    averages = ema.state_dict()
    with pytest.raises(KeyboardInterrupt), ema.applied():  # noqa: PT012
        for key, weight in weights.items():
            np.testing.assert_array_equal(weight.numpy(), averages[key])
        raise KeyboardInterrupt
    for key, weight in weights.items():
        assert weight.numpy().tobytes() == now[key].tobytes()
        assert weight.data_ptr() == places[key]
        assert not weight.stop_gradient
        np.testing.assert_array_equal(ema.state_dict()[key], averages[key])


def test_gradients_flow_with_the_averages_in_place(weights) -> None:
    """The block does not switch gradients off, nor does leaving it."""
    ema = Ema(weights, 0.9)
    with ema.applied():
        weights["conv1.bias"].sum().backward()
    weights["conv1.bias"].sum().backward()
    np.testing.assert_array_equal(weights["conv1.bias"].grad.numpy(), np.full(4, 2.0))


def test_taken_up_bit_for_bit(weights) -> None:
    unbroken = Ema(weights, 0.999)
    states = []
    for n in range(12):
        fill(weights, values(n + 1))
        unbroken.update()
        states.append(unbroken.state_dict())
    fill(weights, values(77))
    resumed = Ema(weights, 0.999)
    resumed.set_state_dict(states[4])
    for n in range(5, 12):
        fill(weights, values(n + 1))
        resumed.update()
    found = resumed.state_dict()
    assert found.keys() == states[11].keys()
    for key, array in states[11].items():
        np.testing.assert_array_equal(found[key], array)


def test_a_state_that_does_not_fit_is_refused(weights) -> None:
    ema = Ema(weights, 0.9)
    state = {"updates": np.array(3), "conv1.weight": np.zeros((4, 3), "float32")}
    with pytest.raises(
        InputError,
        match=r"the averaged weights does not fit: conv1.bias is missing; "
        r"conv1.weight is float32 \[4, 3\] where float32 \[4, 3, 2, 2\] is expected\.$",
    ):
        ema.set_state_dict(state)
    assert ema.state_dict()["updates"] == 0
