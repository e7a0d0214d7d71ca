"""Damage valid files of weights at random and read them: never a crash, a hang or a traceback.

    python tests/mutate_caffemodel.py --count 10000

The files are of every kind that a converter takes. Each damaged file must be refused with one line,
or convert; a .caffemodel to exactly the weights that an independent decoder finds in it. Time and
memory are limited by the operating system.
"""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any, Callable

import numpy as np
import wild_files as wild
from caffe_files import mutate, small_caffemodel, structure_offsets, weights_in
from networks import random_state

from squeezenet_paddle.caffe.convert import read_weights as read_caffe
from squeezenet_paddle.caffe.digits import open_digits
from squeezenet_paddle.caffe.inputs import agreed, make_preprocess
from squeezenet_paddle.caffe.mean import read_mean
from squeezenet_paddle.errors import InputError
from squeezenet_paddle.labels import read_labels
from squeezenet_paddle.network.config import ModelConfig
from squeezenet_paddle.pytorch.convert import read_weights as read_torch

SECONDS, MEMORY = 20, 1 << 30  # a reader that takes more of either has failed


def read_caffemodel(file: Path) -> None:
    """A .caffemodel: its weights and its preprocessing."""
    weights = read_caffe(file)
    make_preprocess(agreed(weights.stated), {})
    blobs = {blob.tobytes() for pair in weights_in(file.read_bytes()).values() for blob in pair}
    for key, value in weights.state.items():  # a damaged name may be matched by structure
        assert value.tobytes() in blobs, key


def read_digits(file: Path) -> None:
    with open_digits(file) as model:
        read_caffe(model.caffemodel, model.prototxts)
        if model.mean_file is not None:
            read_mean(model.mean_file)


def read_prototxt(file: Path) -> None:
    read_caffe(file.parent / "whole.caffemodel", [file])


def kinds(folder: Path) -> dict[str, tuple[bytes, Callable[[Path], Any]]]:
    """A valid file of each kind by its name, and what reads it."""
    config = ModelConfig(num_classes=2)
    state = random_state(config)
    edits = (wild.rename_classifier("conv10_x"), wild.data_layers(mean_value=[1, 2, 3], scale=0.5))
    trained = wild.snapshot(config, state, *edits, wild.split_everywhere)
    torch = wild.torch_state(config, state)
    rng = np.random.default_rng(0)
    mean = rng.uniform(0, 255, (3, 16, 16)).astype("float32")
    sparse = {
        key: (np.round(value * 40) / 40).astype("float32") if key.endswith("weight") else value
        for key, value in random_state(ModelConfig("1.0")).items()
    }
    (folder / "whole.caffemodel").write_bytes(wild.snapshot(config, state))
    prototxt = wild.prototxt_of(wild.edited_net(config, state, wild.data_layers(scale=0.5)))
    digits = wild.digits_files(config, state, mean)
    del digits["snapshot_iter_9.caffemodel"]
    return {
        "plain.caffemodel": (small_caffemodel(), read_caffemodel),
        "trained.caffemodel": (trained, read_caffemodel),
        "numbered.caffemodel": (wild.snapshot(config, state, wild.numbered), read_caffemodel),
        "compressed.net": (wild.net_file(sparse), read_caffe),
        "train_val.prototxt": (prototxt.encode(), read_prototxt),
        "zip.pth": (wild.torch_zip(torch, ("state_dict",)), read_torch),
        "legacy.pth": (wild.torch_legacy(torch), read_torch),
        "net.safetensors": (wild.safetensors(torch), read_torch),
        "mean.binaryproto": (wild.binaryproto(mean), read_mean),
        "digits.zip": (wild.write_zip(folder / "a.zip", digits).read_bytes(), read_digits),
        "digits.tar": (wild.write_tar(folder / "a.tar", digits).read_bytes(), read_digits),
        "labels.json": (b'{"0": ["n01", "a"], "1": ["n02", "b"]}', lambda f: read_labels(f, 2)),
    }


def offsets(name: str, data: bytes) -> np.ndarray:
    """Where most of what can break a reader lies: the bytes that are not weights."""
    if name.endswith(".caffemodel"):
        return structure_offsets(data)
    # Headers stand at the start, and a zip file has its directory at the end.
    ends = 20_000
    return np.r_[: min(len(data), ends), max(0, len(data) - ends) : len(data)]


def read(file: Path, reader: Callable[[Path], Any]) -> str:
    """Reads a damaged file; returns "refused" or "converted".

    Raises:
        AssertionError: the message is not one line, or the weights are not those of the file.
        Exception: anything that the reader lets through.
    """
    message = None
    try:
        reader(file)
    except InputError as error:
        message = str(error)
    if message is None:
        return "converted"
    assert message.isprintable(), f"not one printable line: {message!r}"
    return "refused"


def run(count: int, seed: int, only: str = "") -> Counter[str]:
    """Reads `count` damaged files and counts what became of them."""
    results: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        chosen = {name: kind for name, kind in kinds(Path(folder)).items() if only in name}
        places = {name: offsets(name, data) for name, (data, _) in chosen.items()}
        for name, (data, reader) in chosen.items():
            file = Path(folder) / name
            file.write_bytes(data)
            reader(file)  # the whole file is fine
        for number in range(count):
            name = list(chosen)[number % len(chosen)]
            data, reader = chosen[name]
            file = Path(folder) / name
            file.write_bytes(mutate(data, places[name], np.random.default_rng((seed, number))))
            signal.alarm(SECONDS)
            try:
                results[read(file, reader)] += 1
            except BaseException:
                print(f"mutation {number} of seed {seed}, {name}", file=sys.stderr)
                raise
            finally:
                signal.alarm(0)
            if sys.stderr.isatty() and number % 100 == 0:
                print(f"\r{number} {dict(results)}", end="", file=sys.stderr)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="(default: 10000)")
    parser.add_argument("--seed", type=int, default=0, help="(default: 0)")
    parser.add_argument("--only", default="", help="part of the names of the files (default: all)")
    args = parser.parse_args()
    np.random.default_rng(0)  # loads what it needs before memory is limited
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    results = run(args.count, args.seed, args.only)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{args.count} mutations: {results['refused']} refused, {results['converted']} converted "
        f"with the weights of the file; peak memory {peak:.0f} MB"
    )


if __name__ == "__main__":
    main()
