"""Devices: which one is chosen, and that it is set before a network is made, the CPU too."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any, Callable

import numpy as np
import paddle
import pytest
from networks import VARIANTS, network_of, small_model_dir, state_of

from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.device import choose_device, use_device
from squeezenet_paddle.engines.load import load_features
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.explain import Explainer
from squeezenet_paddle.export.export import Export, export
from squeezenet_paddle.model_dir import read_info
from squeezenet_paddle.network.model import SqueezeNet
from squeezenet_paddle.predict import Predictor
from squeezenet_paddle.profiling import trace


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.6.2")
    monkeypatch.setattr(paddle, "is_compiled_with_cuda", lambda: True)
    monkeypatch.setattr(paddle.device.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_is_taken_where_there_is_one() -> None:
    assert choose_device() == "gpu"
    for name in ("cpu", "gpu", "gpu:0", "gpu:1"):
        assert choose_device(name) == name
    with pytest.raises(InputError, match="`device` gpu:2: Paddle finds 2 GPUs"):
        choose_device("gpu:2")


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("name", ["", "tpu", "GPU", "gpu:", "gpu:x", "gpu:-1", "cpu:0"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"cpu, gpu or gpu:N was expected, found '{name}'"):
        choose_device(name)


@pytest.mark.usefixtures("two_gpus")
def test_a_process_without_a_gpu_of_its_own_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paddle ends the process, without an error of Python's, when such a GPU is set."""
    monkeypatch.setenv("FLAGS_selected_gpus", "2")
    for name in (None, "gpu"):
        with pytest.raises(InputError, match="FLAGS_selected_gpus is 2 .* finds 2 GPUs"):
            choose_device(name)
    assert choose_device("gpu:1") == "gpu:1"
    assert choose_device("cpu") == "cpu"
    monkeypatch.setenv("FLAGS_selected_gpus", "1")
    assert choose_device() == choose_device("gpu") == "gpu"


def test_without_a_gpu_it_is_the_cpu() -> None:
    if paddle.device.cuda.device_count():
        pytest.skip("this machine has a GPU")
    assert choose_device() == "cpu"
    with pytest.raises(InputError, match="`device` gpu: Paddle finds 0 GPUs"):
        choose_device("gpu")


def features(path: Path) -> object:
    network = network_of(VARIANTS[0])
    preprocess = Preprocess(resize_size=40, crop_size=35)
    return load_features(VARIANTS[0], state_of(network), preprocess, "fire9", "cpu", "dynamic")


def export_onnx(path: Path) -> object:
    images = [np.zeros((50, 50, 3), "uint8")]
    return export(path, read_info(path), Export("onnx", 40), images, path)


@pytest.mark.parametrize(
    "run",
    [
        lambda path: use_device("cpu"),
        lambda path: Predictor(path, "cpu", "dynamic"),
        features,
        export_onnx,
        lambda path: Explainer(path, "cpu"),
        lambda path: trace.inference_step(path, 1, "cpu"),
        lambda path: trace.training_step(1, "cpu"),
    ],
    ids=["use_device", "predict", "features", "export", "explain", "trace", "trace training"],
)
def test_the_cpu_is_set(
    run: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else paddlepaddle-gpu computes on its first GPU whatever the device is meant to be."""
    path = small_model_dir(tmp_path / "model", VARIANTS[0])
    events: list[str] = []
    make, is_caller = SqueezeNet.__init__, run is not features

    def making(*args: Any, **others: Any) -> None:
        events.append("network")
        make(*args, **others)

    monkeypatch.setattr(SqueezeNet, "__init__", making)
    monkeypatch.setattr(paddle.device, "set_device", events.append)
    run(path)
    if not is_caller:  # the network that the weights came from
        events.remove("network")
    assert events[0] == "cpu"
