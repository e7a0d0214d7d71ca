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

and then, for the kinds 0 and 1, N finite numbers, and for kind 3 a finite number that all of its
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
from .rans import LANES, TOTAL, DamagedError, Decoder, Slots, Table, encode
from .tables import PAIRS, Pairs
from .trellis import NEXT, QUANTISER, START, numbers, quantisers

MAGIC = b"\x89SQZ\r\n\x1a\n"
VERSION = 2
INDICES = 511  # the largest index, without its sign
SCALES = 40
_FACTORS = np.array([(16, 19, 23, 27)[s % 4] << s // 4 for s in range(SCALES)], "float32")
_HEADER = struct.Struct("<8sHHIII")
_VALUES_PER_BYTE = 256
_FLOAT32, _FLOAT16, _INDICES, _CONSTANT = range(4)


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
            records += [struct.pack("<BIf", _INDICES, array.values.size, array.unit)]
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
            kind = _FLOAT16 if array.dtype == "float16" else _FLOAT32
            if array.size > 1 and (array == array.flat[0]).all():
                kind = _CONSTANT
            stored = array.ravel()[:1] if kind == _CONSTANT else array
            values = stored.astype("<f2" if kind == _FLOAT16 else "<f4").tobytes()
            sizes["floats"] += len(values)
            records += [struct.pack("<BI", kind, array.size), values]
    states, words = encode(sequences)
    coded = states.astype("<u4").tobytes() + words.astype("<u2").tobytes()
    description = _describe(content)
    body = b"".join([description, *records, coded])
    length = _HEADER.size + len(body) + 4
    data = _HEADER.pack(MAGIC, VERSION, len(keys), length, len(description), len(words)) + body
    data += struct.pack("<I", zlib.crc32(data))
    sizes["indices"] = len(coded)
    sizes["header"] = len(data) - sum(sizes.values())
    return data, sizes


def _table(table: Table) -> bytes:
    data = bytearray(_TABLE.pack(table.low, len(table.frequencies)))
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
    tables = _read_pairs(head)
    arrays: dict[str, Any] = {key: _read_array(head, key, shape) for key, shape in shapes.items()}
    states = np.frombuffer(head.take(4 * LANES), "<u4")
    coded = np.frombuffer(head.take(2 * words), "<u2")
    if head.left != 4:
        raise DamagedError(f"{head.left - 4:,} bytes more than expected are before its checksum")
    if (states < TOTAL).any():
        raise DamagedError("a state of its coder is too small")
    decoder, slots = Decoder(states, coded), Slots(tables)
    for key, each in arrays.items():
        if not isinstance(each, np.ndarray):
            arrays[key] = _decode(decoder, slots, key, shapes[key], *each)
    decoder.end()
    return Content(network, arrays, preprocess, names)


def _decode(
    decoder: Decoder,
    slots: Slots,
    key: str,
    shape: tuple[int, ...],
    unit: np.float32,
    scale: Table,
    choice: Table,
) -> Indices:
    columns = math.prod(shape[1:])
    scales, choices = (decoder.symbols(columns, Slots([each])) for each in (scale, choice))
    if scales.max() >= SCALES:
        raise DamagedError(f"{key}: scales of 0 to {SCALES - 1} were expected")
    if choices.max() >= len(slots.symbol) // 2:
        raise DamagedError(f"{key}: a pair of tables is chosen that is not there")
    values = np.empty((columns, shape[0]), "int16")
    state = np.full(shape[0], START, "uint8")
    for column, pair in zip(values, choices):
        column[:] = decoder.symbols(shape[0], slots, 2 * int(pair) + QUANTISER[state])
        state = NEXT[state, column & 1]
    return Indices(np.ascontiguousarray(values.T).reshape(shape), unit, scales.astype("uint8"))


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
    if data and not data.endswith(b"\n"):
        raise DamagedError("the last line of its description is cut off")
    try:
        for line in data.decode("utf-8").split("\n")[:-1]:
            key, _, value = line.partition(" ")
            group, _, name = key.partition(".")
            if key == "class":
                names.append(json.loads(value))
            elif name in groups[group]:
                raise ValueError(f"{key} stands there twice")
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


_ARRAY, _UNIT, _TABLE = struct.Struct("<BI"), struct.Struct("<f"), struct.Struct("<hH")


def _read_array(data: _Reader, key: str, shape: tuple[int, ...]) -> Any:
    """A float array; or unit and the tables of scales and choices of an array of indices."""
    kind, count = data.unpack(_ARRAY)
    if count != math.prod(shape):
        raise DamagedError(f"{key}: {math.prod(shape):,} values were expected, found {count:,}")
    if kind in (_FLOAT32, _FLOAT16):
        form = "<f4" if kind == _FLOAT32 else "<f2"
        values = np.frombuffer(data.take(count * int(form[-1])), form)
        return values.astype(form[1:]).reshape(shape)
    if kind == _CONSTANT:
        [value] = data.unpack(_UNIT)
        return np.full(shape, value, "float32")
    if kind != _INDICES or len(shape) < 2:
        raise DamagedError(
            f"{key}: an array of floats or of indices was expected, found kind {kind}"
        )
    [unit] = data.unpack(_UNIT)
    return np.float32(unit), *(_read_table(data, f"{key}: its", 0, 255) for _ in range(2))


def _read_pairs(data: _Reader) -> list[Table]:
    [count] = data.take(1)
    if count > PAIRS:
        raise DamagedError(f"at most {PAIRS} pairs of tables were expected, found {count}")
    return [_read_table(data, f"its {i}.", -INDICES, INDICES) for i in range(2 * count)]


def _read_table(data: _Reader, whose: str, least: int, most: int) -> Table:
    low, length = data.unpack(_TABLE)
    if length == 0 or low < least or low + length - 1 > most:
        raise DamagedError(f"{whose} table has {length} symbols from {low} on")
    frequencies = np.zeros(length, "uint32")
    at = 0
    while at < length:
        [value] = data.take(1)
        if value == 0:
            at += data.take(1)[0]
        else:
            high = data.take(1)[0] if value >= 128 else 1
            if not high:
                raise DamagedError(f"{whose} table has a number of two bytes that fits one")
            frequencies[at] = value if value < 128 else value - 128 + 128 * high
        at += 1
    if at > length:
        raise DamagedError(f"{whose} table has more frequencies than symbols")
    if frequencies.sum(dtype="int64") != TOTAL:
        raise DamagedError(f"{whose} table's frequencies do not add up")
    return Table(low, frequencies)
