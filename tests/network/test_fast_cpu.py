"""The fast CPU path against the network itself: logits, gradients, every variant."""

from __future__ import annotations

import itertools

import numpy as np
import paddle
import pytest
from caffe_files import random_state

from squeezenet_paddle.errors import InputError
from squeezenet_paddle.network import fast_cpu
from squeezenet_paddle.network.config import CHOICES, ModelConfig
from squeezenet_paddle.network.model import SqueezeNet, load_state

BODIES = itertools.product(*(CHOICES[key] for key in ("version", "bypass", "activation")))
HEADS = itertools.product(CHOICES["version"], ("conv_bn", "conv_fc", "multiscale"))
VARIANTS = [(*body, "conv") for body in BODIES]
VARIANTS += [(version, "none", "relu", head) for version, head in HEADS]


def build(**variant: object) -> SqueezeNet:
    network = SqueezeNet(ModelConfig(num_classes=5, **variant))
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    load_state(network, {**state, **random_state(network.config)}, "random weights")
    network.eval()
    return network


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-120, 150, shape).astype("float32")


def gradients(network: SqueezeNet, logits: paddle.Tensor) -> dict[str, np.ndarray | None]:
    """Of a weighted sum of the logits, so that no two of them count the same."""
    weights = np.random.default_rng(1).normal(size=logits.shape).astype("float32")
    (logits * paddle.to_tensor(weights)).sum().backward()
    result = {
        key: None if parameter.grad is None else parameter.grad.numpy()
        for key, parameter in network.named_parameters()
    }
    for parameter in network.parameters():
        parameter.clear_gradient(False)
    return result


def assert_close(found: np.ndarray, expected: np.ndarray, what: str = "") -> None:
    scale = np.abs(expected).max()
    assert scale > 0, what
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * scale, err_msg=what)


@pytest.mark.parametrize(("version", "bypass", "activation", "head"), VARIANTS)
def test_every_variant_equals_the_network(
    version: str, bypass: str, activation: str, head: str
) -> None:
    network = build(version=version, bypass=bypass, activation=activation, head=head, dropout=0.25)
    # A normalisation over a few numbers that hardly differ would enlarge the rounding errors.
    count = 6 if head == "multiscale" else 3
    x = paddle.to_tensor(pixels(count, 3, 37, 50))
    with paddle.no_grad():
        assert_close(fast_cpu.forward(network, x).numpy(), network(x).numpy())
    network.train()
    keep = None
    if head != "conv_bn":
        shape = [count, 1024] if head == "multiscale" else network.forward_features(x).shape
        keep = paddle.to_tensor(np.random.default_rng(2).random(shape) < 0.75)
    expected_logits = network(x, keep)
    expected = gradients(network, expected_logits)
    logits = fast_cpu.forward(network, x, keep)
    assert_close(logits.numpy(), expected_logits.numpy())
    for key, grad in gradients(network, logits).items():
        if expected[key] is None:  # the statistics of a batch normalisation
            assert grad is None
        else:
            assert_close(grad, expected[key], key)


@pytest.mark.parametrize("size", [224, 227])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_usual_sizes_equal_the_network(version: str, size: int) -> None:
    network = build(version=version)
    x = paddle.to_tensor(pixels(1, 3, size, size))
    expected_logits = network(x)
    expected = gradients(network, expected_logits)
    logits = fast_cpu.forward(network, x)
    assert_close(logits.numpy(), expected_logits.numpy())
    for key, grad in gradients(network, logits).items():
        assert_close(grad, expected[key], key)


@pytest.mark.parametrize("indices_round_up", [True, False])
@pytest.mark.parametrize("shape", [(14, 15), (15, 15), (2, 3), (16, 2)])
def test_pools_round_up_with_indices_or_without(
    shape: tuple[int, int], indices_round_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if indices_round_up and not fast_cpu._indices_round_up():
        pytest.skip("this PaddlePaddle rounds down where indices are asked for")
    monkeypatch.setattr(fast_cpu, "_indices_round_up", lambda: indices_round_up)
    x = paddle.to_tensor(pixels(2, 3, *shape), stop_gradient=False)
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
    x = paddle.to_tensor(pixels(2, 3, 37, 37))
    results = []
    for forward in (network, lambda x: fast_cpu.forward(network, x)):
        paddle.seed(1)
        results.append(forward(x).numpy())
    assert_close(results[1], results[0])
    assert not np.allclose(fast_cpu.forward(network, x).numpy(), results[0])


def test_frozen_layers_get_no_gradient() -> None:
    network = build()
    x = paddle.to_tensor(pixels(2, 3, 37, 37))
    expected = gradients(network, fast_cpu.forward(network, x))
    frozen = {"conv1.weight", "conv1.bias", "fire2.squeeze1x1.weight", "fire2.squeeze1x1.bias"}
    frozen |= {"fire4.expand1x1.bias", "fire7.expand3x3.weight", "conv10.bias"}
    for key, parameter in network.named_parameters():
        parameter.stop_gradient = key in frozen
    found = gradients(network, fast_cpu.forward(network, x))
    assert {key for key, grad in found.items() if grad is None} == frozen
    for key in found.keys() - frozen:
        np.testing.assert_array_equal(found[key], expected[key])


def test_other_parameters_take_the_place_of_the_networks() -> None:
    network, other = build(), build()
    load_state(other, random_state(other.config, seed=1), "other weights")
    x = paddle.to_tensor(pixels(2, 3, 37, 37))
    parameters = dict(other.named_parameters())
    logits = fast_cpu.forward(network, x, parameters=parameters)
    np.testing.assert_array_equal(logits.numpy(), fast_cpu.forward(other, x).numpy())
    assert all(grad is None for grad in gradients(network, logits).values())
    assert all(parameter.grad is not None for parameter in parameters.values())


def test_an_input_that_is_too_small_is_refused() -> None:
    with pytest.raises(InputError, match="at least 17x17"):
        fast_cpu.forward(build(), paddle.zeros([1, 3, 16, 40]))
