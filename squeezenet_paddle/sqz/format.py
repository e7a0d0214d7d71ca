"""The file format .sqz: the weights of a SqueezeNet in half a megabyte. This is its specification.

Numbers are little-endian, u8, u16 and u32 without a sign, i16 with one, f16 and f32 as in
IEEE 754. Nothing is aligned. A reader needs 32-bit integers, 1 KB for the states of the coder,
at most 65 KB for the tables, a byte for each output of a layer and two for each of its columns.

    8 bytes     89 53 51 5A 0D 0A 1A 0A
    u16         version of the format: 2
    u16         number of arrays
    u32         bytes of the whole file
    u32         bytes of the description, D
    u32         number of words, W
    D bytes     the description
    u8          number of pairs of tables, 0 to 16
    ...         the pairs of tables
    ...         the arrays
    u32 x 256   the states of the lanes
    u16 x W     the words
    u32         CRC-32 (as in zlib, PNG and gzip) of all bytes before it

The description is UTF-8 text, lines of a key, a space and a value in JSON, each ended by a line
feed, no key twice but `class`. `network.NAME` are the fields of `ModelConfig`: version,
num_classes, bypass and so on, all of them. `preprocess.NAME`, where present, say how an image
becomes the input (`Preprocess`), and `class` lines, where present, are the names of the classes in
the order of their ids.

Which arrays there are, and their shapes, follows from the network: for each layer in the order of
computation, the weight and the bias of a convolution or a linear layer, and of a batch
normalisation weight, bias, mean and variance. Weights have Caffe's order: outputs, inputs, height,
width. Each array is

    u8          kind: 0 f32, 1 f16, 2 indices, 3 one f32
    u32         number of its values, N

and then, for the kinds 0 and 1, N finite numbers, and for kind 3 one finite f32 that all of its
values are. Weights of convolutions and linear layers alone may be indices:

    f32         unit
    table       of the scales
    table       of the choices

where a table, also of the pairs of tables above, is

    i16         the smallest symbol, L
    u16         number of frequencies, K
    K numbers   frequencies of the symbols L, L + 1, ... L + K - 1; their sum is 16384

A frequency below 128 is one byte; others are two, 128 + the low 7 bits, then the high bits, which
are not 0. A frequency of 0 is followed by a byte, the number of those that follow it and are 0 too,
which are left out. Symbols of pairs are from -511 to 511, those of other tables from 0 to 255.

The indices of an array of O outputs are in C = N / O columns: what the outputs are multiplied with,
by input, height, width. Of each column there are a scale s of 0 to 39, and a choice, the number of
its pair of tables, counted from 0. A step is unit x (m x 2 ** (s div 4)), where m is 16, 19, 23 or
27 for s mod 4 = 0, 1, 2 or 3 and both products are those of f32. The index q of an output in a
column stands for

    2 x q x step                 in the states 0 and 1, where it is coded with the first of the pair
    (2 x q - sign(q)) x step     in the states 2 and 3, where it is coded with the second

Each output of each array starts in state 0 in the first column, and goes on to the next column in
state 0, 2, 1, 3 after an even index in state 0, 1, 2, 3, and 2, 0, 3, 1 after an odd one.

Sequences of symbols are coded one after another: of each array of indices, first the C scales, then
the C choices, then for each column the O indices. They are coded by rANS with 256 interleaved
states of 32 bits. Symbol i of a sequence, counted from 0 for each sequence, belongs to lane i mod
256. To decode it from that lane's state x, with f the frequency of a symbol and c the sum of those
of all smaller ones:

    t = x mod 16384; the symbol is the one with c <= t < c + f
    x = f * (x div 16384) + t - c
    if x < 65536: x = x * 65536 + the next word

At the start no state is below 16384. In the end all words are read and all states are 65536.
Readers that make room as the file asks for it refuse one with more than 256 values for each of its
bytes.
"""

from __future__ import annotations

import dataclasses
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

import numpy as np

from ..network.config import ModelConfig, layers
from ..network.weights import key_of
from .rans import Table, encode
from .tables import Pairs
from .trellis import numbers, quantisers

MAGIC = b"\x89SQZ\r\n\x1a\n"
VERSION = 2
INDICES = 511  # the largest index, without its sign
SCALES = 40
_FACTORS = np.array([(16, 19, 23, 27)[s % 4] << s // 4 for s in range(SCALES)], "float32")
HEADER = struct.Struct("<8sHHIII")
ARRAY, UNIT, TABLE = struct.Struct("<BI"), struct.Struct("<f"), struct.Struct("<hH")
VALUES_PER_BYTE = 256  # at most, where a reader makes room as the file asks for it
FLOAT32, FLOAT16, INDEXED, CONSTANT = range(4)


@dataclass(frozen=True)
class Indices:
    """A weight of few values: indices of a trellis, with a step for each column.

    Attributes:
        values: int16 [outputs, ...], in Caffe's order.
        unit: float32.
        scales: uint8 [columns], where the columns are all axes of `values` but the first.
    """

    values: np.ndarray
    unit: np.float32
    scales: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """int32 [outputs, columns]."""
        return self.values.reshape(len(self.values), -1).astype("int32")

    @property
    def steps(self) -> np.ndarray:
        """float32 [columns]."""
        return steps_of(self.unit, self.scales)

    @property
    def weight(self) -> np.ndarray:
        """float32, in the shape of `values`."""
        rows = self.rows
        whole = numbers(rows, quantisers(rows)).astype("float32")
        return (whole * self.steps).reshape(self.values.shape)


def steps_of(unit: np.float32, scales: np.ndarray) -> np.ndarray:
    """The steps of columns, float32, from the unit of the array and their scales."""
    return np.float32(unit) * _FACTORS[scales]


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
    keys = list(caffe_shapes(content.network))
    indices = {k: array for k in keys if isinstance(array := content.arrays[k], Indices)}
    pairs = Pairs({key: array.rows for key, array in indices.items()})
    sizes = dict.fromkeys(("indices", "tables", "units", "floats", "header"), 0)
    records = [bytes([len(pairs.tables) // 2]), *map(_table, pairs.tables)]
    sizes["tables"] += sum(map(len, records))
    sequences: list[tuple[np.ndarray, Sequence[Table], np.ndarray]] = []
    for key in keys:
        array = content.arrays[key]
        if isinstance(array, Indices):
            records += [ARRAY.pack(INDEXED, array.values.size), UNIT.pack(array.unit)]
            sizes["units"] += 4
            choices = pairs.choices[key]
            for symbols in (array.scales, choices):
                table = Table.of(symbols)
                records += [_table(table)]
                sizes["tables"] += len(records[-1])
                sequences.append((symbols.astype("int32"), [table], np.zeros(len(symbols), int)))
            rows = array.rows
            which = 2 * choices + quantisers(rows)
            sequences += [(q, pairs.tables, w) for q, w in zip(rows.T, which.T)]
        else:
            kind = FLOAT16 if array.dtype == "float16" else FLOAT32
            if array.size > 1 and (array == array.flat[0]).all():
                kind = CONSTANT
            stored = array.ravel()[:1] if kind == CONSTANT else array
            values = stored.astype("<f2" if kind == FLOAT16 else "<f4").tobytes()
            sizes["floats"] += len(values)
            records += [ARRAY.pack(kind, array.size), values]
    states, words = encode(sequences)
    coded = states.astype("<u4").tobytes() + words.astype("<u2").tobytes()
    description = _describe(content)
    body = b"".join([description, *records, coded])
    length = HEADER.size + len(body) + 4
    data = HEADER.pack(MAGIC, VERSION, len(keys), length, len(description), len(words)) + body
    data += struct.pack("<I", zlib.crc32(data))
    sizes["indices"] = len(coded)
    sizes["header"] = len(data) - sum(sizes.values())
    return data, sizes


def _table(table: Table) -> bytes:
    data = bytearray(TABLE.pack(table.low, len(table.frequencies)))
    zeros = 0
    for value in (*table.frequencies.tolist(), -1):
        if zeros and (value != 0 or zeros == 256):
            data += bytes([0, zeros - 1])
            zeros = 0
        if value == 0:
            zeros += 1
        elif value > 0:
            data += bytes([value] if value < 128 else [128 + value % 128, value // 128])
    return bytes(data)


def _describe(content: Content) -> bytes:
    lines = [(f"network.{k}", v) for k, v in dataclasses.asdict(content.network).items()]
    lines += [(f"preprocess.{k}", v) for k, v in (content.preprocess or {}).items()]
    lines += [("class", name) for name in content.names or ()]
    return "".join(f"{k} {json.dumps(v, ensure_ascii=False)}\n" for k, v in lines).encode()
