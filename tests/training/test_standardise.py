"""The statistics that a head has from the first update on: the training data's, by numpy."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from networks import network_of, noise, random_state, state_of

from squeezenet_paddle.data.lists import ImageList
from squeezenet_paddle.data.loader import Batch
from squeezenet_paddle.data.sampler import Sampler
from squeezenet_paddle.network import numpy_forward
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.network.model import SqueezeNet
from squeezenet_paddle.parallel.group import Group
from squeezenet_paddle.training import standardise
from squeezenet_paddle.training.inputs import Inputs
from squeezenet_paddle.training.standardise import set_statistics

pytestmark = pytest.mark.usefixtures("blank_figures")

COUNT, SIZE = 7, 41


class Images:
    """The batches of a list, as a loader or a cache gives them."""

    def __init__(self, values: np.ndarray, batch_size: int) -> None:
        self.images = ImageList.of_paths(["x"] * len(values))
        self.sampler, self.skipped = Sampler(len(values), batch_size, shuffle=True), {}
        self._values = values

    def epoch(self, epoch: int = 0, start: int = 0):
        for indices in self.sampler.batches(epoch, start):
            yield Batch(indices, self._values[indices], np.zeros(len(indices), int))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return noise(COUNT, 3, SIZE, SIZE)


@pytest.fixture
def network() -> SqueezeNet:
    config = ModelConfig(num_classes=4, head="compact")
    state = random_state(config)
    state["bn_pools._mean"][:], state["bn_pools._variance"][:] = 0, 1
    return network_of(config, state)


def expected(network: SqueezeNet, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance over the images, the latter with the least deviation of a fire."""
    state = state_of(network)
    pools = [numpy_forward.activations(network.config, state, x)["pools"] for x in images]
    mean, variance = np.mean(pools, 0, "float64"), np.var(pools, 0, "float64")
    start = 0
    for width in (128, 128, 256, 256, 384, 384, 512, 512):
        fire = variance[start : start + width]
        fire[:] = np.maximum(fire, (0.1 * np.sqrt(fire).mean()) ** 2)
        start += width
    return mean, variance


def test_they_are_those_of_the_images(network: SqueezeNet, images: np.ndarray) -> None:
    mean, variance = expected(network, images)
    set_statistics(network, Inputs(Images(images, 3), None), "conv1", Group())
    np.testing.assert_allclose(network.bn_pools._mean.numpy(), mean, rtol=0, atol=1e-3)
    np.testing.assert_allclose(network.bn_pools._variance.numpy(), variance, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("trained_from", ["fire8", "head"])
def test_of_features_too(network: SqueezeNet, images: np.ndarray, trained_from: str) -> None:
    mean, _ = expected(network, images)
    with paddle.no_grad():
        tensors = network.front(paddle.to_tensor(images), trained_from)
    features = np.concatenate([t.numpy().reshape(COUNT, -1) for t in tensors], 1)
    inputs = Inputs(Images(features, 4), None, features_size=SIZE)
    set_statistics(network, inputs, trained_from, Group())
    np.testing.assert_allclose(network.bn_pools._mean.numpy(), mean, rtol=0, atol=1e-3)


def test_a_trained_head_keeps_its_own(network: SqueezeNet, images: np.ndarray) -> None:
    network.bn_pools._mean.set_value(np.full(2560, 0.5, "float32"))
    set_statistics(network, Inputs(Images(images, 4), None), "conv1", Group())
    assert (network.bn_pools._mean.numpy() == 0.5).all()
    assert (network.bn_pools._variance.numpy() == 1).all()


def test_a_long_list_is_not_read_to_its_end(
    network: SqueezeNet, images: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standardise, "IMAGES", 4)
    inputs = Images(images, 2)
    first = np.concatenate(list(inputs.sampler.batches()))[:4]
    mean, _ = expected(network, images[first])
    set_statistics(network, Inputs(inputs, None), "conv1", Group())
    np.testing.assert_allclose(network.bn_pools._mean.numpy(), mean, rtol=0, atol=1e-3)


def test_training_does_not_change_them(network: SqueezeNet, images: np.ndarray) -> None:
    """So that an image's logits are its own, with dropout off, however large the batch is."""
    network.train()
    network.drop10.eval()
    x = paddle.to_tensor(images)
    with paddle.no_grad():
        together = network(x).numpy()
        alone = np.concatenate([network(each[None]).numpy() for each in x])
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-4 * np.abs(together).max())
    assert not network.bn_pools._mean.numpy().any()
