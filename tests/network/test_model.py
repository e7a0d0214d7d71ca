"""The network against OpenCV's Caffe importer, at both usual sizes, and its own promises."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy_net
import paddle
import pytest
from networks import in_double, logits_of, network_of, noise, pixels, random_state

from squeezenet_paddle.caffe.verify import CaffeJudge, verify
from squeezenet_paddle.caffe.writer import caffemodel, deploy_prototxt
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.network.config import (
    CHOICES,
    ModelConfig,
    dropout_shape,
    layers,
    minimum_input_size,
)
from squeezenet_paddle.network.model import SqueezeNet, load_state, squeezenet1_0, squeezenet1_1


def judge(config: ModelConfig, height: int, width: int, folder: Path) -> CaffeJudge:
    """The same network in OpenCV, from files that the project writes."""
    (folder / "deploy.prototxt").write_text(deploy_prototxt(config, height, width))
    (folder / "net.caffemodel").write_bytes(caffemodel(config, random_state(config)))
    return CaffeJudge(folder / "deploy.prototxt", folder / "net.caffemodel")


@pytest.mark.parametrize("size", [224, 227])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("bypass", ["none", "simple", "complex"])
def test_every_layer_equals_caffe(version: str, bypass: str, size: int, tmp_path: Path) -> None:
    config = ModelConfig(version=version, bypass=bypass, num_classes=10)
    caffe = judge(config, size, size, tmp_path)
    result = verify(network_of(config), caffe, noise(1, 3, size, size), "random")
    assert len(result.differences) == 26 + 8 + 1 + (4 if bypass == "complex" else 0)
    assert result.passed, result.worst


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_oblong_inputs_equal_caffe(version: str, tmp_path: Path) -> None:
    config = ModelConfig(version=version, num_classes=10)
    network = network_of(config)
    for height, width in ((30, 61), (97, 50)):
        caffe = judge(config, height, width, tmp_path)
        assert verify(network, caffe, noise(1, 3, height, width), "random").passed


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_smallest_inputs_equal_numpy(version: str) -> None:
    """OpenCV refuses a pool of two pixels, which Caffe and we take."""
    config = ModelConfig(version=version, num_classes=10)
    network, state = network_of(config), random_state(config)
    reference = {"1.0": numpy_net.squeezenet1_0, "1.1": numpy_net.squeezenet1_1}[version]
    minimum = minimum_input_size(version)
    for height, width in ((minimum, minimum), (minimum + 1, minimum + 5)):
        x = noise(1, 3, height, width)
        with paddle.no_grad():
            logits = network(paddle.to_tensor(x)).numpy()[0]
        expected = reference(x[0].astype("float64"), state)
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4 * expected.max())


def test_elu_equals_caffe(tmp_path: Path) -> None:
    config = ModelConfig(activation="elu", num_classes=10)
    caffe = judge(config, 67, 67, tmp_path)
    assert verify(network_of(config), caffe, noise(1, 3, 67, 67), "random").passed


@pytest.mark.parametrize("bypass", ["none", "simple", "complex"])
@pytest.mark.parametrize("head", CHOICES["head"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_trained_parameters_are_those_of_the_table(version: str, head: str, bypass: str) -> None:
    config = ModelConfig(version=version, head=head, bypass=bypass, num_classes=7)
    trained = [p for p in SqueezeNet(config).parameters() if not p.stop_gradient]
    assert sum(p.size for p in trained) == sum(layer.parameters for layer in layers(config))


def test_state_dict_keys_are_caffe_names() -> None:
    network = squeezenet1_1()
    keys = {
        f"{layer.name.replace('/', '.')}.{kind}"
        for layer in layers(network.config)
        if layer.type == "Convolution"
        for kind in ("weight", "bias")
    }
    assert set(network.state_dict()) == keys
    assert len(keys) == 52


@pytest.mark.parametrize("size", [224, 227])
def test_nhwc_with_the_same_weights(size: int) -> None:
    config = ModelConfig(num_classes=10, bypass="complex")
    channels_last = network_of(ModelConfig(num_classes=10, bypass="complex", data_format="NHWC"))
    x = noise(2, 3, size, size)
    with paddle.no_grad():
        expected = network_of(config)(paddle.to_tensor(x)).numpy()
        found = channels_last(paddle.to_tensor(x.transpose(0, 2, 3, 1).copy())).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head", CHOICES["head"])
@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
def test_static_graph_gives_the_same_numbers(head: str, data_format: str, tmp_path: Path) -> None:
    config = ModelConfig(num_classes=10, head=head, data_format=data_format)
    network = network_of(config)
    inputs = pixels(config, 3, 67)
    expected = logits_of(in_double(network), inputs.astype("float64"))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    close(logits_of(network, inputs), expected)
    spec = [paddle.static.InputSpec([None, *inputs.shape[1:]], "float32")]
    static = paddle.jit.to_static(network, input_spec=spec, full_graph=True)
    close(logits_of(static, inputs), expected)
    paddle.jit.save(static, str(tmp_path / "net"))
    loaded = paddle.jit.load(str(tmp_path / "net"))
    loaded.eval()
    for batch in (1, 3):  # the batch is dynamic
        close(logits_of(loaded, inputs[:batch]), expected[:batch])


def test_a_static_graph_may_leave_the_size_open() -> None:
    network = squeezenet1_0(num_classes=4)
    network.eval()
    spec = [paddle.static.InputSpec([None, 3, None, None], "float32")]
    static = paddle.jit.to_static(network, input_spec=spec, full_graph=True)
    for size in (64, 81):
        x = paddle.to_tensor(noise(1, 3, size, size))
        with paddle.no_grad():
            expected = network.forward_head(network.forward_features(x)).numpy()
            np.testing.assert_allclose(static(x).numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        (squeezenet1_1, (1, 3, 16, 227), "v1.1 needs an input of at least 17x17"),
        (squeezenet1_0, (1, 3, 21, 20), "v1.0 needs an input of at least 21x21"),
        (squeezenet1_1, (1, 1, 64, 64), "expected; found"),
        (squeezenet1_1, (3, 64, 64), "expected; found"),
    ],
)
def test_an_input_that_cannot_be_is_refused(network, shape, message: str) -> None:
    with pytest.raises(InputError, match=message):
        network(num_classes=2)(paddle.zeros(list(shape)))


def test_forward_features_is_fire9() -> None:
    network = squeezenet1_1(num_classes=3)
    network.eval()
    with paddle.no_grad():
        features = network.forward_features(paddle.zeros([2, 3, 227, 227]))
    assert features.shape == [2, 512, 14, 14]


def test_logits_of_the_original_head_are_not_negative() -> None:
    """The ReLU stands before the pool, so the logits are means of values of at least 0."""
    network = network_of(ModelConfig(num_classes=50))
    with paddle.no_grad():
        logits = network(paddle.to_tensor(noise(4, 3, 67, 67))).numpy()
    assert logits.min() >= 0
    assert logits.max() > 0


@pytest.mark.parametrize("head", CHOICES["head"])
def test_training_warns_of_nothing(head: str) -> None:
    """Paddle's own batch normalisation warns on every pass that it tracks statistics."""
    network = SqueezeNet(ModelConfig(num_classes=3, head=head))
    network.train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network(paddle.to_tensor(noise(2, 3, 41, 41)))


@pytest.mark.parametrize("head", CHOICES["head"])
@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
def test_the_dropout_mask_has_the_shape_that_is_stated(head: str, data_format: str) -> None:
    config = ModelConfig(num_classes=3, head=head, data_format=data_format)
    network = SqueezeNet(config)
    network.train()
    shape = (2, 3, 41, 50) if data_format == "NCHW" else (2, 41, 50, 3)
    features = network.forward_features(paddle.to_tensor(noise(*shape)))
    stated = dropout_shape(config, 41, 50)
    assert (stated is None) == (head == "conv_bn")
    if stated is not None:
        if len(stated) == 3 and data_format == "NHWC":
            stated = (*stated[1:], stated[0])
        nothing = paddle.zeros([2, *stated], "bool")
        logits = network.forward_head(features, nothing).numpy()
        np.testing.assert_array_equal(logits[0], logits[1])  # nothing of the images is left
    assert dropout_shape(dataclasses.replace(config, dropout=0.0), 41, 50) is None


@pytest.mark.parametrize("head", CHOICES["head"])
def test_reset_classifier_changes_the_classifier_alone(head: str) -> None:
    network = SqueezeNet(ModelConfig(num_classes=10, head=head))
    before = {key: value.numpy() for key, value in network.state_dict().items()}
    network.reset_classifier(4)
    network.eval()
    assert network.config.num_classes == 4
    assert network(paddle.zeros([2, 3, 32, 32])).shape == [2, 4]
    classifier = "conv10." if head in ("conv", "conv_bn") else "fc."
    for key, value in network.state_dict().items():
        if key.startswith(classifier):
            assert 4 in value.shape
        else:
            np.testing.assert_array_equal(value.numpy(), before[key])


def test_dropout_is_scaled_while_training() -> None:
    """Caffe's dropout divides by the share that is kept while training and does nothing after."""
    network = squeezenet1_1(num_classes=3, dropout=0.25)
    ones = paddle.ones([1, 512, 13, 13])
    network.train()
    values, counts = np.unique(network.drop9(ones).numpy(), return_counts=True)
    np.testing.assert_allclose(values, [0, 1 / 0.75], rtol=1e-6)
    assert abs(counts[0] / counts.sum() - 0.25) < 0.01
    network.eval()
    np.testing.assert_array_equal(network.drop9(ones).numpy(), ones.numpy())


def test_caffe_initialisation() -> None:
    paddle.seed(1)
    state = {key: value.numpy() for key, value in squeezenet1_0().state_dict().items()}
    for key, value in state.items():
        if key.endswith(".bias"):
            assert not value.any()
        elif key == "conv10.weight":
            assert abs(value.std() - 0.01) < 1e-4
            assert np.abs(value).max() > 0.03  # normal, not uniform
        else:
            bound = np.sqrt(3 / np.prod(value.shape[1:]))
            assert 0.99 * bound < np.abs(value).max() <= bound * (1 + 1e-6), key


@pytest.mark.parametrize(
    ("variant", "classifier_bias", "expected"),
    [
        ({"num_classes": 10}, None, 3),
        ({"num_classes": 100, "head": "conv_bn"}, None, 3),
        ({"num_classes": 101}, None, 0),
        ({"num_classes": 1000}, None, 0),
        ({"num_classes": 10, "activation": "elu"}, None, 0),  # an ELU cannot die
        ({"num_classes": 10, "head": "conv_fc"}, None, 0),  # it has 1000 maps
        ({"num_classes": 10}, 0, 0),
        ({"num_classes": 1000}, 1.5, 1.5),
    ],
)
def test_bias_of_a_new_conv10(
    variant: dict[str, Any], classifier_bias: float | None, expected: float
) -> None:
    network = SqueezeNet(ModelConfig(**variant), classifier_bias=classifier_bias)
    assert (network.conv10.bias.numpy() == expected).all()
    network.reset_classifier(variant["num_classes"])
    assert (network.conv10.bias.numpy() == expected).all()


def test_a_new_network_of_few_classes_is_alive() -> None:
    """All maps of conv10 are active everywhere, so every class gets a gradient."""
    network = squeezenet1_1(num_classes=10)
    logits = network(paddle.to_tensor(noise(2, 3, 67, 67)))
    assert logits.numpy().min() > 1
    logits.sum().backward()
    assert np.abs(network.conv10.weight.grad.numpy()).max(axis=(1, 2, 3)).min() > 0


def test_xavier_normal_initialisation() -> None:
    paddle.seed(1)
    network = squeezenet1_1(init="xavier_normal")
    for key in ("fire9.expand3x3.weight", "conv10.weight"):
        value = network.state_dict()[key].numpy()
        receptive = np.prod(value.shape[2:])
        expected = np.sqrt(2 / ((value.shape[0] + value.shape[1]) * receptive))
        assert abs(value.std() / expected - 1) < 0.02
        assert np.abs(value).max() > 3 * expected
    with pytest.raises(InputError, match="`init` must be one of"):
        squeezenet1_1(init="zeros")


def test_load_state_lists_everything_and_changes_nothing() -> None:
    network = squeezenet1_1(num_classes=3)
    before = {key: value.numpy() for key, value in network.state_dict().items()}
    state = {key: np.full_like(value, 0.5) for key, value in before.items()}
    del state["conv1.bias"]
    state["conv11.weight"] = np.zeros(3, "float32")
    state["conv10.weight"] = np.zeros((4, 512, 1, 1), "float32")
    state["fire2.squeeze1x1.bias"][3] = np.inf
    with pytest.raises(InputError) as caught:
        load_state(network, state, "some file")
    for part in (
        "some file",
        "conv1.bias is missing",
        "conv11.weight is unexpected",
        "conv10.weight has shape [4, 512, 1, 1] where [3, 512, 1, 1] is expected",
        "fire2.squeeze1x1.bias holds NaN or infinite",
    ):
        assert part in str(caught.value)
    for key, value in network.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key])
