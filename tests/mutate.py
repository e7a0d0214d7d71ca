"""Damages files of our own formats at random and reads them: never a crash, a hang or a traceback.

    python tests/mutate.py pdparams --count 20000
    python tests/mutate.py all --count 1000

Every other damaged file gets checksums that fit, as a stranger's would have: then it may hold
something else. One whose checksum does not fit has to be refused, or read as what it was. The files
are read in processes of their own, whose time and memory the operating system limits.
"""

from __future__ import annotations

import argparse
import copy
import functools
import hashlib
import json
import logging
import os
import struct
import sys
import tempfile
import traceback
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import numpy as np
from caffe_files import mutate
from limits import limit_this_process
from networks import VARIANTS, calibrate_dir, pixels, random_state, small_model_dir

from squeezenet_paddle.compression.int8 import quantise
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.export_record import ONNX_INT8, RECORD, add_record, find
from squeezenet_paddle.features.cache import FeatureFile
from squeezenet_paddle.files import sha256
from squeezenet_paddle.model_dir import read_info, read_weights, write_compressed
from squeezenet_paddle.onnx.quantise import read_constants
from squeezenet_paddle.onnx.writer import GraphInput, onnx_model
from squeezenet_paddle.sqz import format as sqz
from squeezenet_paddle.training import checkpoint
from squeezenet_paddle.training.visualdl import records

PER_PROCESS, SECONDS, MEMORY = 500, 300, 1 << 30
CONFIG = VARIANTS[0]


@dataclass(frozen=True)
class Format:
    """A file of ours.

    Attributes:
        file: a good one, in a folder with what it is read with.
        read: gives what is in it, as something that can be compared.
        fit: makes the checksums of a damaged one fit; None where it has none.
        is_checked: whether a checksum is over all of it.
    """

    file: Path
    read: Callable[[], Any]
    fit: Callable[[bytes], bytes] | None = None
    is_checked: bool = True


def config_format(folder: Path) -> Format:
    model = calibrate_dir(small_model_dir(folder / "model", CONFIG))
    return Format(
        model / "config.json", lambda: (i := read_info(model), read_weights(model, i).fingerprint),
        is_checked=False,
    )  # fmt: skip


def npz_format(folder: Path) -> Format:
    model = calibrate_dir(small_model_dir(folder / "model", CONFIG))

    def fit(data: bytes) -> bytes:
        set_in_json(
            model / "config.json", hashlib.sha256(data).hexdigest(), "calibration", "familiarity"
        )
        return data

    def read() -> str:
        calibration = read_info(model).calibration
        return "" if calibration is None else calibration.record()["familiarity"]

    return Format(model / "familiarity.npz", read, fit)


def pdparams_format(folder: Path) -> Format:
    return weights_format(small_model_dir(folder / "model", CONFIG), "model.pdparams", lambda d: d)


def sqz_format(folder: Path) -> Format:
    model = small_model_dir(folder / "plain", CONFIG)
    info = read_info(model)
    arrays: dict[str, sqz.Array] = {}
    for key, value in read_weights(model, info).state.items():
        arrays[key] = value.astype("float16")
        if value.ndim == 4:
            indices, scales = np.rint(8 * value).astype("int16"), np.arange(value[0].size) % 40
            arrays[key] = sqz.Indices(indices, np.float32(1e-4), scales.astype("uint8"))
    write_compressed(folder / "model", info, sqz.write(sqz.Content(CONFIG, arrays))[0])

    def with_crc(data: bytes) -> bytes:
        data = data[:12] + struct.pack("<I", len(data)) + data[16:]
        return data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))

    return weights_format(folder / "model", "model.sqz", with_crc)


def weights_format(model: Path, name: str, inner: Callable[[bytes], bytes]) -> Format:
    def fit(data: bytes) -> bytes:
        data = inner(data)
        set_in_json(model / "config.json", hashlib.sha256(data).hexdigest(), "weights_sha256")
        return data

    return Format(model / name, lambda: read_weights(model, read_info(model)).fingerprint, fit)


def int8_file(folder: Path) -> Path:
    state = random_state(CONFIG)
    constants = quantise(CONFIG, state, pixels(CONFIG, 1, 40), threads=1)
    model = onnx_model(CONFIG, state, GraphInput(40, 40), quantised=constants)
    (folder / ONNX_INT8).write_bytes(model)
    add_record(folder, "int8", {"fingerprint": "x"}, [ONNX_INT8])
    return folder / ONNX_INT8


def read_int8(folder: Path) -> str:
    constants = read_constants(find(folder, "int8", "x", ONNX_INT8)[1], CONFIG, ONNX_INT8)
    return sha256(b"".join(constants[name].tobytes() for name in sorted(constants)))


def exports_format(folder: Path) -> Format:
    int8_file(folder)
    return Format(folder / RECORD, lambda: read_int8(folder))


def int8_format(folder: Path) -> Format:
    def fit(data: bytes) -> bytes:
        set_in_json(folder / RECORD, hashlib.sha256(data).hexdigest(), "int8", "files", ONNX_INT8)
        return data

    return Format(int8_file(folder), lambda: read_int8(folder), fit)


def checkpoint_format(folder: Path) -> Format:
    arrays = {f"network/{i}": np.arange(i * 5.0).reshape(i, 5) for i in range(1, 9)}
    record = {"settings": {"must_match": {}, "may_change": {}}, "best": 0.5}
    file = checkpoint.save(folder, checkpoint.Checkpoint(7, arrays, record), 1)

    def read() -> Any:
        newest = checkpoint.load_newest(folder)
        assert newest is not None
        return {k: v.tobytes() for k, v in newest.arrays.items()}, newest.record

    return Format(file, read, lambda data: data[:-32] + hashlib.sha256(data[:-32]).digest())


def cache_format(folder: Path) -> Format:
    contents = [f"{i:064x}" for i in range(20)]
    features = FeatureFile(folder, "cache", "key", 8)
    rows = np.arange(160.0, dtype="f2").reshape(20, 8)
    with features.writer() as writer:
        for at in range(0, 20, 5):
            writer.write(contents[at : at + 5], 0, rows[at : at + 5])
    data, journal = (folder / f"cache.{end}" for end in ("f16", "log"))
    whole = data.read_bytes()

    def read() -> bool:
        data.write_bytes(whole)  # `check` removes those of another key
        found = FeatureFile(folder, "cache", "key", 8)
        found.check()
        places = found.rows(contents)
        values = found.read()
        return all((values[at] == rows[i]).all() for i, at in enumerate(places) if at >= 0)

    def fit(data: bytes) -> bytes:
        lines = [line.partition(b" ")[2] for line in data.split(b"\n")]
        return b"".join(
            hashlib.sha256(x).hexdigest().encode() + b" " + x + b"\n" for x in lines if x
        )

    return Format(journal, read, fit)


def records_format(folder: Path) -> Format:
    parts = [records.header({"lr": 0.1}, ("val/top1",))]
    parts += [records.scalar("train/loss", step, 1 / (step + 1)) for step in range(20)]
    parts.append(records.image("batch", 3, bytes(range(256))))
    (folder / records.FILE).write_bytes(b"".join(parts))
    logging.getLogger(records.__name__).setLevel(logging.ERROR)
    return Format(
        folder / records.FILE, lambda: records.read_records(folder / records.FILE, 99),
        is_checked=False,
    )  # fmt: skip


FORMATS: dict[str, Callable[[Path], Format]] = {
    "config": config_format,
    "pdparams": pdparams_format,
    "sqz": sqz_format,
    "npz": npz_format,
    "exports": exports_format,
    "int8": int8_format,
    "checkpoint": checkpoint_format,
    "cache": cache_format,
    "records": records_format,
}


def set_in_json(file: Path, value: str, *keys: str) -> None:
    content = json.loads(file.read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    file.write_text(json.dumps(content))


VALUES = (
    *(None, True, 0, -1, 1, 3, 16, 0.5, 1e308, 10**6, 2**31, 10**30, float("nan"), float("inf")),
    *("", "x", "../x", "\x1b[2J\n", "a" * 10**5, [], [None], [1, 2, 3], {}, {"a": None}),
)


def mutate_json(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three values of a JSON text replaced, removed or repeated."""
    content = json.loads(data)
    for _ in range(rng.integers(1, 4)):
        place = content
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = keys[rng.integers(len(keys))]
            if isinstance(place[key], (dict, list)) and place[key] and rng.random() < 0.8:
                place = place[key]
                continue
            kind = rng.random()
            if kind < 0.15:
                del place[key]
            elif kind < 0.3 and isinstance(place, dict):
                place[f"{key}_"] = place.pop(key)
            else:
                place[key] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
            break
    return json.dumps(content).encode()


def outcomes(name: str, count: int, seed: int = 0) -> Counter[str]:
    """Reads damaged files of a format; how many were read as what, and how many failed."""
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        made = FORMATS[name](Path(temporary))
        folder = made.file.parent
        whole = {file: file.read_bytes() for file in folder.iterdir() if file.is_file()}
        for start in range(0, count, PER_PROCESS):
            part = range(start, min(start + PER_PROCESS, count))
            work = functools.partial(_read_all, made, whole, part, seed)
            total.update(_in_a_child(work, len(part)))
    return total


def _in_a_child(work: Callable[[], Iterator[str]], count: int) -> list[str]:
    """What the work gives in a process that may take only so much; "dead" for what it misses."""
    source, target = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(source)
            limit_this_process(SECONDS, MEMORY)
            with os.fdopen(target, "w") as pipe:
                for each in work():
                    print(each, file=pipe, flush=True)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(target)
    with os.fdopen(source) as pipe:
        found = pipe.read().split("\n")[:-1]
    os.waitpid(child, 0)
    return found + ["dead"] * (len(found) < count)


def _read_all(made: Format, whole: dict[Path, bytes], part: range, seed: int) -> Iterator[str]:
    for file, content in whole.items():
        file.write_bytes(content)
    expected = repr(made.read())
    data = whole[made.file]
    ends = [*range(min(len(data), 3000)), *range(max(len(data) - 6000, 0), len(data))]
    for number in part:
        for file, content in whole.items():  # reading is cheaper, and `read` may have removed it
            if not file.exists() or file.read_bytes() != content:
                file.write_bytes(content)
        fits = number % 2 == 1 and made.fit is not None
        rng = np.random.default_rng([seed, number])
        is_json = made.file.suffix == ".json" and number % 4 < 2
        damaged = mutate_json(data, rng) if is_json else mutate(data, np.array(ends), rng)
        made.file.write_bytes(made.fit(damaged) if fits and made.fit is not None else damaged)
        try:
            same = repr(made.read()) == expected
        except InputError as error:
            yield "refused" if "\n" not in str(error) else "several lines"
        except BaseException:
            traceback.print_exc()
            yield "traceback"
        else:
            allowed = fits or not made.is_checked
            yield "the same" if same else "another" if allowed else "silently wrong"


GOOD = ("the same", "another", "refused")
BAD = ("silently wrong", "several lines", "traceback", "dead")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("format", choices=(*FORMATS, "all"))
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("format      mutations  " + "  ".join(f"{each:>14}" for each in (*GOOD, *BAD)))
    failed = 0
    for name in FORMATS if args.format == "all" else [args.format]:
        found = outcomes(name, args.count, args.seed)
        row = "  ".join(f"{found[each]:>14,}" for each in (*GOOD, *BAD))
        print(f"{name:<10} {sum(found.values()):>10,}  {row}", flush=True)
        failed += sum(found[each] for each in BAD)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
