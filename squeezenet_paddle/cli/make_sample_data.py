"""Draw a small data set of ten classes, to try training and evaluation on without a download.

    squeezenet make-sample-data

writes data/sample with 640 training and 160 validation images and prints

    data/sample: 640 training and 160 validation images of 10 classes

A class is a shape filled with a texture (disc_stripes, ring_noise ...). Both are needed to tell the
classes apart; colours, size, angle and background say nothing about them. More images, and others:

    squeezenet make-sample-data --output_dir data/large --train_images 500 --val_images 100 \\
        --seed 1
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..datasets.samples import NAMES, make_sample_data
from . import common, shared_flags


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    make_sample_data(args.output_dir, args.seed, args.train_images, args.val_images)
    train, val = (count * len(NAMES) for count in (args.train_images, args.val_images))
    print(
        f"{args.output_dir}: {train} training and {val} validation images of {len(NAMES)} classes"
    )


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    group = parser.add_argument_group("what to make")
    group.add_argument(
        "--output_dir",
        type=Path,
        default=Path("data/sample"),
        metavar="DIR",
        help="the folder to write; one that this tool made is replaced (default: data/sample)",
    )
    group.add_argument(
        "--seed",
        type=shared_flags.seed,
        default=0,
        help="the same seed gives the same images (default: 0)",
    )
    group.add_argument(
        "--train_images",
        type=shared_flags.positive_int,
        default=64,
        metavar="N",
        help="training images of each class (default: 64)",
    )
    group.add_argument(
        "--val_images",
        type=shared_flags.positive_int,
        default=16,
        metavar="N",
        help="validation images of each class (default: 16)",
    )
    shared_flags.add_old_flag(parser, "--train", "train_images", shared_flags.positive_int)
    shared_flags.add_old_flag(parser, "--val", "val_images", shared_flags.positive_int)
    return parser.parse_args(argv)
