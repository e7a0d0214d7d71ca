"""PyTorch's files without PyTorch: spelled byte by byte, and by PyTorch itself where it is."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
import wild_files as wild
from networks import network_of, noise, random_state

from squeezenet_paddle.cli.torch2paddle import main
from squeezenet_paddle.conversion import build_network
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.model_dir import read_info
from squeezenet_paddle.model_dir import read_weights as read_model_weights
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.onnx.writer import GraphInput, onnx_model
from squeezenet_paddle.pytorch.convert import TORCHVISION, read_weights

CONFIG = ModelConfig("1.1", 3)
STATE = random_state(CONFIG)
TORCH_STATE = wild.torch_state(CONFIG, STATE)


def save(tmp_path: Path, data: bytes, name: str = "net.pth") -> Path:
    file = tmp_path / name
    file.write_bytes(data)
    return file


def with_prefix(prefix: str, state: wild.State) -> wild.State:
    return {f"{prefix}{key}": value for key, value in state.items()}


FORMS: dict[str, Callable[[wild.State], bytes]] = {
    "zip": wild.torch_zip,
    "legacy": wild.torch_legacy,
    "safetensors": wild.safetensors,
    "state_dict": lambda state: wild.torch_zip(state, ("state_dict",)),
    "model, legacy": lambda state: wild.torch_legacy(state, ("model",)),
    "module.": lambda state: wild.torch_zip(with_prefix("module.", state), ("state_dict",)),
    "model.net.": lambda state: wild.safetensors(with_prefix("model.net.", state)),
    "another entry": lambda state: wild.torch_zip(state, ("my_network",)),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("version", ["1.0-nopad", "1.1"])
def test_every_form_gives_the_same_numbers(version: str, form: str, tmp_path: Path) -> None:
    config = ModelConfig(version, 3)
    state = random_state(config)
    weights = read_weights(save(tmp_path, FORMS[form](wild.torch_state(config, state))))
    assert weights.config == config
    assert set(weights.state) == set(state)
    for key, value in state.items():
        np.testing.assert_array_equal(weights.state[key], value)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_authors_weights_in_torchs_formats(version: str, assets: Path, tmp_path: Path) -> None:
    from squeezenet_paddle.caffe import convert

    original = convert.read_weights(assets / "caffe" / f"squeezenet_v{version}.caffemodel").state
    state = wild.torch_state(ModelConfig(version), original)
    for form in ("zip", "legacy", "safetensors"):
        found = read_weights(save(tmp_path, FORMS[form](state))).state
        assert all((found[key] == value).all() for key, value in original.items())


def test_half_precision(tmp_path: Path) -> None:
    half = {key: value.astype("float16") for key, value in TORCH_STATE.items()}
    data = wild.safetensors(TORCH_STATE)
    size = struct.unpack("<Q", data[:8])[0]
    header, values = data[8 : 8 + size], np.frombuffer(data[8 + size :], "<u4")
    halves = b"".join(value.astype("<f2").tobytes() for value in TORCH_STATE.values())
    for dtype, content in (("F16", halves), ("BF16", (values >> 16).astype("<u2").tobytes())):
        entries = json.loads(header)
        for entry in entries.values():
            if "dtype" in entry:
                entry["dtype"] = dtype
                entry["data_offsets"] = [n // 2 for n in entry["data_offsets"]]
        text = json.dumps(entries).encode()
        file = save(tmp_path, struct.pack("<Q", len(text)) + text + content, "net.safetensors")
        found = read_weights(file).state
        for ours, theirs in wild.torch_names(CONFIG).items():
            expected = half[theirs].astype("float32")
            if dtype == "BF16":  # the upper half of the bits
                bits = np.ascontiguousarray(TORCH_STATE[theirs]).view("uint32") & 0xFFFF0000
                expected = bits.view("float32")
            np.testing.assert_array_equal(found[ours], expected)


def test_the_variant_has_no_pad(tmp_path: Path) -> None:
    """With a pad around conv10 the logits would be others: 1.0 and 1.0-nopad differ."""
    config = ModelConfig("1.0-nopad", 3)
    state = random_state(config)
    weights = read_weights(save(tmp_path, wild.torch_zip(wild.torch_state(config, state))))
    network = build_network(weights)
    x = noise(1, 3, 64, 64)
    import paddle

    with paddle.no_grad():
        ours = network(paddle.to_tensor(x)).numpy()
        padded = network_of(ModelConfig("1.0", 3), state)(paddle.to_tensor(x)).numpy()
    assert np.abs(ours - padded).max() > 0.01 * np.abs(ours).max()


def test_the_tool_writes_the_preprocessing_of_torchvision(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    file = save(tmp_path, wild.torch_zip(TORCH_STATE, ("state_dict",)))
    labels = tmp_path / "labels.txt"
    labels.write_text("0:wren\n1:robin\n2:jay\n")
    onnx = tmp_path / "net.onnx"
    onnx.write_bytes(onnx_model(CONFIG, STATE, GraphInput(224, 224), TORCHVISION))
    argv = ["--checkpoint", file, "--synset_word_list", labels, "--verify", onnx]
    assert main([*map(str, argv), "--output_dir", str(tmp_path / "model")]) == 0
    out = capsys.readouterr().out
    for part in ("its entry 'state_dict'", "a number and a name a line", "v1.1, 3 classes"):
        assert part in out
    info = read_info(tmp_path / "model")
    assert info.preprocess == TORCHVISION
    assert info.names == ["wren", "robin", "jay"]
    assert info.source["format"] == "PyTorch, zip"
    np.testing.assert_array_equal(
        read_model_weights(tmp_path / "model", info).state["conv1.weight"], STATE["conv1.weight"]
    )
    wrong = onnx_model(CONFIG, random_state(CONFIG, seed=1), GraphInput(224, 224), TORCHVISION)
    onnx.write_bytes(wrong)
    assert main([*map(str, argv), "--output_dir", str(tmp_path / "other")]) == 1
    assert not (tmp_path / "other").exists()


def test_a_new_classifier(tmp_path: Path) -> None:
    state = {key: v for key, v in TORCH_STATE.items() if not key.startswith("classifier")}
    state["classifier.3.weight"] = np.ones((3, 512), "float32")
    file = save(tmp_path, wild.torch_zip(state))
    weights = read_weights(file, ignore_classifier=True, num_classes=9)
    assert weights.config.num_classes == 9
    assert len(weights.state) == 50
    with pytest.raises(InputError, match=r"1.weight \(conv10\) is missing; .*unexpected"):
        read_weights(file)


# --- what is no such file


class _Evil:
    def __reduce__(self) -> tuple:
        import os

        return os.system, ("touch /tmp/squeezenet_paddle_was_here",)


def evil_pickle() -> bytes:
    return pickle.dumps({"state_dict": _Evil()}, 2)


def without(entry: str) -> bytes:
    """A zip file that lacks an entry."""
    source = zipfile.ZipFile(io.BytesIO(wild.torch_zip(TORCH_STATE)))
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in source.namelist():
            if name != entry:
                archive.writestr(name, source.read(name))
    return file.getvalue()


def changed(**arrays: np.ndarray) -> bytes:
    named = {key.replace("__", "."): value for key, value in arrays.items()}
    return wild.torch_zip({**TORCH_STATE, **named})


BAD = [
    (
        wild.torch_zip(TORCH_STATE, pickled=evil_pickle()),
        "this pickle asks for posix.system",
    ),
    (wild.torch_legacy(TORCH_STATE)[:40] + evil_pickle(), "refused|damaged"),
    (without("net/data/0"), r"features.0: this file is damaged: data/0 is missing"),
    (wild.torch_zip(TORCH_STATE)[:-500], "found a damaged zip archive"),
    (wild.torch_legacy(TORCH_STATE)[:-9], "features.12.expand3x3: this file is damaged: a storage"),
    (wild.safetensors(TORCH_STATE)[:-9], "found|damaged"),
    (b"\x80\x04N.", "found a Python pickle"),
    (b"", "found an empty file"),
    (wild.snapshot(CONFIG, STATE), "found a caffemodel; squeezenet convert"),
    (
        wild.torch_zip({"conv.weight": np.ones((2, 2), "float32")}),
        "no features.0.weight in it",
    ),
    (
        changed(features__0__weight=np.ones((64, 1, 3, 3), "f4")),
        "images of 1 channels",
    ),
    (
        changed(features__0__weight=np.ones((8, 3, 3, 3), "f4")),
        "features.0.weight is 8x3x3x3; 64x3",
    ),
    (
        changed(features__3__squeeze__bias=np.ones(4, "f4")),
        "features.3.squeeze has a bias 4, 16",
    ),
    (
        changed(classifier__1__weight=np.zeros((3, 512, 1, 1), "f4")),
        "classifier.1 is not trained",
    ),
    (changed(features__13__weight=np.ones(4, "f4")), "features.13.weight is unexpected"),
    (changed(classifier__1__bias=np.full(3, np.nan, "f4")), "classifier.1 has NaN"),
]


@pytest.mark.parametrize(("data", "message"), BAD, ids=[message[:30] for _, message in BAD])
def test_a_wrong_file_says_what_it_is(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_weights(save(tmp_path, data))
    assert str(caught.value).isprintable()
    assert not Path("/tmp/squeezenet_paddle_was_here").exists()


def test_several_networks(tmp_path: Path) -> None:
    both = {**with_prefix("a.", TORCH_STATE), **with_prefix("b.", TORCH_STATE)}
    with pytest.raises(InputError, match="several networks in it: 'a.features.0.weight', 'b.feat"):
        read_weights(save(tmp_path, wild.torch_zip(both)))


def test_against_pytorch(tmp_path: Path) -> None:
    """Files that PyTorch writes, and its logits; benchmarks/torch_convert.py does more."""
    torch = pytest.importorskip("torch")
    file = tmp_path / "net.pth"
    state = {key: torch.from_numpy(value.copy()) for key, value in TORCH_STATE.items()}
    for new_format in (True, False):
        torch.save({"state_dict": state}, file, _use_new_zipfile_serialization=new_format)
        found = read_weights(file).state
        assert all((found[key] == value).all() for key, value in STATE.items())
