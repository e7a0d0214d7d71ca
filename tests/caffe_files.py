"""Caffe files for the tests, and a decoder of them that shares nothing with the project's.

The decoder reads the wire format of protocol buffers by hand, so that it can judge what the
library read.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from networks import random_state

from squeezenet_paddle.caffe.writer import caffemodel
from squeezenet_paddle.network.config import ModelConfig


def small_caffemodel(num_classes: int = 2, seed: int = 0) -> bytes:
    """A whole v1.1 file of a few classes, 2.9 MB."""
    config = ModelConfig(num_classes=num_classes)
    return caffemodel(config, random_state(config, seed))


def wire_fields(data: bytes) -> Iterator[tuple[int, int, bytes | int, int]]:
    """The fields of a message: number, wire type, value, and where the field starts."""
    at = 0
    while at < len(data):
        start = at
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        value: bytes | int
        if kind == 0:
            value, at = _varint(data, at)
        elif kind == 1:
            value, at = data[at : at + 8], at + 8
        elif kind == 2:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
        elif kind == 5:
            value, at = data[at : at + 4], at + 4
        else:
            raise ValueError(f"wire type {kind}")
        if at > len(data):
            raise ValueError("cut off")
        yield number, kind, value, start


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value & (1 << 64) - 1, at


def weights_in(data: bytes) -> dict[str, list[np.ndarray]]:
    """The flat blobs of every layer that has some, by name, of a file in the `layer` format."""
    found: dict[str, list[np.ndarray]] = {}
    for number, kind, layer, _ in wire_fields(data):
        if (number, kind) != (100, 2):
            continue
        assert isinstance(layer, bytes)
        name, blobs = "", []
        for field, wire, value, _ in wire_fields(layer):
            if (field, wire) == (1, 2):
                assert isinstance(value, bytes)
                name = value.decode(errors="replace")
            elif (field, wire) == (7, 2):
                assert isinstance(value, bytes)
                blobs.append(_blob(value))
        if blobs:
            found[name] = blobs
    return found


def _blob(data: bytes) -> np.ndarray:
    singles, doubles = [], []
    for field, wire, value, _ in wire_fields(data):
        if field == 5 and wire in (2, 5):
            singles.append(np.frombuffer(value, "<f4"))
        elif field == 8 and wire in (1, 2):
            doubles.append(np.frombuffer(value, "<f8"))
    if any(len(part) for part in doubles):
        return np.concatenate(doubles).astype("float32")
    return np.concatenate(singles) if singles else np.empty(0, "float32")


def structure_offsets(data: bytes) -> np.ndarray:
    """Positions of the bytes that are not weights: most of what can break a reader."""
    mask = np.ones(len(data), bool)
    at = 0
    # The payload of a packed `data` field of more than 64 bytes is found by its header.
    while (at := data.find(b"\x2a", at)) >= 0:
        try:
            length, begin = _varint(data, at + 1)
        except IndexError:
            break
        if 64 < length <= len(data) - begin and length % 4 == 0:
            mask[begin : begin + length] = False
            at = begin + length
        else:
            at += 1
    return np.flatnonzero(mask)


def mutate(data: bytes, structure: np.ndarray, rng: np.random.Generator) -> bytes:
    """One to four random damages: changed, inserted, removed, repeated or cut off bytes."""
    for _ in range(rng.integers(1, 5)):
        anywhere = rng.random() < 0.2
        at = int(rng.integers(len(data)) if anywhere else rng.choice(structure)) % len(data)
        length = int(rng.choice([1, 1, 1, 2, 4, 16, 256]))
        kind = rng.choice(["flip", "set", "insert", "remove", "repeat", "cut", "double", "number"])
        if kind == "flip":
            part = bytes([data[at] ^ (1 << int(rng.integers(8)))])
            data = data[:at] + part + data[at + 1 :]
        elif kind == "set":
            data = data[:at] + rng.bytes(length) + data[at + length :]
        elif kind == "insert":
            data = data[:at] + rng.bytes(length) + data[at:]
        elif kind == "remove":
            data = data[:at] + data[at + length :]
        elif kind == "repeat":
            data = data[:at] + data[at : at + length] * 2 + data[at + length :]
        elif kind == "cut" and rng.random() < 0.3:
            data = data[:at]
        elif kind == "double" and rng.random() < 0.3:
            data += data[at:]
        elif kind == "number":
            extreme = rng.choice([0, 1, 0x7F, 0xFF, 0x80])
            data = data[:at] + bytes([int(extreme)]) * length + data[at + length :]
        if not data:
            return b"\x00"
    return data


def file_with(value: float) -> bytes:
    """A whole file with `value` as one of the weights of fire5/expand3x3."""
    config = ModelConfig(num_classes=2)
    state = random_state(config)
    state["fire5.expand3x3.weight"].flat[7] = value
    return caffemodel(config, state)
