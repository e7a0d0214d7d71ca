"""How weights are rounded: judged by brute force, plain rounding and finite differences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from networks import pixels, random_state

from squeezenet_paddle.compression.compress import Cost, smallest_size
from squeezenet_paddle.compression.fisher import fisher_information, inputs_of
from squeezenet_paddle.compression.rounding import Problem, bits_of
from squeezenet_paddle.errors import RunError
from squeezenet_paddle.network.config import ModelConfig, layers
from squeezenet_paddle.network.logits import softmax
from squeezenet_paddle.network.numpy_forward import activations, logits
from squeezenet_paddle.network.weights import key_of
from squeezenet_paddle.sqz.trellis import numbers, quantisers


def layer(outputs: int = 20, inputs: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A weight and the covariances of its correlated inputs."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(200, inputs)) @ rng.normal(size=(inputs, inputs))
    return rng.normal(size=(outputs, inputs)), x.T @ x / len(x)


def error(weight: np.ndarray, rounded: np.ndarray, hessian: np.ndarray) -> float:
    change = rounded - weight
    return float(np.einsum("oi,ij,oj->", change, hessian, change))


def rounded(problem: Problem, step: float, price: float = 0.0) -> np.ndarray:
    """The weights that indices of one step stand for."""
    steps = np.full(problem.target.shape[1], step)
    return values(problem.round(steps, price)) * steps


def values(q: np.ndarray) -> np.ndarray:
    """What indices stand for, in steps."""
    return numbers(q, quantisers(q))


def test_outputs_stay_better_than_by_plain_rounding() -> None:
    weight, hessian = layer()
    found = rounded(Problem(weight, hessian, hessian), 0.25)
    plain = np.rint(weight / 0.5) * 0.5  # as far apart as the values of each quantiser
    assert error(weight, found, hessian) < 0.5 * error(weight, plain, hessian)


def test_it_is_near_the_best_of_all_paths() -> None:
    weight, hessian = layer(outputs=1, inputs=5)
    found = error(weight, rounded(Problem(weight, hessian, hessian), 1.0), hessian)
    around = [np.rint(w / 2) + np.arange(-2, 3) for w in weight[0]]
    paths = np.array(list(itertools.product(*around)), "int32")
    changes = values(paths) - weight
    best = np.einsum("pi,ij,pj->p", changes, hessian, changes).min()
    nearest = np.rint(weight / 2).astype("int32")
    assert best <= found < error(weight, values(nearest), hessian)
    independent = np.diag(np.diag(hessian))  # where nothing makes good what comes before
    found = error(weight, rounded(Problem(weight, independent, independent), 1.0), independent)
    best = np.einsum("pi,i,pi->p", changes, np.diag(hessian), changes).min()
    assert found == pytest.approx(best, rel=1e-9)


def test_a_trellis_has_less_error_than_one_quantiser_at_the_same_size() -> None:
    """Of normal weights one quantiser is 1.53 dB above the bound of rate and distortion."""
    weight = np.random.default_rng(0).normal(size=(300, 60))
    problem = Problem(weight, np.eye(60), np.eye(60))
    found = rounded(problem, 0.25, price=0.02)
    q = problem.round(np.full(60, 0.25), 0.02)
    bits = bits_of(q) / q.size
    excess = 10 * np.log10(np.square(found - weight).mean()) + 20 * np.log10(2) * bits
    assert excess < 1.0


def test_a_price_of_bits_makes_indices_cheaper() -> None:
    weight, hessian = layer(outputs=200)
    problem = Problem(weight, hessian, hessian)
    steps = np.full(12, 0.15)
    bits = [bits_of(problem.round(steps, price)) for price in (0.0, 0.05, 0.5, 1e6)]
    assert bits == sorted(bits, reverse=True)
    assert bits[-1] == 0


def test_what_an_input_tolerates_is_what_others_do_not_make_good() -> None:
    """Of each input the error of the best weights of those after it, by least squares."""
    weight, hessian = layer()
    found = Problem(weight, hessian, hessian).tolerance
    hessian += 0.01 * np.diag(hessian).mean() * np.eye(len(hessian))  # as it is damped
    for i in range(len(hessian)):
        own, later = hessian[i, i], hessian[i, i + 1 :]
        left = own - later @ np.linalg.solve(hessian[i + 1 :, i + 1 :], later)
        assert 1 / found[i] ** 2 == pytest.approx(left)


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
        assert np.abs(rounded(Problem(weight, each, each), 0.1) - weight).max() < 10


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
    q, _ = Problem(weight, covariance, covariance).nearest(steps[None], np.array([7]), None)
    assert np.abs(q).max() == 7

    def errors(q: np.ndarray) -> np.ndarray:
        return np.square((q * steps[:, None] - weight) @ (x - x.mean(axis=1)[:, None])).sum(axis=1)

    assert (errors(q) < 0.5 * errors(np.rint(weight / steps[:, None]))).all()


def test_errors_of_whole_images_are_kept_smaller_where_their_covariances_are_known() -> None:
    """Inputs whose average over an image varies little, and inputs whose average does."""
    rng = np.random.default_rng(4)
    weight = rng.normal(size=(200, 40))
    steady, varying = np.diag(np.repeat([0.01, 1.0], 20)), np.eye(40)
    steps = {}
    for name, of_images in (("places alone", None), ("images too", steady)):
        steps[name] = Problem(weight, varying, varying, of_images).tolerance
    ratio = steps["images too"] / steps["places alone"]
    assert ratio[:20].min() > 1.3 > 1 > ratio[20:].max()
    np.testing.assert_allclose(Problem(weight, varying, varying, steady).target, weight)
