"""Downloads the SqueezeNet authors' Caffe weights.

    python tools/download.py squeezenet_v1.1

writes pretrained/squeezenet_v1.1.caffemodel and prints

    pretrained/squeezenet_v1.1.caffemodel: downloaded, 4950080 bytes, sha256 is right

Run again, it only checks the file:

    pretrained/squeezenet_v1.1.caffemodel: already there, 4950080 bytes, sha256 is right

A mirror has to give the very same bytes:

    python tools/download.py squeezenet_v1.0 --url https://example.org/squeezenet_v1.0.caffemodel

A download that was cut off leaves a file that ends in .part; the same command goes on from there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..download import KNOWN_FILES, fetch
from ..errors import InputError
from . import common


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    if args.url is not None and len(args.names) > 1:
        raise InputError(f"--url gives one file; found {len(args.names)} names beside it.")
    for name in args.names:
        known = KNOWN_FILES[name]
        path = args.output_dir / known.name
        url = known.url if args.url is None else args.url
        is_new = fetch(url, path, known.size, known.digest_algorithm, known.digest)
        state = "downloaded" if is_new else "already there"
        print(f"{path}: {state}, {known.size} bytes, {known.digest_algorithm} is right", flush=True)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    parser.add_argument(
        "names",
        nargs="+",
        choices=sorted(KNOWN_FILES),
        metavar="NAME",
        help=f"the weights: {' or '.join(sorted(KNOWN_FILES))} (required)",
    )
    group = parser.add_argument_group("where from and where to")
    group.add_argument(
        "--output_dir",
        type=Path,
        default=Path("pretrained"),
        metavar="DIR",
        help="the folder to write to (default: pretrained)",
    )
    group.add_argument(
        "--url",
        metavar="URL",
        help="a mirror's address of the file; takes one NAME (default: the authors' repository)",
    )
    return parser.parse_args(argv)
