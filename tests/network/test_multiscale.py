"""The head `multiscale`: means of all fires into a small network of its own, wherever it runs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy_net
import paddle
import pytest
from networks import network_of, noise, random_state

from squeezenet_paddle.caffe.verify import CaffeJudge
from squeezenet_paddle.caffe.writer import caffemodel, deploy_prototxt
from squeezenet_paddle.compression.int8 import quantise
from squeezenet_paddle.network import numpy_forward
from squeezenet_paddle.network.config import ModelConfig, layers
from squeezenet_paddle.network.stages import boundary
from squeezenet_paddle.onnx.writer import GraphInput, onnx_model


def by_hand(x: np.ndarray, state: dict[str, np.ndarray], version: str) -> np.ndarray:
    """Logits of one image in float64, written down from the description of the head."""
    pooled_after = {"1.0": ("fire4", "fire8"), "1.1": ("fire3", "fire5")}[version]
    x = numpy_net.pool(numpy_net.relu(numpy_net.conv(x, state, "conv1", stride=2)))
    means = []
    for name in (f"fire{i}" for i in range(2, 10)):
        x = numpy_net.fire(x, state, name)
        means.append(x.mean(axis=(1, 2)))
        if name in pooled_after:
            x = numpy_net.pool(x)
    v = np.concatenate(means)
    assert v.shape == (2560,)
    v = (v - state["bn_pools._mean"]) / np.sqrt(state["bn_pools._variance"] + 1e-5)
    v = v * state["bn_pools.weight"] + state["bn_pools.bias"]
    v = np.maximum(v @ state["fc10.weight"] + state["fc10.bias"], 0)
    return v @ state["fc.weight"] + state["fc.bias"]


def assert_close(found: np.ndarray, expected: np.ndarray, limit: float = 1e-4) -> None:
    largest = np.abs(expected).max()
    assert largest > 0.1
    assert np.abs(found - expected).max() <= limit * largest


@pytest.mark.parametrize(("version", "size"), [("1.0", 62), ("1.1", 67), ("1.1", 64)])
def test_the_network_equals_the_description(version: str, size: int) -> None:
    config = ModelConfig(version=version, num_classes=6, head="multiscale")
    x = noise(2, 3, size, size)
    with paddle.no_grad():
        logits = network_of(config)(paddle.to_tensor(x)).numpy()
    state = random_state(config)
    for found, image in zip(logits, x):
        assert_close(found, by_hand(image.astype("float64"), state, version))
        assert_close(numpy_forward.logits(config, state, image), found)


@pytest.mark.parametrize(("head", "units"), [("multiscale", 1024), ("compact", 128)])
def test_parameters_by_hand(head: str, units: int) -> None:
    trunk = 1_235_496 - (512 * 1000 + 1000)  # v1.1 without conv10
    linear = 2 * 2560 + 2560 * units + units + units * 7 + 7
    config = ModelConfig(head=head, num_classes=7)
    assert sum(layer.parameters for layer in layers(config)) == trunk + linear
    assert head == "multiscale" or trunk + linear < 1_060_000


@pytest.mark.parametrize(("bypass", "activation"), [("simple", "elu"), ("complex", "relu")])
def test_variants_equal_numpy(bypass: str, activation: str) -> None:
    config = ModelConfig(
        num_classes=6, head="multiscale", bypass=bypass, activation=activation, data_format="NHWC"
    )
    x = noise(1, 41, 50, 3)
    with paddle.no_grad():
        logits = network_of(config)(paddle.to_tensor(x)).numpy()[0]
    assert_close(logits, numpy_forward.logits(config, random_state(config), x[0]))


@pytest.mark.parametrize(("version", "size"), [("1.0", 227), ("1.1", 224)])
def test_opencv_computes_the_caffe_file(version: str, size: int, tmp_path: Path) -> None:
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        pytest.skip("this OpenCV reads no Caffe files")
    config = ModelConfig(version=version, num_classes=6, head="multiscale", bypass="simple")
    state = random_state(config)
    files = tmp_path / "deploy.prototxt", tmp_path / "net.caffemodel"
    files[0].write_text(deploy_prototxt(config, size, size))
    files[1].write_bytes(caffemodel(config, state, size, size))
    x = noise(1, 3, size, size)
    found = CaffeJudge(*files).outputs(x, ["pools", "fc"])
    assert_close(found["fc"].reshape(-1), numpy_forward.logits(config, state, x[0]))
    assert 'name: "drop10"' in files[0].read_text()


@pytest.mark.parametrize(("version", "concat"), [("1.0", True), ("1.1", False)])
def test_onnx_runtime_computes_the_onnx_file(version: str, concat: bool) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    config = ModelConfig(version=version, num_classes=6, head="multiscale", bypass="complex")
    state, x = random_state(config), noise(2, 3, 67, 67)
    model = onnx_model(config, state, GraphInput(67, 67), concat)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    [logits] = session.run(None, {"data": x})
    for found, image in zip(logits, x):
        assert_close(found, numpy_forward.logits(config, state, image))


def test_openvino_computes_the_onnx_file() -> None:
    openvino = pytest.importorskip("openvino")
    config = ModelConfig(num_classes=6, head="multiscale")
    state, x = random_state(config), noise(1, 3, 67, 67)
    model = onnx_model(config, state, GraphInput(67, 67), concat=False)
    core = openvino.Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}  # else bfloat16 on a processor that has it
    logits = core.compile_model(core.read_model(model, b""), "CPU", exact)([x])[0]
    assert_close(logits[0], numpy_forward.logits(config, state, x[0]), limit=1e-3)


@pytest.mark.parametrize("head", ["compact", "multiscale", "conv_fc"])
def test_eight_bits_are_near(head: str) -> None:
    onnxruntime, openvino = pytest.importorskip("onnxruntime"), pytest.importorskip("openvino")
    config = ModelConfig(num_classes=6, head=head)
    state, x = random_state(config), noise(3, 3, 67, 67)
    quantised = quantise(config, state, x)
    model = onnx_model(config, state, GraphInput(67, 67), quantised=quantised)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model, b""), "CPU", {"NUM_STREAMS": 1})
    for logits in session.run(None, {"data": x})[0], compiled([x])[0]:
        for found, image in zip(logits, x):
            assert_close(found, numpy_forward.logits(config, state, image), limit=0.1)


def test_eight_bits_cover_linear_layers() -> None:
    """Each weight is within half a step, an output's largest is exact, and the file is small."""
    onnx = pytest.importorskip("onnx")
    config = ModelConfig(num_classes=10, head="compact")
    state = random_state(config)
    state["fc10.weight"][:, 3] = 0  # an output of no weights
    quantised = quantise(config, state, noise(1, 3, 67, 67))
    model = onnx_model(config, state, GraphInput(67, 67), quantised=quantised)
    assert len(model) < 1_170_000  # which leaves room for what says "none of these"
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    constants = {
        each.name: onnx.numpy_helper.to_array(each)
        for each in onnx.load_from_string(model).graph.initializer
    }
    for key in "fc10.weight", "fc.weight":
        rounded, scale = constants[f"{key}/int8"], constants[f"{key}/scale"]
        assert rounded.dtype == np.int8
        error = np.abs(rounded * scale - state[key])
        assert (error <= scale / 2 * (1 + 1e-5)).all()
        largest = np.abs(state[key]).max(axis=0)
        np.testing.assert_allclose(np.abs(rounded * scale).max(axis=0), largest, rtol=1e-6)
    assert constants["fc10.weight/int8"].nbytes == 2560 * 128


@pytest.mark.parametrize(
    ("variant", "first", "concat"),
    [
        ({"head": "multiscale"}, "head", True),
        ({"head": "multiscale", "version": "1.0"}, "head", False),
        ({"head": "multiscale", "bypass": "complex"}, "fire8", False),
        ({"head": "multiscale", "version": "1.0"}, "fire5", True),
        ({"head": "multiscale"}, "fire4", False),
        ({}, "head", False),
        ({"bypass": "simple"}, "fire6", True),
        ({"head": "conv_bn", "version": "1.0"}, "fire2", False),
    ],
)
def test_the_frozen_part_alone_in_onnx(variant: dict[str, str], first: str, concat: bool) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    config = ModelConfig(num_classes=6, **variant)
    state, x = random_state(config), noise(2, 3, 62, 67)
    names = boundary(config, first)
    model = onnx_model(config, state, GraphInput(62, 67), concat, outputs=names)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == names
    found = session.run(None, {"data": x})
    for i, image in enumerate(x):
        expected = numpy_forward.activations(config, state, image)
        for name, values in zip(names, found):
            assert values[i].shape == expected[name].shape
            assert_close(values[i], expected[name])
    for output, values in zip(session.get_outputs(), found):
        assert output.shape[1:] == list(values.shape[1:])
    weights = {key for key in state if key.encode() in model}
    assert not any(key.startswith(("conv10", "fc", "bn")) for key in weights)
