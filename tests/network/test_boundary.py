"""The network cut in two: which layers lie at the cut, and that both parts make the whole."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from networks import network_of, noise, random_state

from squeezenet_paddle.network import fast_cpu, numpy_forward
from squeezenet_paddle.network.config import ModelConfig, layers
from squeezenet_paddle.network.stages import (
    STAGES,
    boundary,
    boundary_shapes,
    state_stages,
)


def test_stages_by_hand() -> None:
    stages = {layer.name: layer.stage for layer in layers(ModelConfig(head="multiscale"))}
    assert stages["pool1"] == "conv1"
    assert stages["pool3"] == stages["fire3/pool"] == stages["fire3/expand1x1"] == "fire3"
    assert stages["pools"] == "fire9"
    assert stages["bn_pools"] == stages["fc"] == "head"
    arrays = state_stages(ModelConfig(head="conv_bn", bypass="complex"))
    assert arrays["fire4.bypass1x1.weight"] == "fire4"
    assert arrays["bn9._mean"] == arrays["conv10.bias"] == "head"
    assert arrays["conv1.weight"] == "conv1"


@pytest.mark.parametrize(
    ("variant", "first", "names"),
    [
        ({}, "head", ["fire9/concat"]),
        ({"bypass": "simple"}, "head", ["fire9/sum"]),
        ({}, "fire4", ["pool3"]),
        ({"version": "1.0"}, "fire9", ["pool8"]),
        ({}, "conv1", ["data"]),
        ({"head": "multiscale"}, "conv1", ["data"]),
        ({"head": "multiscale"}, "head", ["pools"]),
        (
            {"head": "multiscale"},
            "fire8",
            ["fire7/concat", *(f"fire{i}/pool" for i in range(2, 8))],
        ),
        ({"head": "multiscale"}, "fire2", ["pool1"]),
    ],
)
def test_boundaries_by_hand(variant: dict[str, str], first: str, names: list[str]) -> None:
    assert boundary(ModelConfig(**variant), first) == names


def test_shapes_by_hand() -> None:
    config = ModelConfig(head="multiscale")
    assert boundary_shapes(config, "head", 227) == [(2560,)]
    assert boundary_shapes(config, "fire5", 224) == [(256, 27, 27), (128,), (128,), (256,)]
    assert boundary_shapes(ModelConfig(), "head", 224) == [(512, 13, 13)]


@pytest.mark.parametrize(
    ("head", "bypass", "version", "data_format"),
    [
        ("conv", "none", "1.1", "NCHW"),
        ("conv_bn", "simple", "1.0", "NHWC"),
        ("multiscale", "none", "1.1", "NCHW"),
        ("multiscale", "complex", "1.0", "NCHW"),
        ("multiscale", "simple", "1.1", "NHWC"),
    ],
)
def test_both_parts_make_the_whole(head: str, bypass: str, version: str, data_format: str) -> None:
    config = ModelConfig(
        version=version, num_classes=5, head=head, bypass=bypass, data_format=data_format
    )
    network, x = network_of(config), noise(2, 3, 39, 39)
    given = x if data_format == "NCHW" else np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    expected = [numpy_forward.activations(config, random_state(config), image) for image in given]
    with paddle.no_grad():
        logits = network(paddle.to_tensor(given)).numpy()
        for first in STAGES:
            ways = [(network.front, network.tail)]
            if data_format == "NCHW":
                ways.append(
                    (
                        lambda *args: fast_cpu.front(network, *args),
                        lambda *args: fast_cpu.tail(network, *args),
                    )
                )
            for front, tail in ways:
                tensors = front(paddle.to_tensor(given), first)
                names = boundary(config, first)
                shapes = boundary_shapes(config, first, 39)
                for name, shape, tensor in zip(names, shapes, tensors):
                    values = tensor.numpy()
                    if values.ndim == 4 and data_format == "NHWC":
                        values = values.transpose(0, 3, 1, 2)
                    assert values.shape[1:] == shape
                    wanted = np.stack([each[name] for each in expected])
                    np.testing.assert_allclose(
                        values, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max()
                    )
                assert len(tensors) == len(names)
                found = tail(tensors, first, None).numpy()
                np.testing.assert_allclose(found, logits, rtol=0, atol=1e-4 * np.abs(logits).max())
