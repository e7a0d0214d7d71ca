"""The format of `compressed_SqueezeNet.net`, the authors' v1.0 after Deep Compression.

The format has no magic number, no names and no shapes; all numbers are little-endian. Layers are
the 26 convolutions of v1.0 in the order of its prototxt:

    uint32 x 26       the number of stored entries of each layer
    then, for each layer:
      float32 x 256   the codebook; its entry 0 is 0.0
      float32 x C     the biases of its C outputs
      uint8 x n       the code of each stored entry
      4 bits x n      the gap before each entry, two a byte, the low half first

An entry stands at the position of the one before it, plus its gap, plus 1. A run of more than 15
zeros holds entries of gap 15 and code 0, which only move the position on. The decoding follows
Han, Mao and Dally, "Deep Compression", arXiv:1510.00149, section 2.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from ..errors import InputError
from ..network.config import Layer, ModelConfig, layers
from ..network.weights import key_of

CONFIG = ModelConfig(version="1.0")
_CODES = 256
_ROUNDS = 30  # of Lloyd's algorithm


def looks_like(data: bytes) -> bool:
    """Whether the length of a file is what its first 26 numbers say."""
    chain = _convolutions()
    counts = np.frombuffer(data[: 4 * len(chain)], "<u4") if len(data) >= 4 * len(chain) else ()
    return len(counts) > 0 and len(data) == 4 * len(chain) + sum(
        map(_size, chain, map(int, counts))
    )


def parse(data: bytes, name: str) -> dict[str, np.ndarray]:
    """The weights in a Deep Compression file.

    Args:
        data: the file.
        name: what errors call it.

    Returns:
        float32 arrays by state-dict key, of the network `CONFIG`.

    Raises:
        InputError: the file is damaged; the message names the layer.
    """
    chain = _convolutions()
    at = 4 * len(chain)
    if len(data) < at:
        raise InputError(
            f"{name}: a Deep Compression file starts with {len(chain)} counts of 4 bytes; "
            f"found {len(data)} bytes."
        )
    state = {}
    for layer, count in zip(chain, map(int, np.frombuffer(data[:at], "<u4"))):
        weights = math.prod(layer.weight_shape)
        if count > weights:
            raise InputError(
                f"{name}: layer {layer.name!r} claims {count:,} stored entries; it has "
                f"{weights:,} weights."
            )
        end = at + _size(layer, count)
        if end > len(data):
            raise InputError(
                f"{name}: layer {layer.name!r} takes the bytes {at:,} to {end:,}; the file ends "
                f"at {len(data):,}."
            )
        key = key_of(layer.name)
        state[f"{key}.weight"], state[f"{key}.bias"] = _decode(
            data[at:end], layer, count, f"{name}: layer {layer.name!r}"
        )
        at = end
    if at != len(data):
        raise InputError(f"{name}: {len(data) - at:,} bytes follow the last layer, 'conv10'.")
    return state


def check(network: ModelConfig) -> None:
    """Refuses networks that the format does not know.

    Raises:
        InputError: `network` is another than `CONFIG`.
    """
    same = dataclasses.replace(network, dropout=CONFIG.dropout, data_format=CONFIG.data_format)
    if same != CONFIG:
        raise InputError(
            "Deep Compression's format has no names and no shapes: only a v1.0 of 1,000 classes "
            "without a bypass, with the authors' head and ReLU, can be written in it."
        )


def encode(state: Mapping[str, np.ndarray]) -> bytes:
    """The file of a network of `CONFIG`.

    A layer of more than 255 different weights beside 0 gets the codebook that Lloyd's algorithm
    finds from 255 values spread evenly over its range, as in Deep Compression.

    Args:
        state: arrays by state-dict key.
    """
    counts, parts = [], []
    for layer in _convolutions():
        key = key_of(layer)
        weight = state[f"{key}.weight"].astype("<f4").ravel()
        positions = np.flatnonzero(weight)
        book, codes = _codebook(weight[positions])
        gaps = np.diff(positions, prepend=-1) - 1
        # Each entry comes after so many of gap 15 and code 0 as take its gap below 16.
        ends = np.cumsum(gaps // 16 + 1) - 1
        count = int(ends[-1]) + 1 if len(ends) else 0
        stored, steps = np.zeros(count, "uint8"), np.full(count + count % 2, 15, "uint8")
        stored[ends], steps[ends], steps[count:] = codes + 1, gaps % 16, 0
        whole = np.zeros(_CODES, "<f4")
        whole[1 : len(book) + 1] = book
        bias = state[f"{key}.bias"].astype("<f4")
        halves = steps[::2] | steps[1::2] << 4
        parts.append(b"".join(each.tobytes() for each in (whole, bias, stored, halves)))
        counts.append(count)
    return np.array(counts, "<u4").tobytes() + b"".join(parts)


def _codebook(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most 255 values, and which of them each of `values` has."""
    book, codes = np.unique(values, return_inverse=True)
    if len(book) < _CODES:
        return book, codes
    centres = np.linspace(book[0], book[-1], _CODES - 1, dtype="float64")
    for _ in range(_ROUNDS):
        codes = np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
        sums, members = (np.bincount(codes, w, _CODES - 1) for w in (values, None))
        centres = np.where(members > 0, sums / np.maximum(members, 1), centres)
    codes = np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
    return centres.astype("float32"), codes


def _convolutions() -> list[Layer]:
    return [layer for layer in layers(CONFIG) if layer.weight_shape]


def _size(layer: Layer, count: int) -> int:
    """Bytes of a layer with `count` stored entries."""
    return 4 * _CODES + 4 * layer.channels + count + (count + 1) // 2


def _decode(data: bytes, layer: Layer, count: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """The weight and the bias of a layer."""
    numbers = np.frombuffer(data, "<f4", _CODES + layer.channels).astype("float32")
    codebook, bias = numbers[:_CODES], numbers[_CODES:]
    if codebook[0] != 0:
        raise InputError(f"{where}: entry 0 of its codebook must be 0; found {codebook[0]:g}.")
    codes, halves = np.split(np.frombuffer(data, "uint8", offset=4 * len(numbers)), [count])
    gaps = np.stack([halves & 15, halves >> 4], axis=1).ravel()[:count]
    positions = np.cumsum(gaps.astype("int64") + 1) - 1
    weight = np.zeros(math.prod(layer.weight_shape), "float32")
    if count and positions[-1] >= len(weight):
        raise InputError(
            f"{where}: its last entry stands at {positions[-1]:,}; it has {len(weight):,} weights."
        )
    weight[positions] = codebook[codes]
    return weight.reshape(layer.weight_shape), bias
