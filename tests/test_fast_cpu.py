"""The fast CPU path against the network itself: logits, gradients, every variant."""

from __future__ import annotations

import itertools

import numpy as np
import paddle
import pytest
from caffe_files import random_state

from squeezenet_paddle import fast_cpu
from squeezenet_paddle.architecture import CHOICES, ModelConfig
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.model import SqueezeNet, load_state

VARIANTS = list(
    itertools.product(*(CHOICES[key] for key in ("version", "bypass", "activation", "head")))
)


def build(**variant: object) -> SqueezeNet:
    network = SqueezeNet(ModelConfig(num_classes=5, **variant))
    state = {key: value.numpy() for key, value in network.state_dict().items()}
    load_state(network, {**state, **random_state(network.config)}, "random weights")
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
    network.clear_gradients()
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
    x = paddle.to_tensor(pixels(3, 3, 53, 66))
    network.eval()
    with paddle.no_grad():
        assert_close(fast_cpu.forward(network, x).numpy(), network(x).numpy())
    network.train()
    keep = None
    if head != "conv_bn":
        maps = network.forward_features(x).shape
        keep = paddle.to_tensor(np.random.default_rng(2).random(maps) < 0.75)
    expected_logits = network(x, keep)
    expected = gradients(network, expected_logits)
    logits = fast_cpu.forward(network, x, keep)
    assert_close(logits.numpy(), expected_logits.numpy())
    for key, grad in gradients(network, logits).items():
        if expected[key] is None:  # the statistics of a batch normalisation
            assert grad is None
        else:
            assert_close(grad, expected[key], key)
