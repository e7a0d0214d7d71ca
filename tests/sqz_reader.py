"""A second reader of .sqz files, written from the specification in `sqz/format.py` alone."""

from __future__ import annotations

import binascii
import json
import struct

Shape = tuple[int, ...]
Table = tuple[int, list[int]]  # the smallest symbol, frequencies


class Stream:
    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def take(self, form: str) -> tuple:
        values = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return values

    def table(self) -> Table:
        low, symbols = self.take("hH")
        frequencies: list[int] = []
        while len(frequencies) < symbols:
            [f] = self.take("B")
            if f > 127:
                f = f - 128 + 128 * self.take("B")[0]
            frequencies.append(f)
            if f == 0:
                frequencies += [0] * self.take("B")[0]
        assert len(frequencies) == symbols
        assert sum(frequencies) == 16384
        return low, frequencies


class Decoder:
    def __init__(self, stream: Stream, words: int) -> None:
        self.states = list(stream.take("256I"))
        self.words = iter(stream.take(f"{words}H"))
        self.slots: dict[int, tuple[Table, list[tuple[int, int, int]]]] = {}

    def symbol(self, i: int, table: Table) -> int:
        """Symbol i of a sequence."""
        if id(table) not in self.slots:
            low, frequencies = table
            slots, c = [], 0
            for k, f in enumerate(frequencies):
                slots += [(low + k, f, c)] * f
                c += f
            self.slots[id(table)] = table, slots
        x = self.states[i % 256]
        t = x % 16384
        symbol, f, c = self.slots[id(table)][1][t]
        x = f * (x // 16384) + t - c
        if x < 65536:
            x = x * 65536 + next(self.words)
        self.states[i % 256] = x
        return symbol


def read(data: bytes, shapes: list[Shape]) -> tuple[dict[str, object], list[list[float]]]:
    """The description and the values of all arrays, of which `shapes` gives the shapes in order."""
    stream = Stream(data, 0)
    magic, version, arrays, size, described, words = stream.take("8sHHIII")
    assert magic == bytes.fromhex("8953515A0D0A1A0A")
    assert version == 2
    assert arrays == len(shapes)
    assert size == len(data)
    assert struct.unpack("<I", data[-4:])[0] == binascii.crc32(data[:-4])
    lines = stream.take(f"{described}s")[0].decode("utf-8").split("\n")[:-1]
    description = {key: json.loads(value) for key, _, value in (s.partition(" ") for s in lines)}

    pairs = [(stream.table(), stream.table()) for _ in range(stream.take("B")[0])]
    parsed = []
    for _ in shapes:
        kind, count = stream.take("BI")
        if kind == 3:
            parsed.append((count, list(stream.take("f")) * count))
        elif kind < 2:
            parsed.append((count, list(stream.take(f"{count}{'fe'[kind]}"))))
        else:
            parsed.append((count, stream.take("f")[0], stream.table(), stream.table()))
    decoder = Decoder(stream, words)
    assert stream.at + 4 == len(data)

    after = {0: (0, 2), 1: (2, 0), 2: (1, 3), 3: (3, 1)}
    result = []
    for shape, (count, *array) in zip(shapes, parsed):
        if len(array) == 1:
            result.append(array[0])
            continue
        unit, scale_table, choice_table = array
        outputs, columns = shape[0], count // shape[0]
        scales = [decoder.symbol(i, scale_table) for i in range(columns)]
        choices = [decoder.symbol(i, choice_table) for i in range(columns)]
        values = [0.0] * count
        states = [0] * outputs
        for column, (s, choice) in enumerate(zip(scales, choices)):
            step = unit * ((16, 19, 23, 27)[s % 4] * 2 ** (s // 4))
            for o in range(outputs):
                second = states[o] >= 2
                q = decoder.symbol(o, pairs[choice][second])
                sign = (q > 0) - (q < 0)
                values[o * columns + column] = (2 * q - sign * second) * step
                states[o] = after[states[o]][q % 2]
        result.append(values)
    assert next(decoder.words, None) is None
    assert set(decoder.states) == {65536}
    return description, result
