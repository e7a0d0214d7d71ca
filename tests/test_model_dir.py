"""The model directory: what is written is read again, and what is wrong is named."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.files import sha256
from squeezenet_paddle.model_dir import (
    CONFIG,
    NAMES,
    WEIGHTS,
    ModelInfo,
    check_target,
    load_network,
    read_info,
    write_model_dir,
)
from squeezenet_paddle.network.model import squeezenet1_1

NETWORK = squeezenet1_1(num_classes=3)
STATE = {key: tensor.numpy() for key, tensor in NETWORK.state_dict().items()}
INFO = ModelInfo(NETWORK.config, Preprocess(), ["cat", "größe, Maß", "n03 fish"])


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    write_model_dir(tmp_path / "model", INFO, NETWORK.state_dict())
    return tmp_path / "model"


def load(path: Path) -> Any:
    return load_network(path, read_info(path))


# What is right


@pytest.mark.parametrize("data_format", ["NCHW", "NHWC"])
def test_what_is_written_is_read(tmp_path: Path, data_format: str) -> None:
    network = squeezenet1_1(3, bypass="complex", head="conv_bn", data_format=data_format)
    info = ModelInfo(
        network.config,
        Preprocess("short_side", 64, "area", 63, "RGB", 1 / 255, (0, 1, 2), (3, 4, 5), data_format),
        ["a", "b c", "ö"],
        {"files": ["ü"], "date": None},
        {"max_difference": 1e-7},
        {"val": {"top1": 0.5}},
    )
    write_model_dir(tmp_path / "deep" / "model", info, network.state_dict())
    assert read_info(tmp_path / "deep" / "model") == info

    result = load_network(tmp_path / "deep" / "model", info)
    assert not result.training
    before, after = network.state_dict(), result.state_dict()
    assert list(before) == list(after)
    for key in before:
        assert before[key].numpy().tobytes() == after[key].numpy().tobytes()


def test_names_are_optional(tmp_path: Path) -> None:
    write_model_dir(tmp_path, ModelInfo(NETWORK.config, Preprocess()), STATE)
    assert sorted(p.name for p in tmp_path.iterdir()) == [CONFIG, WEIGHTS]
    assert read_info(tmp_path).names is None


def test_only_a_model_directory_is_overwritten(model_dir: Path) -> None:
    check_target(model_dir)
    write_model_dir(model_dir, ModelInfo(NETWORK.config, Preprocess()), STATE)
    assert not (model_dir / NAMES).exists()

    (model_dir / CONFIG).unlink()
    with pytest.raises(InputError, match="holds something else"):
        check_target(model_dir)
    with pytest.raises(InputError, match="holds something else"):
        write_model_dir(model_dir, INFO, STATE)
    assert [p.name for p in model_dir.iterdir()] == [WEIGHTS]


# A wrong description


def test_disagreeing_layouts_are_refused() -> None:
    with pytest.raises(InputError, match="network reads NCHW and the preprocessing makes NHWC"):
        ModelInfo(NETWORK.config, Preprocess(data_format="NHWC"))


def make(folder: Path, *files: str) -> None:
    for name in files:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing", "missing: no such directory; a model directory was expected"),
        (".", "not a model directory, it has no config.json; give one of those in it: {}/mine"),
        ("x", "x: not a model directory, it has no config.json."),
        ("c", "no config.json; squeezenet convert --caffemodel {}/c/v1.caffemodel --out"),
        (
            "c/v1.caffemodel",
            "a Caffe file; squeezenet convert --caffemodel {}/c/v1",
        ),
        ("c/v1.caffemodel", "--output_dir {}/c/v1 makes one of it"),
        ("c/v1.prototxt", "a Caffe file; squeezenet convert --caffemodel {}/c/v1"),
        ("mine/model.pdparams", "expected, found a file in one; give {}/mine."),
        ("mine/model.onnx", "expected, found a file in one; give {}/mine."),
        (
            "x/net.onnx",
            "directory with config.json and model.pdparams was expected, found a file",
        ),
    ],
)
def test_what_to_give_instead_of_something_else(tmp_path: Path, path: str, message: str) -> None:
    make(tmp_path, "mine/config.json", "mine/model.pdparams", "mine/model.onnx")
    make(tmp_path, "x/net.onnx", "c/v1.caffemodel", "c/v1.prototxt")
    for each in (tmp_path / path, str(tmp_path / path)):
        with pytest.raises(InputError, match=re.escape(message.format(tmp_path))):
            read_info(each)


@pytest.mark.parametrize("url", ["https://host/v1.caffemodel", Path("https://host/model")])
def test_a_url_is_no_model_directory(url: str | Path) -> None:
    with pytest.raises(InputError, match=r"found a URL; download .* convert it"):
        read_info(url)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff\xfe{}", b"{} {}", b"[" * 100_000], ids=lambda data: repr(data[:5])
)
def test_config_that_is_no_json_is_refused(model_dir: Path, data: bytes) -> None:
    (model_dir / CONFIG).write_bytes(data)
    with pytest.raises(InputError, match="config.json: not JSON"):
        read_info(model_dir)


@pytest.mark.parametrize("value", [None, [], 1, "x"])
def test_config_that_is_no_object_is_refused(model_dir: Path, value: object) -> None:
    (model_dir / CONFIG).write_text(json.dumps(value))
    with pytest.raises(InputError, match="config.json: a JSON object was expected"):
        read_info(model_dir)


def edit(*at: str, to: object) -> Callable[[dict[str, Any]], None]:
    """Sets the value at this place of config.json."""

    def apply(config: dict[str, Any]) -> None:
        for key in at[:-1]:
            config = config[key]
        config[at[-1]] = to

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit("colour", to=1), "config.json: unknown keys: colour; missing keys: none"),
        (lambda c: c.pop("scores"), "config.json: unknown keys: none; missing keys: scores"),
        (edit("network", "depth", to=1), "config.json, network: unknown keys: depth"),
        (lambda c: c["preprocess"].pop("mean"), "config.json, preprocess: .*missing keys: mean"),
        (edit("format_version", to=2), "format_version 1 was expected, found 2"),
        (edit("format_version", to="1"), "format_version 1 was expected, found '1'"),
        (edit("network", to=[]), "config.json, network: a JSON object was expected, found list"),
        (edit("network", "version", to="1.2"), "config.json, network: version must be one of"),
        (edit("network", "version", to=1.1), "config.json, network: version must be one of"),
        (edit("network", "num_classes", to="3"), "network: num_classes must be a whole number"),
        (edit("network", "num_classes", to=3.0), "network: num_classes must be a whole number"),
        (edit("network", "num_classes", to=True), "network: num_classes must be a whole number"),
        (edit("network", "bypass", to=None), "network: bypass must be one of"),
        (edit("network", "head", to=["conv"]), "network: head must be one of"),
        (edit("network", "dropout", to="0.5"), "network: dropout must be a number"),
        (edit("network", "dropout", to=1), "network: dropout must be at least 0 and below 1"),
        (edit("preprocess", "crop_size", to="227"), "config.json, preprocess: crop_size must be"),
        (edit("network", "num_classes", to=10**6), "num_classes must be a .* of 1 to 100,000"),
        (edit("preprocess", "crop_size", to=16), "crop_size must be at least 17 for SqueezeNet v1"),
        (edit("preprocess", "crop_size", to=10**6), "crop_size must be .* of 1 to 2048"),
        (edit("preprocess", "resize_size", to=10**6), "resize_size must be .* 1 to 2048"),
        (edit("preprocess", "resize_size", to=2**31 + 7), "resize_size must be .* 1 to 2048"),
        (edit("preprocess", "std", to=[1, 1, 1e-30]), "scale, mean and std must make inputs of at"),
        (edit("preprocess", "scale", to=1e37), "scale, mean and std must make inputs of at most"),
        (edit("format_version", to=True), "format_version 1 was expected, found True"),
        (
            edit("source", "classifier_name", to=["a"]),
            "source: classifier_name must be",
        ),
        (edit("source", "classifier_name", to="a\nb"), "source: classifier_name must be the name"),
        (edit("preprocess", "mean", to="104"), "config.json, preprocess: mean must be three"),
        (edit("preprocess", "mean", to=[1, 2, "3"]), "preprocess: mean must be three finite"),
        (edit("preprocess", "mean", to=[1, 2, 10**400]), "config.json, preprocess: "),
        (edit("preprocess", "std", to={"B": 1}), "config.json, preprocess: std must be three"),
        (edit("preprocess", "scale", to=None), "config.json, preprocess: scale must be"),
        (edit("preprocess", "data_format", to="NHWC"), "config.json: the network reads NCHW and"),
        (edit("source", to="caffe"), "config.json, source: a JSON object was expected"),
        (edit("scores", to=None), "config.json, scores: a JSON object was expected"),
        (edit("network", "num_classes", to=4), "synset_words.txt: 4 class names were expected"),
    ],
)
def test_wrong_config_is_named(
    model_dir: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    config = json.loads((model_dir / CONFIG).read_text())
    change(config)
    (model_dir / CONFIG).write_text(json.dumps(config))
    with pytest.raises(InputError, match=message):
        read_info(model_dir)


def test_files_that_have_no_end_are_refused(model_dir: Path) -> None:
    for name, what in ((CONFIG, "model description"), (NAMES, "list of class names")):
        whole = (model_dir / name).read_bytes()
        (model_dir / name).unlink()
        os.mkfifo(model_dir / name)
        with pytest.raises(InputError, match=f"{name}: a regular file was expected as {what}"):
            read_info(model_dir)
        (model_dir / name).unlink()
        (model_dir / name).symlink_to("/dev/zero")
        with pytest.raises(InputError, match=f"{name}: a regular file was expected as {what}"):
            read_info(model_dir)
        (model_dir / name).unlink()
        (model_dir / name).write_bytes(whole)
        os.truncate(model_dir / name, 10**11)
        with pytest.raises(InputError, match=f"{name}: at most .* bytes were expected"):
            read_info(model_dir)
        (model_dir / name).write_bytes(whole)


# Wrong weights


def test_a_bit_that_flipped_is_told(model_dir: Path) -> None:
    data = bytearray((model_dir / WEIGHTS).read_bytes())
    at = bytes(data).index(STATE["fire5.expand1x1.weight"].tobytes())
    data[at + 1002] ^= 64
    (model_dir / WEIGHTS).write_bytes(data)
    with pytest.raises(InputError, match=r"model\.pdparams: these are not the weights that config"):
        load(model_dir)


def test_weights_without_a_checksum_are_told_once(
    model_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load(model_dir)
    assert not caplog.text
    config = json.loads((model_dir / CONFIG).read_text())
    assert config.pop("weights_sha256") == sha256((model_dir / WEIGHTS).read_bytes())
    (model_dir / CONFIG).write_text(json.dumps(config))
    for _ in range(2):
        load(model_dir)
    assert caplog.text.count("kept no weights_sha256, so that damaged weights cannot be told") == 1


@pytest.mark.parametrize("value", [None, 1, [], "", "0" * 64])
def test_another_checksum_is_refused(model_dir: Path, value: object) -> None:
    config = json.loads((model_dir / CONFIG).read_text())
    config["weights_sha256"] = value
    (model_dir / CONFIG).write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"model\.pdparams: these are not the weights"):
        load(model_dir)


def test_weights_that_have_no_end_are_refused(model_dir: Path) -> None:
    (model_dir / WEIGHTS).unlink()
    os.mkfifo(model_dir / WEIGHTS)
    with pytest.raises(InputError, match=r"pdparams: a regular file was expected as file of wei"):
        load(model_dir)
    (model_dir / WEIGHTS).unlink()
    (model_dir / WEIGHTS).symlink_to("/dev/zero")
    with pytest.raises(InputError, match=r"pdparams: a regular file was expected as file of wei"):
        load(model_dir)
    (model_dir / WEIGHTS).unlink()
    (model_dir / WEIGHTS).touch()
    os.truncate(model_dir / WEIGHTS, 10**11)
    with pytest.raises(InputError, match=r"pdparams: at most [\d,]+ bytes were expected"):
        load(model_dir)


def test_missing_weights_are_named(model_dir: Path) -> None:
    (model_dir / WEIGHTS).unlink()
    with pytest.raises(InputError, match="it has no model.pdparams"):
        load(model_dir)


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999_99])
def test_cut_weights_are_refused(model_dir: Path, share: float) -> None:
    data = (model_dir / WEIGHTS).read_bytes()
    (model_dir / WEIGHTS).write_bytes(data[: int(share * len(data))])
    with pytest.raises(InputError, match="model.pdparams: this pickle is damaged"):
        load(model_dir)


@pytest.fixture(scope="module")
def shared_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shared") / "model"
    write_model_dir(path, INFO, STATE)
    return path


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_are_refused_as_weights(shared_dir: Path, data: bytes) -> None:
    (shared_dir / WEIGHTS).write_bytes(data)
    with pytest.raises(InputError, match="model.pdparams: "):
        load_network(shared_dir, INFO)


def test_nothing_in_the_weights_is_run(model_dir: Path, tmp_path: Path) -> None:
    class Program:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "was run",))

    (model_dir / WEIGHTS).write_bytes(pickle.dumps({"conv1.bias": Program()}))
    with pytest.raises(InputError, match=r"model.pdparams: refused, .* none of it was run"):
        load(model_dir)
    assert not (tmp_path / "was run").exists()


BIAS = STATE["conv1.bias"]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1, 2], "a pickled dict was expected; found list"),
        ({"model": STATE, "epoch": 3}, "a state dict of arrays was expected"),
        ({}, "conv1.weight is missing; .* more"),
        ({k: v for k, v in STATE.items() if k != "conv10.bias"}, "conv10.bias is missing"),
        ({**STATE, "fc.weight": BIAS}, "fc.weight is unexpected"),
        ({**STATE, "conv1.bias": BIAS[:-1]}, r"conv1.bias has shape \[63\] where \[64\] is"),
        ({**STATE, "conv1.bias": BIAS * np.nan}, "conv1.bias holds NaN or infinite"),
        ({**STATE, "conv1.bias": BIAS + np.inf}, "conv1.bias holds NaN or infinite"),
        ({**STATE, "conv1.bias": np.full(64, 1e300)}, "conv1.bias"),
        ({**STATE, "conv1.bias": np.array(["1"] * 64)}, "conv1.bias"),
        ({**STATE, "conv1.bias": np.ones(64, "uint16")}, "conv1.bias"),  # bfloat16 is saved so
    ],
)
def test_weights_that_do_not_fit_are_named(model_dir: Path, state: Any, message: str) -> None:
    paddle.save(state, str(model_dir / WEIGHTS))
    with pytest.raises(InputError, match=f"model.pdparams: .*{message}"):
        load(model_dir)


def test_weights_of_another_number_of_classes_are_refused(model_dir: Path) -> None:
    paddle.save(squeezenet1_1(num_classes=2).state_dict(), str(model_dir / WEIGHTS))
    with pytest.raises(InputError, match=r"conv10.weight has shape \[2, 512, 1, 1\] where \[3, "):
        load(model_dir)
