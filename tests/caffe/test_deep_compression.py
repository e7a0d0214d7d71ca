"""The .net format: the project's reader against the tests' own writer, and the authors' file."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
from caffe_files import weights_in
from networks import random_state
from wild_files import net_file

from squeezenet_paddle.caffe import deep_compression
from squeezenet_paddle.caffe.convert import read_weights
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.network.config import ModelConfig

SHORT = ("squeeze1x1", "expand1x1", "expand3x3")


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    """v1.0 with few distinct weights, most of them zero, so that there are runs of all lengths."""
    rng = np.random.default_rng(0)
    state = random_state(ModelConfig("1.0"))
    for key, value in state.items():
        if key.endswith("weight"):
            quantised = np.round(value / value.std() * 20) / 64
            density = 0.02 if key.startswith("fire5") else 0.4
            state[key] = np.where(rng.random(value.shape) < density, quantised, 0).astype("float32")
    state["conv1.weight"][:] = 0.25
    state["conv1.weight"][0] = 0.5
    return state


def test_every_value_comes_back(state: dict[str, np.ndarray]) -> None:
    data = net_file(state)
    assert deep_compression.looks_like(data)
    found = deep_compression.parse(data, "a.net")
    assert set(found) == set(state)
    for key, value in state.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


def test_what_is_written_is_what_the_tests_writer_writes(state: dict[str, np.ndarray]) -> None:
    assert deep_compression.encode(state) == net_file(state)


def test_other_networks_are_not_written() -> None:
    deep_compression.check(ModelConfig("1.0", dropout=0.0, data_format="NHWC"))
    for other in (ModelConfig("1.1"), ModelConfig("1.0", 5), ModelConfig("1.0", bypass="simple")):
        with pytest.raises(InputError, match="v1.0 of 1,000 classes without a bypass"):
            deep_compression.check(other)


def test_a_layer_of_many_values_gets_a_codebook_of_256(state: dict[str, np.ndarray]) -> None:
    weight = np.random.default_rng(1).normal(size=state["fire9.expand3x3.weight"].shape)
    weight[np.abs(weight) < 0.5] = 0
    many = {**state, "fire9.expand3x3.weight": weight.astype("float32")}
    many["fire2.squeeze1x1.weight"] = np.zeros_like(state["fire2.squeeze1x1.weight"])
    found = deep_compression.parse(deep_compression.encode(many), "a.net")
    values = found["fire9.expand3x3.weight"]
    assert len(np.unique(values)) <= 256
    np.testing.assert_array_equal(values == 0, weight == 0)
    assert np.square(values - weight).mean() < (8 / 255) ** 2 / 12
    assert not found["fire2.squeeze1x1.weight"].any()


def test_described_in_words_it_reads_the_same(state: dict[str, np.ndarray]) -> None:
    """By the description alone, byte by byte, for the first layers."""
    data = deep_compression.encode(state)
    counts, at = struct.unpack("<26I", data[:104]), 104
    for count, key in zip(counts[:4], ("conv1", *(f"fire2.{x}" for x in SHORT))):
        weight = state[f"{key}.weight"]
        book = struct.unpack("<256f", data[at : at + 1024])
        at += 1024 + 4 * len(weight)
        codes, halves = data[at : at + count], data[at + count : at + count + (count + 1) // 2]
        at += count + (count + 1) // 2
        values, position = [0.0] * weight.size, -1
        for i, code in enumerate(codes):
            position += (halves[i // 2] >> 4 * (i % 2) & 15) + 1
            values[position] = book[code]
        assert values == weight.ravel().tolist()


def set_count(data: bytes, layer: int, value: int) -> bytes:
    return data[: 4 * layer] + struct.pack("<I", value) + data[4 * layer + 4 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:50], "starts with 26 counts of 4 bytes; found 50 bytes"),
        (lambda data: data[:-1], "layer 'conv10' takes the bytes .*; the file ends at"),
        (lambda data: data[:9000], "layer 'conv1' takes the bytes 104 to"),
        (lambda data: data + b"\0\0", "2 bytes follow the last layer"),
        (
            lambda data: set_count(data, 1, 1 << 31),
            "'fire2/squeeze1x1' claims 2,147,483,648 stored",
        ),
        (
            lambda data: data[:104] + b"\0\0\x80\x3f" + data[108:],
            "'conv1': entry 0 of its codebook",
        ),
        (lambda data: data[:-90000] + b"\xff" * 90000, "'conv10': its last entry stands at"),
    ],
)
def test_damage_names_the_layer(
    damage: Callable[[bytes], bytes], message: str, state: dict[str, np.ndarray], tmp_path: Path
) -> None:
    file = tmp_path / "damaged.net"
    file.write_bytes(damage(net_file(state)))
    with pytest.raises(InputError, match=message):
        read_weights(file)


def test_the_authors_release(assets: Path) -> None:
    weights = read_weights(assets / "caffe" / "compressed_SqueezeNet.net")
    assert weights.config == ModelConfig("1.0")
    assert weights.source["format"] == "Deep Compression"
    dense = weights_in((assets / "caffe" / "squeezenet_v1.0.caffemodel").read_bytes())
    kept = total = 0
    for key, value in weights.state.items():
        layer, _, kind = key.rpartition(".")
        np.testing.assert_array_equal(value.ravel(), dense[layer.replace(".", "/")][kind == "bias"])
        if kind == "weight":
            kept, total = kept + np.count_nonzero(value), total + value.size
    assert (kept, total) == (415_921, 1_244_448)
    assert round(kept / total, 3) == 0.334
