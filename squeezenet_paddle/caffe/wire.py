"""Takes the blobs out of a Caffe file before protobuf makes objects of the rest.

Protobuf makes an object for every field, which of some megabytes of empty ones takes gigabytes; and
it does not keep the order of numbers that are packed and others that are not. So the blobs are read
here, by numpy, and what is left is small: a network's description. The encoding is that of
https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

LARGEST_COUNT = 100_000  # fields of a file, in which equal ones behind one another count once
LARGEST_REST = 4 << 20  # bytes without the blobs; those of SqueezeNet have 20,000
LAYERS = {2: 6, 100: 7}  # fields of a net that are a layer -> the field of this that is a blob
_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5
_WIDTHS = {_DOUBLE: 8, _FLOAT: 4}


class BrokenError(ValueError):
    """Bytes that are no message of protobuf."""


class TooMuchError(ValueError):
    """A message that has more in it than any network."""


@dataclass
class Blob:
    """What a BlobProto holds.

    Attributes:
        legacy: num, channels, height and width, by the numbers of their fields.
        shape: the bytes of a BlobShape; None where there is none.
        numbers: parts of the lists of numbers, by the field, in their order; as in memory.
    """

    legacy: dict[int, int] = field(default_factory=dict)
    shape: bytes | None = None
    numbers: dict[int, list[bytes]] = field(default_factory=lambda: {5: [], 8: []})


@dataclass(frozen=True)
class _Field:
    """A field of a message, or a run of equal ones of fixed width.

    Attributes:
        number, kind: from its tag.
        start, value, end: where it begins, where its value does, and where it ends.
        integer: its value, if it is a varint.
    """

    number: int
    kind: int
    start: int
    value: int
    end: int
    integer: int = 0


class Scanner:
    """Reads a file field by field; not more than `LARGEST_COUNT` of them."""

    def __init__(self, data: bytes) -> None:
        self._data, self._bytes = data, np.frombuffer(data, "uint8")
        self._left = LARGEST_COUNT

    def net(self) -> tuple[bytes, dict[int, list[list[Blob]]]]:
        """The net without its blobs, and the blobs of each of its layers, by the field of these.

        Raises:
            BrokenError: it is no message.
            TooMuchError: it is larger than any network.
        """
        rest, blobs = [], {number: [] for number in LAYERS}  # type: ignore[var-annotated]
        for each in self._fields(0, len(self._data)):
            if each.kind == _BYTES and each.number in LAYERS:
                layer, parts = self._layer(each, LAYERS[each.number])
                blobs[each.number].append(parts)
                tag = self._data[each.start : self._varint(each.start, each.end)[1]]
                rest += [tag, _varint_of(len(layer)), layer]
            else:
                rest.append(self._data[each.start : each.end])
        if sum(map(len, rest)) > LARGEST_REST:
            raise TooMuchError(f"more than {LARGEST_REST:,} bytes beside its weights")
        return b"".join(rest), blobs

    def blob(self, start: int = 0, end: int | None = None) -> Blob:
        """The blob in a part of the file."""
        blob = Blob()
        for each in self._fields(start, len(self._data) if end is None else end):
            part = self._data[each.value : each.end]
            if each.kind == _VARINT and 1 <= each.number <= 4:
                low = each.integer % (1 << 32)
                blob.legacy[each.number] = low - (1 << 32) if low >> 31 else low
            elif each.kind == _BYTES and each.number == 7:
                blob.shape = (blob.shape or b"") + part[:LARGEST_COUNT]
            elif each.number in blob.numbers:
                kind = _FLOAT if each.number == 5 else _DOUBLE
                if each.kind == _BYTES:
                    blob.numbers[each.number].append(part)
                elif each.kind == kind:
                    records = self._bytes[each.start : each.end].reshape(-1, 1 + _WIDTHS[kind])
                    blob.numbers[each.number].append(records[:, 1:].tobytes())
        return blob

    def _layer(self, layer: _Field, blob_number: int) -> tuple[bytes, list[Blob]]:
        rest, blobs = [], []
        for each in self._fields(layer.value, layer.end):
            if each.kind == _BYTES and each.number == blob_number:
                blobs.append(self.blob(each.value, each.end))
            else:
                rest.append(self._data[each.start : each.end])
        return b"".join(rest), blobs

    def _fields(self, at: int, end: int) -> Iterator[_Field]:
        while at < end:
            if self._left == 0:
                raise TooMuchError(f"more than {LARGEST_COUNT:,} fields")
            self._left -= 1
            start = at
            tag, at = self._varint(at, end)
            number, kind, value, integer = tag >> 3, tag & 7, at, 0
            if kind == _VARINT:
                integer, at = self._varint(at, end)
            elif kind == _BYTES:
                length, value = self._varint(at, end)
                at = value + length
            elif kind in _WIDTHS:
                record = value - start + _WIDTHS[kind]
                at = start + record * (self._equal(start, end, record) if record < 10 else 1)
            if kind not in (_VARINT, _DOUBLE, _BYTES, _FLOAT) or number == 0 or at > end:
                raise BrokenError("it is broken off")
            yield _Field(number, kind, start, value, at, integer)

    def _equal(self, start: int, end: int, record: int) -> int:
        """How many records that begin as the first one lie behind one another; 1 if it is cut."""
        whole = (end - start) // record
        begins = self._bytes[start : start + whole * record : record]
        looked = 64
        while True:
            others = np.flatnonzero(begins[:looked] != begins[:1])
            if len(others):
                return int(others[0])
            if looked >= whole:
                return max(whole, 1)
            looked *= 8

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                break
            byte = self._data[at]
            value |= (byte & 127) << shift
            at += 1
            if byte < 128:
                return value, at
        raise BrokenError("it is broken off")


def _varint_of(value: int) -> bytes:
    groups = []
    while value > 127:
        groups.append(128 | value & 127)
        value >>= 7
    return bytes([*groups, value])
