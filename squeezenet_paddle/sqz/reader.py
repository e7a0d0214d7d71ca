"""Reads .sqz files, as `format.py` specifies them, that somebody else may have made."""

from __future__ import annotations

import dataclasses
import json
import math
import struct
import zlib
from typing import Any

import numpy as np

from ..errors import InputError
from ..network.config import ModelConfig
from .format import (
    ARRAY,
    CONSTANT,
    FLOAT16,
    FLOAT32,
    HEADER,
    INDEXED,
    INDICES,
    MAGIC,
    SCALES,
    TABLE,
    UNIT,
    VALUES_PER_BYTE,
    VERSION,
    Content,
    Indices,
    caffe_shapes,
)
from .rans import LANES, TOTAL, DamagedError, Decoder, Slots, Table
from .tables import PAIRS
from .trellis import NEXT, QUANTISER, START


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
    _, version, count, length, described, words = head.unpack(HEADER)
    if version != VERSION:
        raise DamagedError(f"version {VERSION} of the format .sqz was expected, found {version}")
    if length != len(data):
        raise DamagedError(f"this .sqz file should have {length:,} bytes, it has {len(data):,}")
    [checksum] = struct.unpack("<I", data[-4:])
    if checksum != zlib.crc32(data[:-4]):
        raise DamagedError("this .sqz file is damaged: its checksum is wrong")
    network, preprocess, names = _read_description(head.take(described))
    shapes = caffe_shapes(network)
    if count != len(shapes):
        raise DamagedError(f"{len(shapes)} arrays were expected, found {count}")
    if (total := sum(map(math.prod, shapes.values()))) > VALUES_PER_BYTE * len(data):
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


def _read_array(data: _Reader, key: str, shape: tuple[int, ...]) -> Any:
    """A float array; or unit and the tables of scales and choices of an array of indices."""
    kind, count = data.unpack(ARRAY)
    if count != math.prod(shape):
        raise DamagedError(f"{key}: {math.prod(shape):,} values were expected, found {count:,}")
    if kind in (FLOAT32, FLOAT16):
        form = "<f4" if kind == FLOAT32 else "<f2"
        values = np.frombuffer(data.take(count * int(form[-1])), form)
        return values.astype(form[1:]).reshape(shape)
    if kind == CONSTANT:
        [value] = data.unpack(UNIT)
        return np.full(shape, value, "float32")
    if kind != INDEXED or len(shape) < 2:
        raise DamagedError(
            f"{key}: an array of floats or of indices was expected, found kind {kind}"
        )
    [unit] = data.unpack(UNIT)
    return np.float32(unit), *(_read_table(data, f"{key}: its", 0, 255) for _ in range(2))


def _read_pairs(data: _Reader) -> list[Table]:
    [count] = data.take(1)
    if count > PAIRS:
        raise DamagedError(f"at most {PAIRS} pairs of tables were expected, found {count}")
    return [_read_table(data, f"its {i}.", -INDICES, INDICES) for i in range(2 * count)]


def _read_table(data: _Reader, whose: str, least: int, most: int) -> Table:
    low, length = data.unpack(TABLE)
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
