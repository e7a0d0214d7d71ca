"""A second reader of .sqz files, written from the specification in `sqz/format.py` alone."""

from __future__ import annotations

import binascii
import json
import struct

Shape = tuple[int, ...]


def read(data: bytes, shapes: list[Shape]) -> tuple[dict[str, object], list[list[float]]]:
    """The description and the values of all arrays, of which `shapes` gives the shapes in order."""
    magic, version, arrays, size, described, words = struct.unpack_from("<8sHHIII", data)
    assert magic == bytes.fromhex("8953515A0D0A1A0A")
    assert version == 1
    assert arrays == len(shapes)
    assert size == len(data)
    assert struct.unpack("<I", data[-4:])[0] == binascii.crc32(data[:-4])
    at = 24 + described
    lines = data[24:at].decode("utf-8").splitlines()
    description = {key: json.loads(value) for key, _, value in (s.partition(" ") for s in lines)}

    parsed = []
    for _ in shapes:
        kind, count = struct.unpack_from("<BI", data, at)
        at += 5
        if kind < 2:
            letter = "fe"[kind]
            parsed.append((count, struct.unpack_from(f"<{count}{letter}", data, at)))
            at += count * struct.calcsize(letter)
            continue
        unit, factors = struct.unpack_from("<fH", data, at)
        at += 6
        steps = [unit * factor for factor in data[at : at + factors]]
        at += factors
        low, symbols = struct.unpack_from("<hH", data, at)
        at += 4
        frequencies = []
        for _ in range(symbols):
            frequency = data[at]
            at += 1
            if frequency > 127:
                frequency = frequency - 128 + 128 * data[at]
                at += 1
            frequencies.append(frequency)
        assert sum(frequencies) == 16384
        parsed.append((count, steps, low, frequencies))

    states = list(struct.unpack_from("<256I", data, at))
    at += 1024
    stream = iter(struct.unpack_from(f"<{words}H", data, at))
    assert at + 2 * words + 4 == len(data)

    result = []
    for shape, (count, *array) in zip(shapes, parsed):
        if len(array) == 1:
            result.append(list(array[0]))
            continue
        steps, low, frequencies = array
        a_row = count // shape[0]
        slots = [(i, f) for i, f in enumerate(frequencies) for _ in range(f)]
        starts = [sum(frequencies[:i]) for i in range(len(frequencies))]
        values = []
        for i in range(count):
            x = states[i % 256]
            s = x % 16384
            index, f = slots[s]
            x = f * (x // 16384) + s - starts[index]
            if x < 65536:
                x = x * 65536 + next(stream)
            states[i % 256] = x
            step = steps[i // a_row] if len(steps) > 1 else steps[0]
            values.append((low + index) * step)
        result.append(values)
    assert next(stream, None) is None
    assert set(states) == {65536}
    return description, result
