"""Every format that a Caffe file comes in, written byte by byte, and what is no such file."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from limits import limit_this_process

from squeezenet_paddle.caffe.reader import CaffeLayer, parse_caffemodel, read_prototxt
from squeezenet_paddle.errors import InputError


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    result = b""
    while value > 127:
        result += bytes([value & 127 | 128])
        value >>= 7
    return result + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def chunk(field: int, data: bytes | str) -> bytes:
    data = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | 2) + varint(len(data)) + data


def packed(field: int, kind: str, values: list[float]) -> bytes:
    return chunk(field, struct.pack(f"<{len(values)}{kind}", *values))


def unpacked(field: int, kind: str, values: list[float]) -> bytes:
    wire = {"f": 5, "d": 1}[kind]
    return b"".join(varint(field << 3 | wire) + struct.pack(f"<{kind}", v) for v in values)


def shape(*dims: int) -> bytes:
    return chunk(7, chunk(1, b"".join(map(varint, dims))))


def legacy(*dims: int) -> bytes:
    return b"".join(number(field, dim) for field, dim in enumerate(dims, 1))


def layer(*blobs: bytes, name: str = "conv1", kind: str = "Convolution") -> bytes:
    parts = chunk(1, name) + chunk(2, kind) + chunk(3, "data") + chunk(4, name)
    return chunk(100, parts + b"".join(chunk(7, blob) for blob in blobs))


def v1_layer(*blobs: bytes, name: str = "conv1", kind: int = 4) -> bytes:
    parts = chunk(2, "data") + chunk(3, name) + chunk(4, name) + number(5, kind)
    return chunk(2, parts + b"".join(chunk(6, blob) for blob in blobs))


def only(data: bytes) -> CaffeLayer:
    (found,) = parse_caffemodel(data, "a.caffemodel")
    return found


VALUES = [1.5, -2.0, 3.25, 0.0, 1e-30, -7.0]


@pytest.mark.parametrize(
    "values",
    [
        packed(5, "f", VALUES),
        unpacked(5, "f", VALUES),
        packed(5, "f", VALUES[:2]) + packed(5, "f", VALUES[2:]),
        packed(5, "f", VALUES[:2]) + unpacked(5, "f", VALUES[2:]),
        unpacked(5, "f", VALUES[:2]) + packed(5, "f", VALUES[2:]),
        unpacked(5, "f", VALUES[:1]) + packed(5, "f", VALUES[1:4]) + unpacked(5, "f", VALUES[4:]),
        packed(8, "d", VALUES),
        unpacked(8, "d", VALUES),
        packed(8, "d", VALUES) + packed(5, "f", [9.0] * 6),  # double_data wins
        packed(5, "f", VALUES) + packed(6, "f", [9.0] * 6) + packed(9, "d", [9.0] * 6),  # diffs
        packed(5, "f", VALUES) + unpacked(6, "f", [9.0] * 6),
    ],
)
@pytest.mark.parametrize(
    "extents", [shape(2, 3), legacy(1, 1, 2, 3), legacy(1, 1, 2, 3) + shape(6)]
)
@pytest.mark.parametrize("wrap", [layer, v1_layer])
def test_numbers_and_shapes_in_every_encoding(values: bytes, extents: bytes, wrap) -> None:
    found = only(wrap(extents + values))
    assert (found.name, found.type, found.bottoms, found.tops) == (
        "conv1",
        "Convolution",
        ("data",),
        ("conv1",),
    )
    (blob,) = found.blobs
    assert blob.dtype == np.float32
    # Legacy dimensions win over a shape.
    assert blob.shape == ((2, 3) if extents == shape(2, 3) else (1, 1, 2, 3))
    np.testing.assert_array_equal(blob.ravel(), np.array(VALUES, "float32"))


@given(st.lists(st.floats(width=32, allow_nan=False), max_size=20), st.booleans())
def test_floats_come_through_bit_for_bit(values: list[float], pack: bool) -> None:
    data = (packed if pack else unpacked)(5, "f", values)
    (blob,) = only(layer(shape(len(values)) + data)).blobs
    assert blob.tobytes() == struct.pack(f"<{len(values)}f", *values)


@pytest.mark.parametrize(
    "extents", [shape(5), shape(2, 2), shape(-2, -3), shape(), legacy(6), shape(*[1] * 40, 6)]
)
def test_a_shape_that_does_not_fit_its_values_is_refused(extents: bytes) -> None:
    with pytest.raises(InputError, match="'conv1', blob 0: its shape is .* holds 6 values"):
        only(layer(extents + packed(5, "f", VALUES)))


@pytest.mark.parametrize("more", [b"", unpacked(5, "f", [1.0])])
def test_a_list_of_numbers_that_breaks_off_is_refused(more: bytes) -> None:
    with pytest.raises(InputError, match="'conv1', blob 1: its list of values is broken off"):
        only(layer(shape(0), shape(6) + chunk(5, b"\0" * 23) + more))


def test_an_enormous_shape_takes_no_memory() -> None:
    with pytest.raises(InputError, match="its shape is 1073741824x1073741824x1073741824"):
        only(layer(shape(1 << 30, 1 << 30, 1 << 30) + packed(5, "f", VALUES)))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (4, "Convolution"),
        (3, "Concat"),
        (17, "Pooling"),
        (18, "ReLU"),
        (25, "Eltwise"),
        (15, "LRN"),
    ],
)
def test_v1_types_get_todays_names(kind: int, name: str) -> None:
    assert only(v1_layer(kind=kind)).type == name


def test_v0_is_refused_by_name() -> None:
    v0 = chunk(2, chunk(1, chunk(1, "conv1") + chunk(2, "conv")))
    with pytest.raises(InputError, match="'conv1' is in Caffe's V0 format .*upgrade_net_proto"):
        parse_caffemodel(v0, "old.caffemodel")


def test_both_formats_in_one_file_are_refused() -> None:
    with pytest.raises(InputError, match="layers in both formats"):
        parse_caffemodel(layer() + v1_layer(), "mixed.caffemodel")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "found an empty file"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "an HTML page"),
        (b'name: "SqueezeNet"\nlayer {\n  name: "conv1"\n}\n', "a prototxt, not the binary file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "a Git LFS pointer"),
        (b"hello, world\n" * 10, "a text file, not the binary"),
        (np.random.default_rng(0).bytes(5000), "5,000 bytes that start with"),
        (number(3, 5) + chunk(1, "a net without layers"), "that start with 18 05"),
        (layer(shape(6) + packed(5, "f", VALUES))[:-5], "damaged or cut off"),
    ],
)
def test_what_is_no_caffemodel_says_what_it_is(data: bytes, found: str) -> None:
    with pytest.raises(InputError, match=f"x.caffemodel: .*{found}"):
        parse_caffemodel(data, "x.caffemodel")


def test_names_that_are_no_text_are_shown_printable() -> None:
    raw = chunk(100, chunk(1, b"conv\xff\n1") + chunk(2, "ReLU"))
    try:
        name = only(raw).name
    except InputError as error:  # some versions of protobuf refuse it
        name = str(error)
    assert name.isprintable()


@pytest.mark.parametrize("style", ["layer", "layers"])
def test_prototxt_in_either_format(style: str, tmp_path: Path) -> None:
    kind = '"Convolution"' if style == "layer" else "CONVOLUTION"
    file = tmp_path / "deploy.prototxt"
    file.write_text(
        f'name: "n" input: "data" {style} {{ name: "c" type: {kind} bottom: "data" top: "c"\n'
        "  convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: 'xavier' } }\n"
        "  param { lr_mult: 1 } }\n"
    )
    data, found = read_prototxt(file)
    assert (data.name, data.type, data.tops) == ("data", "Input", ("data",))
    assert (found.name, found.type) == ("c", "Convolution")
    assert list(found.message.convolution_param.kernel_size) == [3]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"layer { name: 'a' ", "not a prototxt"),
        (b"\x0a\xff\xfe", "found a binary file"),
        (b"<html>", "not a prototxt"),
        (b"name: 'empty'", "found none"),
    ],
)
def test_what_is_no_prototxt(data: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "deploy.prototxt"
    file.write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_prototxt(file)


def layers_of(count: int) -> bytes:
    return chunk(100, chunk(1, b"x")) * count


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param(layers_of(10**6), "so much in its file", id="layers"),
        pytest.param(chunk(100, b"") * 25 * 10**6, "so much in its file", id="empty layers"),
        pytest.param(chunk(100, chunk(7, chunk(5, b"") * 25 * 10**6)), "so much", id="empty lists"),
        pytest.param(chunk(100, chunk(3, b"") * 25 * 10**6), "so much", id="empty bottoms"),
        pytest.param(chunk(1, b"x" * 50 * 10**6), "so much", id="a name"),
        pytest.param(chunk(99, b"") * 10**7, "so much in its file", id="unknown fields"),
    ],
)
def test_a_file_of_many_parts_takes_little(data: bytes, problem: str) -> None:
    """Of time and memory, both by the operating system's limits."""
    child = os.fork()
    if child == 0:
        limit_this_process(seconds=20, memory=600 << 20)
        try:
            parse_caffemodel(data, "x.caffemodel")
        except InputError as error:
            os._exit(0 if problem in str(error) else 2)
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("extents", [(0, 2**63 - 1), (0, 2**40, 2**40), (2**62, 4), (1,) * 40])
def test_a_shape_that_no_array_has_is_named(extents: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="'conv1', blob 0: its shape is .* but it holds 0 values"):
        only(layer(shape(*extents)))
