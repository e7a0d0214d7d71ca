"""Make PNG images and list files of CIFAR-10's published python archive.

    squeezenet prepare-cifar10 --download

fetches data/cifar-10-python.tar.gz (170 MB) if it is not there, writes data/cifar10 and prints

    data/cifar10: 50000 training and 10000 validation images of 10 classes

An archive that is there already, and another folder:

    squeezenet prepare-cifar10 --archive cifar-10-python.tar.gz --output_dir data/cifar10

The folder gets train/CLASS/00000.png, test/CLASS/00000.png, train_list.txt, val_list.txt (the test
images) and synset_words.txt. An archive of another size or checksum is refused.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..datasets import cifar10
from ..download import fetch
from ..errors import InputError
from . import common


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    if args.download:
        fetch(cifar10.ARCHIVE, args.archive, args.url)
    elif args.url is not None:
        raise InputError("--url says where to download from; --download was expected with it.")
    train, test = cifar10.prepare(args.archive, args.output_dir, cifar10.ARCHIVE)
    print(
        f"{args.output_dir}: {train} training and {test} validation images "
        f"of {cifar10.NUM_CLASSES} classes"
    )


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    group = parser.add_argument_group("where from")
    group.add_argument(
        "--archive",
        type=Path,
        default=Path("data") / cifar10.ARCHIVE.name,
        metavar="FILE",
        help=f"the archive (default: data/{cifar10.ARCHIVE.name})",
    )
    group.add_argument(
        "--download",
        action="store_true",
        help="fetch the published archive to --archive first (default: it must be there)",
    )
    group.add_argument(
        "--url",
        metavar="URL",
        help="a mirror's address of the same file, for --download "
        f"(default: {cifar10.ARCHIVE.url})",
    )
    group = parser.add_argument_group("where to")
    group.add_argument(
        "--output_dir",
        type=Path,
        default=Path("data/cifar10"),
        metavar="DIR",
        help="the folder to write; one that this tool made is replaced (default: data/cifar10)",
    )
    return parser.parse_args(argv)
