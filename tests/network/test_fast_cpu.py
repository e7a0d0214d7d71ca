"""The fast CPU path against the network itself: logits, gradients, every variant."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import numpy_net
import paddle
import pytest
from networks import (
    build,
    clear_cut_state,
    in_double,
    network_of,
    noise,
    random_state,
    state_of,
    take_gradients,
)

from squeezenet_paddle.errors import InputError
from squeezenet_paddle.network import fast_cpu
from squeezenet_paddle.network.config import CHOICES, ModelConfig
from squeezenet_paddle.network.model import SqueezeNet, load_state

BODIES = itertools.product(*(CHOICES[key] for key in ("version", "bypass", "activation")))
HEADS = itertools.product(CHOICES["version"], ("conv_bn", "conv_fc", "multiscale"))
VARIANTS = [(*body, "conv") for body in BODIES]
VARIANTS += [(version, "none", "relu", head) for version, head in HEADS]


def double(x: np.ndarray) -> paddle.Tensor:
    return paddle.to_tensor(x.astype("float64"))


def gradients(network: SqueezeNet, logits: paddle.Tensor) -> dict[str, np.ndarray]:
    """The gradients of a weighted sum of the logits, so that no two of them count the same."""
    weights = np.random.default_rng(1).normal(size=logits.shape)
    (logits * paddle.to_tensor(weights).astype(logits.dtype)).sum().backward()
    return take_gradients(network)


def assert_close(found: np.ndarray, expected: np.ndarray, what: str = "") -> None:
    scale = np.abs(expected).max()
    assert scale > 0, what
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * scale, err_msg=what)


def assert_both_ways_are_exact(
    network: SqueezeNet, x: np.ndarray, dropout_mask: paddle.Tensor | None = None
) -> None:
    """The network and its fast path against the network in float64."""
    judge = in_double(network)
    expected_logits = judge(double(x), dropout_mask)
    expected = gradients(judge, expected_logits)
    for forward in (network, functools.partial(fast_cpu.forward, network)):
        logits = forward(paddle.to_tensor(x), dropout_mask)
        assert_close(logits.numpy(), expected_logits.numpy())
        found = gradients(network, logits)
        assert found.keys() == expected.keys()
        for key, grad in found.items():
            assert_close(grad, expected[key], key)


@pytest.mark.parametrize(("version", "bypass", "activation", "head"), VARIANTS)
def test_every_variant_is_exact(version: str, bypass: str, activation: str, head: str) -> None:
    config = ModelConfig(version, 5, bypass, activation, dropout=0.25, head=head)
    # A normalisation over a few numbers that hardly differ would enlarge the rounding errors.
    count, height, width = (12, 49, 62) if head in ("conv_bn", "multiscale") else (3, 37, 50)
    contrast = np.linspace(0.5, 1.5, count, dtype="float32")
    x = noise(count, 3, height, width) / 50 * contrast[:, None, None, None]
    network = network_of(config, clear_cut_state(config, x))
    with paddle.no_grad():
        expected = in_double(network)(double(x)).numpy()
        assert_close(fast_cpu.forward(network, paddle.to_tensor(x)).numpy(), expected)
    network.train()
    mask = None
    if head != "conv_bn":
        features = network.forward_features(paddle.to_tensor(x)).shape
        shape = [count, 1024] if head == "multiscale" else features
        mask = paddle.to_tensor(np.random.default_rng(2).random(shape) < 0.75)
    assert_both_ways_are_exact(network, x, mask)


@pytest.mark.parametrize("size", [224, 227])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_usual_sizes_are_exact(version: str, size: int) -> None:
    config = ModelConfig(version, 5)
    x = noise(1, 3, size, size) / 50
    assert_both_ways_are_exact(network_of(config, clear_cut_state(config, x)), x)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_gradients_in_float64_are_slopes(version: str) -> None:
    """The judge of the other tests is judged by differences of the forward pass in numpy."""
    config = ModelConfig(version, 5)
    x = noise(1, 3, 37, 50) / 50
    network = network_of(config, clear_cut_state(config, x))
    judge, state = in_double(network), state_of(network)
    found = gradients(judge, judge(double(x)))
    weights = np.random.default_rng(1).normal(size=(1, 5))[0]
    forward = {"1.0": numpy_net.squeezenet1_0, "1.1": numpy_net.squeezenet1_1}[version]
    rng, step = np.random.default_rng(3), 1e-7
    for key in ("conv1.weight", "fire3.squeeze1x1.bias", "fire5.expand3x3.weight", "conv10.bias"):
        direction = rng.normal(size=state[key].shape)
        ends = [
            forward(x[0].astype("float64"), {**state, key: state[key] + sign * step * direction})
            for sign in (1, -1)
        ]
        slope = (ends[0] - ends[1]) @ weights / (2 * step)
        assert (found[key] * direction).sum() == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("indices_round_up", [True, False])
@pytest.mark.parametrize("shape", [(14, 15), (15, 15), (2, 3), (16, 2)])
def test_pools_round_up_with_indices_or_without(
    shape: tuple[int, int], indices_round_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if indices_round_up and not fast_cpu._indices_round_up():
        pytest.skip("this PaddlePaddle rounds down where indices are asked for")
    monkeypatch.setattr(fast_cpu, "_indices_round_up", lambda: indices_round_up)
    x = paddle.to_tensor(noise(2, 3, *shape), stop_gradient=False)
    results = []
    for pool in (fast_cpu._max_pool, paddle.nn.MaxPool2D(3, 2, ceil_mode=True)):
        y = pool(x)
        y.square().sum().backward()
        results.append((y.numpy(), x.grad.numpy()))
        x.clear_gradient()
    for found, expected in zip(*results):
        np.testing.assert_array_equal(found, expected)


def test_dropout_without_a_mask_is_paddles() -> None:
    network = build(dropout=0.5)
    network.train()
    x = paddle.to_tensor(noise(2, 3, 37, 37))
    results = []
    for forward in (network, lambda x: fast_cpu.forward(network, x)):
        paddle.seed(1)
        results.append(forward(x).numpy())
    assert_close(results[1], results[0])
    assert not np.allclose(fast_cpu.forward(network, x).numpy(), results[0])


def test_frozen_layers_get_no_gradient() -> None:
    network = build()
    x = paddle.to_tensor(noise(2, 3, 37, 37))
    expected = gradients(network, fast_cpu.forward(network, x))
    frozen = {"conv1.weight", "conv1.bias", "fire2.squeeze1x1.weight", "fire2.squeeze1x1.bias"}
    frozen |= {"fire4.expand1x1.bias", "fire7.expand3x3.weight", "conv10.bias"}
    for key, parameter in network.named_parameters():
        parameter.stop_gradient = key in frozen
    found = gradients(network, fast_cpu.forward(network, x))
    assert expected.keys() - found.keys() == frozen
    for key in found:
        np.testing.assert_array_equal(found[key], expected[key])


def test_other_parameters_take_the_place_of_the_networks() -> None:
    network, other = build(), build()
    load_state(other, random_state(other.config, seed=1), "other weights")
    x = paddle.to_tensor(noise(2, 3, 37, 37))
    parameters = dict(other.named_parameters())
    logits = fast_cpu.forward(network, x, parameters=parameters)
    np.testing.assert_array_equal(logits.numpy(), fast_cpu.forward(other, x).numpy())
    assert not gradients(network, logits)
    assert all(parameter.grad is not None for parameter in parameters.values())


def test_an_input_that_is_too_small_is_refused() -> None:
    with pytest.raises(InputError, match="at least 17x17"):
        fast_cpu.forward(build(), paddle.zeros([1, 3, 16, 40]))
