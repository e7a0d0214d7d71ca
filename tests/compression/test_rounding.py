"""How weights are rounded: judged by brute force, plain rounding and finite differences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from networks import pixels, random_state

from squeezenet_paddle.compression.compress import Cost, smallest_size
from squeezenet_paddle.compression.fisher import fisher_information, inputs_of
from squeezenet_paddle.compression.rounding import Problem, entropy
from squeezenet_paddle.errors import RunError
from squeezenet_paddle.network.config import ModelConfig, layers
from squeezenet_paddle.network.logits import softmax
from squeezenet_paddle.network.numpy_forward import activations, logits
from squeezenet_paddle.network.weights import key_of


def layer(outputs: int = 20, inputs: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A weight and the covariances of its correlated inputs."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, inputs)) @ rng.normal(size=(inputs, inputs))
    return rng.normal(size=(outputs, inputs)), x.T @ x / len(x)


def error(weight: np.ndarray, rounded: np.ndarray, hessian: np.ndarray) -> float:
    change = rounded - weight
    return float(np.einsum("oi,ij,oj->", change, hessian, change))


def test_outputs_stay_better_than_by_plain_rounding() -> None:
    weight, hessian = layer()
    q = Problem(weight, hessian, hessian).round(0.5, 0.0)
    plain = np.rint(weight / 0.5) * 0.5
    assert error(weight, 0.5 * q, hessian) < 0.7 * error(weight, plain, hessian)


def test_it_is_near_the_best_of_all_roundings() -> None:
    weight, hessian = layer(outputs=1, inputs=6)
    found = error(weight, 1.0 * Problem(weight, hessian, hessian).round(1.0, 0.0), hessian)
    around = [np.floor(w) + np.arange(-1, 3) for w in weight[0]]
    best = min(error(weight, np.array([q]), hessian) for q in itertools.product(*around))
    plain = error(weight, np.rint(weight), hessian)
    assert best <= found < plain


def test_a_price_of_bits_makes_indices_cheaper() -> None:
    weight, hessian = layer(outputs=200)
    problem = Problem(weight, hessian, hessian)
    bits = [entropy(problem.round(0.3, price)) for price in (0.0, 0.05, 0.5, 1e6)]
    assert bits == sorted(bits, reverse=True)
    assert bits[-1] == 0


def test_weights_make_up_for_other_inputs() -> None:
    """The inputs of the compressed network are twice those of the float one."""
    weight, hessian = layer()
    hessian += 10 * np.eye(len(hessian))
    problem = Problem(weight, 2 * hessian, 4 * hessian)
    np.testing.assert_allclose(problem.target, weight / 2, rtol=0.05, atol=0.01)


def test_inputs_that_are_dead_do_no_harm() -> None:
    weight, hessian = layer()
    hessian[3] = hessian[:, 3] = 0
    for each in (hessian, np.zeros_like(hessian)):
        q = Problem(weight, each, each).round(0.1, 0.0)
        assert np.abs(q * 0.1 - weight).max() < 10


def test_fisher_information_predicts_the_divergence() -> None:
    """Small random changes of a layer, whose bias makes up for their mean."""
    config = ModelConfig("1.1", 5)
    state = random_state(config)
    inputs = list(pixels(config, 8, 40))
    several = [fisher_information(config, state, inputs, seed) for seed in range(3)]
    information = {name: np.mean([each[name] for each in several], axis=0) for name in several[0]}
    chain = {each.name: each for each in layers(config)}
    assert information.keys() == {each.name for each in chain.values() if each.weight_shape}
    rng = np.random.default_rng(0)
    for name in ("conv10", "fire9/expand3x3", "fire6/squeeze1x1"):
        reads = [activations(config, state, x)[chain[name].bottoms[0]] for x in inputs]
        mean = np.mean([inputs_of(chain[name], x).mean(axis=1) for x in reads], axis=0)
        weight, bias = f"{key_of(name)}.weight", f"{key_of(name)}.bias"
        found = []
        for _ in range(4):
            change = rng.normal(0, 1e-3, state[weight].shape).astype("float32")
            changed = {
                **state,
                weight: state[weight] + change,
                bias: state[bias] - change.reshape(len(change), -1) @ mean,
            }
            for x in inputs:
                p, q = (softmax(logits(config, each, x)) for each in (state, changed))
                found.append((p * np.log(p / q)).sum())
        predicted = information[name].sum() * 1e-6 / 2
        about = 1.4 if name == "conv10" else 3  # gradients of 8 images, through many ReLUs
        assert 1 / about < predicted / np.mean(found) < about


def test_what_is_lost_by_hand() -> None:
    p = np.log([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1]])
    q = np.log([[0.2, 0.6, 0.2], [0.6, 0.3, 0.1]])
    cost = Cost.between(p, q)
    assert (cost.images, cost.agreement) == (2, 0.5)
    assert cost.expected_loss == pytest.approx(100 * (0.5 - 0.3) / 2)
    expected = 0.5 * np.log(0.5 / 0.2) + 0.3 * np.log(0.3 / 0.6)
    assert cost.divergence == pytest.approx(expected / 2)


@pytest.mark.parametrize("halving", [0.2, 0.35, 0.8])
@pytest.mark.parametrize("start", [0.3, 2.0, 9.0])
def test_the_size_for_a_loss_is_found(halving: float, start: float) -> None:
    """Losses that halve with so many bits a weight, from `start` points at 3 bits."""
    zeros, weights = 10_000, 1_000_000
    tries = []

    def loss(size: int) -> float:
        tries.append(size)
        bits = 8 * (size - zeros) / weights
        return start * 2 ** ((3 - bits) / halving)

    best = zeros + weights / 8 * (3 + halving * np.log2(start / 0.5))
    found = smallest_size(loss, 0.5, zeros, weights)
    assert loss(found) <= 0.5
    assert found < 1.15 * best
    assert len(tries) <= 7


def test_a_loss_that_is_never_small_is_an_error() -> None:
    with pytest.raises(RunError, match="at most 0.5 points"):
        smallest_size(lambda size: 9.0, 0.5, 10_000, 1_000_000)


def test_with_a_step_for_each_output_the_error_of_the_outputs_is_smaller() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(20, 5)) @ rng.normal(size=(5, 400)) + 0.1 * rng.normal(size=(20, 400))
    weight = rng.normal(size=(6, 20)) * np.geomspace(0.1, 10, 6)[:, None]
    covariance = np.cov(x, bias=True)
    steps = np.abs(weight).max(axis=1) / 7
    q = Problem(weight, covariance, covariance).nearest(steps, 7)
    assert np.abs(q).max() == 7

    def errors(q: np.ndarray) -> np.ndarray:
        return np.square((q * steps[:, None] - weight) @ (x - x.mean(axis=1)[:, None])).sum(axis=1)

    assert (errors(q) < 0.5 * errors(np.rint(weight / steps[:, None]))).all()
