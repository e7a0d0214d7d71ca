"""The file format .sqz: the weights of a SqueezeNet in half a megabyte. This is its specification.

Numbers are little-endian, u8, u16 and u32 without a sign, i16 with one, f16 and f32 as in
IEEE 754. Nothing is aligned. A reader needs 32-bit integers, 1 KB for the states, and the tables
of one array at a time.

    8 bytes     89 53 51 5A 0D 0A 1A 0A
    u16         version of the format: 1
    u16         number of arrays
    u32         bytes of the whole file
    u32         bytes of the description, D
    u32         number of words, W
    D bytes     the description
    ...         the arrays
    u32 x 256   the states of the lanes
    u16 x W     the words
    u32         CRC-32 (as in zlib, PNG and gzip) of all bytes before it

The description is UTF-8 text, lines of a key, a space and a value in JSON, each ended by a line
feed. `network.NAME` are the fields of `ModelConfig`: version, num_classes, bypass and so on, all of
them. `preprocess.NAME`, where present, say how an image becomes the input (`Preprocess`), and
`class` lines, where present, are the names of the classes in the order of their ids.

Which arrays there are, and their shapes, follows from the network: for each layer in the order of
computation, the weight and the bias of a convolution or a linear layer, and of a batch
normalisation weight, bias, mean and variance. Weights have Caffe's order: outputs, inputs, height,
width. Each array is

    u8          kind: 0 f32, 1 f16, 2 indices
    u32         number of its values, N

and then, for the kinds 0 and 1, N numbers. For indices:

    f32         unit
    u16         number of factors, F: 1, or the number of outputs
    u8 x F      factors: a weight of output o is its index x unit x factor o (the first, if F is 1)
    i16         the smallest index, L
    u16         number of frequencies, K
    K numbers   frequencies of the indices L, L + 1, ... L + K - 1; their sum is 16384

A frequency below 128 is one byte; others are two, 128 + the low 7 bits, then the high bits.

The indices of all arrays are coded together, array after array, by rANS with 256 interleaved states
of 32 bits. Index i of an array, counted from 0 for each array, belongs to lane i mod 256. To decode
it from that lane's state x, with f the frequency of an index and c the sum of those of all smaller
ones:

    s = x mod 16384; the index is the one with c <= s < c + f
    x = f * (x div 16384) + s - c
    if x < 65536: x = x * 65536 + the next word

In the end all words are read and all states are 65536. Readers refuse files with more than 256
values for each byte of the file, so that a small file cannot ask for much memory.
"""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

import numpy as np

from ..errors import InputError
from ..network.config import ModelConfig, layers
from ..network.weights import key_of
from .rans import LANES, TOTAL, DamagedError, Table, decode, encode

MAGIC = b"\x89SQZ\r\n\x1a\n"
VERSION = 1
FACTORS = 255  # the largest factor
INDICES = 8191  # the largest index, without its sign; frequencies then fit into a table
_HEADER = struct.Struct("<8sHHIII")
_VALUES_PER_BYTE = 256
_FLOAT32, _FLOAT16, _INDICES = 0, 1, 2


@dataclass(frozen=True)
class Indices:
    """A weight of few values: whole numbers times the steps of the outputs.

    Attributes:
        values: int16 [outputs, ...], in Caffe's order.
        unit: float32.
        factors: uint8 [1] or [outputs]; a step is unit x factor.
    """

    values: np.ndarray
    unit: np.float32
    factors: np.ndarray

    @property
    def weight(self) -> np.ndarray:
        """float32, in the shape of `values`."""
        steps = self.factors.astype("float32") * np.float32(self.unit)
        return self.values * steps.reshape(-1, *[1] * (self.values.ndim - 1))


Array = Union[np.ndarray, Indices]  # an ndarray is float32 or float16


@dataclass(frozen=True)
class Content:
    """The contents of a .sqz file.

    Attributes:
        network: which network.
        arrays: by state-dict key, in Caffe's order.
        preprocess: the fields of its preprocessing; None if the file has none.
        names: class names; None if the file has none.
    """

    network: ModelConfig
    arrays: Mapping[str, Array]
    preprocess: Mapping[str, Any] | None = None
    names: Sequence[str] | None = None

    @property
    def state(self) -> dict[str, np.ndarray]:
        """float32 arrays by state-dict key, as Paddle has them."""
        linear = {f"{key_of(each)}.weight" for each in layers(self.network)
                  if each.type == "InnerProduct"}  # fmt: skip
        state = {}
        for key, array in self.arrays.items():
            values = array.weight if isinstance(array, Indices) else array.astype("float32")
            state[key] = np.ascontiguousarray(values.T) if key in linear else values
        return state


def caffe_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every array of a file by its state-dict key, in the order of the file."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in layers(config):
        names = ("weight", "bias", "_mean", "_variance") if layer.type == "BatchNorm" else ("bias",)
        if layer.weight_shape:
            shapes[f"{key_of(layer)}.weight"] = layer.weight_shape
        elif layer.type != "BatchNorm":
            continue
        shapes.update({f"{key_of(layer)}.{name}": (layer.channels,) for name in names})
    return shapes


def write(content: Content) -> tuple[bytes, dict[str, int]]:
    """The bytes of a file, and how many of them each part takes."""
    records: list[bytes] = []
    sizes = dict.fromkeys(("indices", "tables", "steps", "floats", "header"), 0)
    sequences = []
    for key in caffe_shapes(content.network):
        array = content.arrays[key]
        if isinstance(array, Indices):
            head = struct.pack("<BI", _INDICES, array.values.size)
            steps = struct.pack("<fH", array.unit, len(array.factors)) + array.factors.tobytes()
            table = Table.of(array.values.astype("int32"))
            frequencies = struct.pack("<hH", table.low, len(table.frequencies))
            frequencies += b"".join(map(_short_number, table.frequencies.tolist()))
            sequences.append((array.values.astype("int32"), table))
            sizes["steps"] += len(steps)
            sizes["tables"] += len(frequencies)
            records += [head, steps, frequencies]
        else:
            kind = _FLOAT16 if array.dtype == "float16" else _FLOAT32
            head = struct.pack("<BI", kind, array.size)
            values = array.astype("<f2" if kind == _FLOAT16 else "<f4").tobytes()
            sizes["floats"] += len(values)
            records += [head, values]
    states, words = encode(sequences)
    coded = states.astype("<u4").tobytes() + words.astype("<u2").tobytes()
    description = _describe(content)
    body = b"".join([description, *records, coded])
    length = _HEADER.size + len(body) + 4
    arrays = len(caffe_shapes(content.network))
    data = _HEADER.pack(MAGIC, VERSION, arrays, length, len(description), len(words)) + body
    data += struct.pack("<I", zlib.crc32(data))
    sizes["indices"] = len(coded)
    sizes["header"] = len(data) - sum(sizes.values())
    return data, sizes


def _short_number(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([128 + value % 128, value // 128])


def _describe(content: Content) -> bytes:
    lines = [(f"network.{k}", v) for k, v in dataclasses.asdict(content.network).items()]
    lines += [(f"preprocess.{k}", v) for k, v in (content.preprocess or {}).items()]
    lines += [("class", name) for name in content.names or ()]
    return "".join(f"{k} {json.dumps(v, ensure_ascii=False)}\n" for k, v in lines).encode()


def read(data: bytes, source: str) -> Content:
    """The contents of a file.

    Args:
        data: the file.
        source: its name, for errors.

    Raises:
        InputError: it is damaged, of another version, or no .sqz file.
    """
    try:
        return _read(data)
    except DamagedError as error:
        raise InputError(f"{source}: {error}.") from error


def _read(data: bytes) -> Content:
    if not data.startswith(MAGIC):
        raise DamagedError("a .sqz file was expected, which starts with other bytes")
    head = _Reader(data)
    _, version, count, length, described, words = head.unpack(_HEADER)
    if version != VERSION:
        raise DamagedError(f"version {VERSION} of the format .sqz was expected, found {version}")
    if length != len(data):
        raise DamagedError(f"this .sqz file should have {length:,} bytes, it has {len(data):,}")
    [checksum] = struct.unpack("<I", data[-4:])
    if checksum != zlib.crc32(data[:-4]):
        raise DamagedError("this .sqz file is damaged: its checksum is wrong")
    network, preprocess, names = _read_description(head.take(described))
    # A layer's bias is at least 2 bytes for each output, which bounds the shapes that follow.
    if 2 * network.num_classes > len(data):
        raise DamagedError(f"it is too short for {network.num_classes:,} classes")
    shapes = caffe_shapes(network)
    if count != len(shapes):
        raise DamagedError(f"{len(shapes)} arrays were expected, found {count}")
    if (total := sum(map(math.prod, shapes.values()))) > _VALUES_PER_BYTE * len(data):
        raise DamagedError(f"it is too short for {total:,} values")
    arrays: dict[str, Any] = {key: _read_array(head, key, shape) for key, shape in shapes.items()}
    states = np.frombuffer(head.take(4 * LANES), "<u4")
    coded = np.frombuffer(head.take(2 * words), "<u2")
    if head.left != 4:
        raise DamagedError(f"{head.left - 4:,} bytes more than expected are before its checksum")
    if (states < TOTAL).any():
        raise DamagedError("a state of its coder is too small")
    pending = {key: each for key, each in arrays.items() if not isinstance(each, np.ndarray)}
    sequences = [(math.prod(shapes[key]), table) for key, (_, _, table) in pending.items()]
    for (key, (unit, factors, _)), values in zip(pending.items(), decode(states, coded, sequences)):
        arrays[key] = Indices(values.reshape(shapes[key]), unit, factors)
    return Content(network, arrays, preprocess, names)


class _Reader:
    """Takes bytes from a file, from the start on, without its checksum."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = memoryview(data), 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left - 4:
            raise DamagedError("this .sqz file ends early")
        self._at += count
        return bytes(self._data[self._at - count : self._at])

    def unpack(self, form: struct.Struct) -> tuple[Any, ...]:
        return form.unpack(self.take(form.size))


def _read_description(
    data: bytes,
) -> tuple[ModelConfig, dict[str, Any] | None, list[str] | None]:
    groups: dict[str, dict[str, Any]] = {"network": {}, "preprocess": {}}
    names: list[Any] = []
    try:
        for line in data.decode("utf-8").split("\n")[:-1]:
            key, _, value = line.partition(" ")
            group, _, name = key.partition(".")
            if key == "class":
                names.append(json.loads(value))
            else:
                groups[group][name] = json.loads(value)
        network = ModelConfig(**groups["network"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(f"its description is damaged ({error})") from error
    if set(groups["network"]) != {field.name for field in dataclasses.fields(ModelConfig)}:
        raise DamagedError("its description does not have all of the network's fields")
    if names and (len(names) != network.num_classes or not all(isinstance(n, str) for n in names)):
        raise DamagedError("its class names are not a text for each class")
    return network, groups["preprocess"] or None, names or None


_ARRAY, _STEPS, _TABLE = struct.Struct("<BI"), struct.Struct("<fH"), struct.Struct("<hH")


def _read_array(data: _Reader, key: str, shape: tuple[int, ...]) -> Any:
    """A float array; or unit, factors and table of an array of indices."""
    kind, count = data.unpack(_ARRAY)
    if count != math.prod(shape):
        raise DamagedError(f"{key}: {math.prod(shape):,} values were expected, found {count:,}")
    if kind in (_FLOAT32, _FLOAT16):
        form = "<f4" if kind == _FLOAT32 else "<f2"
        values = np.frombuffer(data.take(count * int(form[-1])), form)
        return values.astype(form[1:]).reshape(shape)
    if kind != _INDICES or len(shape) < 2:
        raise DamagedError(
            f"{key}: an array of floats or of indices was expected, found kind {kind}"
        )
    unit, factors = data.unpack(_STEPS)
    if factors not in (1, shape[0]):
        raise DamagedError(f"{key}: 1 or {shape[0]} factors were expected, found {factors}")
    multipliers = np.frombuffer(data.take(factors), "uint8")
    low, length = data.unpack(_TABLE)
    if length == 0 or low < -INDICES or low + length - 1 > INDICES:
        raise DamagedError(f"{key}: {length} indices from {low} on are not those of a table")
    frequencies = np.empty(length, "uint32")
    for i in range(length):
        [value] = data.take(1)
        frequencies[i] = value if value < 128 else value - 128 + 128 * data.take(1)[0]
    if frequencies.sum(dtype="int64") != TOTAL:
        raise DamagedError(f"{key}: the frequencies of its table do not add up")
    return np.float32(unit), multipliers, Table(low, frequencies)
