"""Download the SqueezeNet authors' Caffe weights with their prototxt and the class names.

    squeezenet download squeezenet_v1.1

writes three files into pretrained/ and prints

    pretrained/squeezenet_v1.1.caffemodel: downloaded, 4950080 bytes, sha256 is right
    pretrained/squeezenet_v1.1.prototxt: downloaded, 9678 bytes, sha256 is right
    pretrained/synset_words.txt: the names of 1000 classes

which squeezenet convert takes as --caffemodel, --prototxt and --synset_word_list. Run again, it
only checks the files. A download that was cut off leaves a file that ends in .part; the same
command continues there.

--mirror names a server that has the files of the authors' repository, such as
SqueezeNet_v1.1/deploy.prototxt, byte for byte:

    squeezenet download squeezenet_v1.0 --mirror https://example.org/SqueezeNet
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..data.lists import imagenet_class_names
from ..download import AUTHORS, KNOWN_FILES, fetch
from ..errors import InputError
from ..files import read_lines, write_text
from . import common


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    names = imagenet_class_names()
    names_path = args.output_dir / "synset_words.txt"
    if names_path.exists() and read_lines(names_path, "list of class names") != names:
        raise InputError(
            f"{names_path} exists and holds other names than ImageNet's; it was left alone. Remove "
            "it or give another --output_dir."
        )
    for file in (file for name in args.names for file in KNOWN_FILES[name]):
        path = args.output_dir / file.name
        is_new = fetch(file, path, file.url.replace(AUTHORS, args.mirror.rstrip("/")))
        state = "downloaded" if is_new else "already there"
        print(f"{path}: {state}, {file.size} bytes, {file.digest_algorithm} is right", flush=True)
    write_text(names_path, "".join(f"{name}\n" for name in names))
    print(f"{names_path}: the names of {len(names)} classes")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__, resumes=True)
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
        "--mirror",
        default=AUTHORS,
        metavar="URL",
        help="the address of a copy of the authors' repository (default: on GitHub)",
    )
    return parser.parse_args(argv)
