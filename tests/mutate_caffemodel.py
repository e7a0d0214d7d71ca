"""Damage a valid .caffemodel at random and read it: never a crash, a hang or a traceback.

    python tests/mutate_caffemodel.py --count 10000

Each damaged file must be refused with one line, or convert to exactly the weights that an
independent decoder finds in it. Time and memory are limited by the operating system.
"""

from __future__ import annotations

import argparse
import resource
import signal
import sys
from collections import Counter

import numpy as np
from caffe_files import mutate, small_caffemodel, structure_offsets, weights_in

from squeezenet_paddle.caffe.convert import convert, read_config
from squeezenet_paddle.caffe.reader import parse_caffemodel
from squeezenet_paddle.errors import InputError

SECONDS, MEMORY = 20, 1 << 30  # a reader that takes more of either has failed


def read(data: bytes) -> str:
    """Reads a damaged file; returns "refused" or "converted".

    Raises:
        AssertionError: the message is not one line, or the weights are not those of the file.
        Exception: anything that the reader lets through.
    """
    message = None
    try:
        layers = parse_caffemodel(data, "damaged.caffemodel")
        config = read_config(layers, "damaged.caffemodel")
        state = convert(layers, "damaged.caffemodel", config)
    except InputError as error:
        message = str(error)
    if message is not None:
        assert message.isprintable(), f"not one printable line: {message!r}"
        return "refused"
    expected = weights_in(data)
    for key, value in state.items():
        name, _, kind = key.rpartition(".")
        blob = expected[name.replace(".", "/")][kind == "bias"]
        np.testing.assert_array_equal(value.ravel(), blob, err_msg=key)
    return "converted"


def run(count: int, seed: int) -> Counter[str]:
    """Reads `count` damaged files and counts what became of them."""
    whole = small_caffemodel()
    structure = structure_offsets(whole)
    results: Counter[str] = Counter()
    assert read(whole) == "converted"
    for number in range(count):
        data = mutate(whole, structure, np.random.default_rng((seed, number)))
        signal.alarm(SECONDS)
        try:
            results[read(data)] += 1
        except BaseException:
            print(f"mutation {number} of seed {seed}", file=sys.stderr)
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
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    results = run(args.count, args.seed)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{args.count} mutations: {results['refused']} refused, {results['converted']} converted "
        f"with the weights of the file; peak memory {peak:.0f} MB"
    )


if __name__ == "__main__":
    main()
