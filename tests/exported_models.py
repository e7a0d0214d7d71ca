"""Small networks with weights in which every layer counts, for the tests of engines and exports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle

from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.model_dir import ModelInfo, write_model_dir
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.network.model import SqueezeNet, load_state

VARIANTS = [
    ModelConfig("1.1", 5),
    ModelConfig("1.0", 5),
    ModelConfig("1.1", 5, head="conv_fc"),
    ModelConfig("1.1", 5, head="conv_bn", activation="elu"),
    ModelConfig("1.0", 5, bypass="simple", data_format="NHWC"),
    ModelConfig("1.1", 5, bypass="complex", head="conv_fc"),
    ModelConfig("1.0", 5, bypass="complex", activation="elu"),
]


def name_of(config: ModelConfig) -> str:
    """The id of a test."""
    return "-".join(str(v) for v in (config.version, config.bypass, config.head, config.activation))


def random_network(config: ModelConfig, seed: int = 0) -> SqueezeNet:
    """A network in evaluation mode whose maps keep their size from layer to layer."""
    rng = np.random.default_rng(seed)
    network = SqueezeNet(config)
    state = {}
    for key, tensor in network.state_dict().items():
        shape = tuple(tensor.shape)
        if key.endswith("._variance"):
            values = rng.uniform(0.5, 2, shape)
        elif len(shape) > 1:
            fan_in = np.prod(shape[1:]) if len(shape) == 4 else shape[0]
            values = rng.normal(0, np.sqrt(2 / fan_in), shape)
        else:
            values = rng.normal(0.1, 0.3, shape)
        state[key] = values.astype("float32")
    load_state(network, state, "random weights")
    network.eval()
    return network


def state_of(network: SqueezeNet) -> dict[str, np.ndarray]:
    """Arrays by state-dict key."""
    return {key: tensor.numpy() for key, tensor in network.state_dict().items()}


def logits_of(network: SqueezeNet, inputs: np.ndarray) -> np.ndarray:
    """By the network itself, as `model.py` spells it."""
    with paddle.no_grad():
        return network(paddle.to_tensor(inputs)).numpy()


def pixels(config: ModelConfig, count: int, size: int) -> np.ndarray:
    """Inputs of a network, float32 in its layout."""
    shape = (count, 3, size, size) if config.data_format == "NCHW" else (count, size, size, 3)
    return np.random.default_rng(count).uniform(-2, 2, shape).astype("float32")


def assert_same(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    """Equal to a share of the largest value."""
    assert found.shape == expected.shape
    assert np.ptp(expected) > 1e-3  # else anything would do
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def small_model_dir(path: Path, config: ModelConfig, crop_size: int = 40, seed: int = 0) -> Path:
    """A model directory of a random network, whose images are small."""
    preprocess = Preprocess(
        resize_size=crop_size + 8,
        crop_size=crop_size,
        scale=1 / 64,
        mean=(1.5, 1.75, 2.0),
        data_format=config.data_format,
    )
    names = [f"class {i}" for i in range(config.num_classes)]
    network = random_network(config, seed)
    write_model_dir(path, ModelInfo(config, preprocess, names), network.state_dict())
    return path
