"""The file format .sqz: exact, readable from its specification alone, and safe to read."""

from __future__ import annotations

import dataclasses
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import name_of
from sqz_reader import read as second_read

from squeezenet_paddle.data.preprocess import Preprocess
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.sqz import rans
from squeezenet_paddle.sqz.format import Content, Indices, caffe_shapes, write
from squeezenet_paddle.sqz.reader import read

CONFIGS = [
    ModelConfig("1.1", 3),
    ModelConfig("1.0", 3, bypass="complex", head="conv_bn"),
    ModelConfig("1.1", 3, head="conv_fc", data_format="NHWC"),
    ModelConfig("1.1", 3, head="multiscale"),
    ModelConfig("1.1", 3, head="compact"),
]
TABLES = {"one": [5] * 700, "two": [0, -3] * 128, "few": [1], "none seen between": [-900, 900, 7]}


def content(config: ModelConfig, seed: int = 0) -> Content:
    """Random arrays of a network: indices of large weights, floats of everything else."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for key, shape in caffe_shapes(config).items():
        if len(shape) > 1:
            sizes = np.exp(rng.uniform(-2, 2, shape[1:]))
            values = np.rint(rng.laplace(0, sizes, shape)).astype("int16")
            scales = rng.integers(0, 40, sizes.size).astype("uint8")
            arrays[key] = Indices(values, np.float32(rng.uniform(1e-4, 1e-2)), scales)
        else:
            arrays[key] = rng.normal(size=shape).astype(rng.choice(["float16", "float32"]))
            if len(arrays) % 5 == 0:
                arrays[key][:] = 0.3
    names = [f"cläss {i}" for i in range(config.num_classes)]
    return Content(config, arrays, Preprocess().record(), names)


@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_what_is_written_is_read(config: ModelConfig) -> None:
    written = content(config)
    data, sizes = write(written)
    assert sum(sizes.values()) == len(data)
    found = read(data, "a file")
    assert found.network == config
    assert found.names == written.names
    assert Preprocess(**found.preprocess, mean_image=None) == Preprocess()
    state, expected = found.state, written.state
    assert state.keys() == expected.keys()
    for key, values in expected.items():
        assert state[key].dtype == "float32"
        np.testing.assert_array_equal(state[key], values)


def test_a_second_reader_agrees() -> None:
    config = ModelConfig("1.1", 3, head="conv_fc")
    written = content(config)
    data, _ = write(written)
    shapes = caffe_shapes(config)
    description, arrays = second_read(data, list(shapes.values()))
    assert description["network.head"] == "conv_fc"
    assert description["preprocess.crop_size"] == 227
    assert description["class"] == "cläss 2"  # the last line
    state = read(data, "a file").state
    for (key, shape), values in zip(shapes.items(), arrays):
        expected = state[key].T if key == "fc.weight" else state[key]
        assert expected.shape == shape
        np.testing.assert_allclose(np.reshape(values, shape), expected, rtol=1e-6)


def test_values_of_a_trellis_by_hand() -> None:
    """Even numbers in the states 0 and 1, odd ones and 0 in the others; steps of three columns."""
    indices = np.array([[1, 1, -2, 0], [2, -3, 0, 5]], "int16")  # states 0 2 3 3, 0 0 2 1
    array = Indices(indices, np.float32(0.5), np.array([0, 1, 4, 7], "uint8"))
    whole = np.array([[2, 1, -3, 0], [4, -6, 0, 10]])
    np.testing.assert_array_equal(array.weight, whole * np.array([8, 9.5, 16, 27]))


def coded(symbols: np.ndarray, *tables: rans.Table, which: object = 0) -> np.ndarray:
    """Symbols that were written and read again."""
    chosen = np.broadcast_to(which, symbols.shape)
    decoder = rans.Decoder(*rans.encode([(symbols, tables, chosen)] * 2))
    for _ in range(2):
        found = decoder.symbols(len(symbols), rans.Slots(tables), chosen)
    decoder.end()
    return found


@pytest.mark.parametrize("name", TABLES)
def test_any_symbols_are_coded(name: str) -> None:
    symbols = np.array(TABLES[name])
    table = rans.Table.of(symbols)
    assert table.frequencies.sum() == rans.TOTAL
    np.testing.assert_array_equal(coded(symbols, table), symbols)


def test_each_symbol_has_a_table() -> None:
    symbols = np.random.default_rng(0).integers(-2, 3, 700)
    tables = [rans.Table.of(symbols[symbols < 0]), rans.Table.of(symbols[symbols >= 0])]
    found = coded(symbols, *tables, which=(symbols >= 0).astype(int))
    np.testing.assert_array_equal(found, symbols)


def test_the_coder_is_within_a_hundredth_of_the_entropy() -> None:
    symbols = np.rint(np.random.default_rng(0).laplace(0, 2, 200_000)).astype("int32")
    p = np.unique(symbols, return_counts=True)[1] / len(symbols)
    table = rans.Table.of(symbols)
    states, words = rans.encode([(symbols, [table], np.zeros(len(symbols), int))])
    bits = 32 * len(states) + 16 * len(words)
    assert bits < 1.01 * len(symbols) * -(p @ np.log2(p)) + 16 * rans.LANES


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=600))
@settings(max_examples=30, deadline=None)
def test_lists_of_symbols_are_coded(values: list[int]) -> None:
    symbols = np.array(values)
    np.testing.assert_array_equal(coded(symbols, rans.Table.of(symbols)), symbols)


# Files that are no good


DATA, _ = write(content(ModelConfig("1.1", 3)))


def sealed(data: bytes) -> bytes:
    """A changed file with the length and checksum that it should have."""
    data = data[:12] + struct.pack("<I", len(data)) + data[16:-4]
    return data + struct.pack("<I", zlib.crc32(data))


def described(**changes: object) -> bytes:
    """The file with other fields of the network."""
    return described_by("", **changes)


def described_by(more: str, **changes: object) -> bytes:
    """The file with other fields of the network, and more lines after them."""
    [size] = struct.unpack_from("<I", DATA, 16)
    network = {**dataclasses.asdict(ModelConfig("1.1", 3)), **changes}
    text = "".join(f"network.{k} {json.dumps(v)}\n" for k, v in network.items()) + more
    return sealed(
        DATA[:16] + struct.pack("<I", len(text)) + DATA[20:24] + text.encode() + DATA[24 + size :]
    )


def with_pairs(count: int) -> bytes:
    """The file with another number of pairs of tables."""
    at = 24 + struct.unpack_from("<I", DATA, 16)[0]
    return sealed(DATA[:at] + bytes([count]) + DATA[at + 1 :])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a .sqz file was expected"),
        (b"PK\3\4" + bytes(100), "a .sqz file was expected"),
        (DATA[:8], "ends early"),
        (DATA[:40], "should have .* bytes, it has 40"),
        (DATA[:-1], "should have .* bytes, it has"),
        (DATA + b"x", "should have .* bytes, it has"),
        (DATA[:8] + b"\1" + DATA[9:], "version 2 .* was expected, found 1"),
        (DATA[:5000] + bytes([DATA[5000] ^ 1]) + DATA[5001:], "its checksum is wrong"),
        (sealed(DATA[:-300] + DATA[-4:]), "ends early"),
        (sealed(DATA[:-4] + bytes(7) + DATA[-4:]), "7 bytes more than expected"),
        (described(num_classes=10**9), "num_classes must be a whole number of 1 to 100,000"),
        (sealed(described(num_classes=10**5)[:100_000]), "too short for 52,022,496 values"),
        (described(num_classes=4), "conv10.weight: 2,048 values were expected, found 1,536"),
        (described(head="conv_fc"), "54 arrays were expected, found 52"),
        (described(version="2.0"), "description is damaged .*version must be one of"),
        (described(colour="blue"), "description is damaged"),
        (described_by("colour 1\n"), "description is damaged"),
        (described_by("preprocess.mean [1]\npreprocess.mean [1]\n"), "stands there twice"),
        (described_by("preprocess.mean [1]"), "its description is cut off"),
        (with_pairs(17), "at most 16 pairs of tables were expected, found 17"),
        (with_pairs(DATA[24 + struct.unpack_from("<I", DATA, 16)[0]] - 1), "values were expected"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=f"^model.sqz: .*{message}"):
        read(data, "model.sqz")


def test_damage_that_has_a_right_checksum_is_found() -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for at in (*rng.integers(16, 700, 20), *rng.integers(700, len(DATA) - 4, 10)):
        data = bytearray(DATA)
        data[at] ^= 1 << int(rng.integers(8))
        try:
            read(sealed(bytes(data)), "model.sqz")
        except InputError:
            refused += 1
    assert refused > 10  # the others changed a float, a name or a step


def test_damage_is_found_by_the_checksum() -> None:
    rng = np.random.default_rng(0)
    for at in rng.integers(0, len(DATA), 2000):
        data = bytearray(DATA)
        data[at] ^= 1 << int(rng.integers(8))
        with pytest.raises(InputError, match="^model.sqz: "):
            read(bytes(data), "model.sqz")


def test_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    import tracemalloc

    huge = sealed(DATA[:20] + b"\xff" * 4 + DATA[24:])  # words
    tracemalloc.start()
    for data in (huge, described(num_classes=len(DATA) // 2)):
        with pytest.raises(InputError):
            read(data, "model.sqz")
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
