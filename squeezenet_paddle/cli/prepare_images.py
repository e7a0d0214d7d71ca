"""Resize the images of list files once, so that training need not decode large ones each epoch.

    squeezenet prepare-images --data_dir data/sample/train --output_dir data/sample_256 \\
        --list data/sample_lists/train_list.txt data/sample_lists/val_list.txt

writes each image at 256x256 into data/sample_256, under its own path with the suffix of the new
format, writes the lists with the new paths there too, and prints

    640 images: 640 written, 0 already there, 0 unreadable

With --format png and the model's own resizing, evaluation sees exactly the pixels that it sees with
the originals. An image that is there is not made again, unless its size or that or the time of its
original has changed.

    squeezenet prepare-images --data_dir data/sample/train \\
        --list data/sample_lists/train_list.txt --mean_json data/sample_mean.json

writes no images, only the channel means over all pixels of the resized images of the first list:

    512 images: mean 119.68 115.47 117.56  std 67.52 69.23 71.33 (B, G, R)
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..data.preprocess import INTERPOLATIONS, Preprocess
from ..datasets.prepare import FORMATS, prepare
from ..datasets.resize_jobs import Output
from ..errors import InputError
from ..files import write_text
from . import common, shared_flags


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__, leading=("--list",), resumes=True)
    group = parser.add_argument_group("what to read and write")
    group.add_argument(
        "--list",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="list files: 'path label' on each line, or CSV (required)",
    )
    shared_flags.add_data_dir(group)
    group.add_argument(
        "--output_dir",
        type=Path,
        metavar="DIR",
        help="where images and lists go: an empty or new folder, or one of an earlier run with "
        "the same settings (default: none, only --mean_json is written)",
    )
    group.add_argument(
        "--mean_json",
        type=Path,
        metavar="FILE",
        help="where to write mean and standard deviation of the resized images of the first "
        "list, before they are compressed (default: none)",
    )
    group.add_argument(
        "--skip_unreadable",
        action="store_true",
        help="leave out images that cannot be read, in the lists too (default: off)",
    )
    group = parser.add_argument_group("how to resize")
    group.add_argument(
        "--resize",
        choices=("squash", "short_side"),
        default="squash",
        help="squash to a square, or bring the shorter side to the size (default: squash)",
    )
    group.add_argument(
        "--resize_size",
        type=shared_flags.positive_int,
        default=256,
        help="in pixels (default: 256)",
    )
    group.add_argument(
        "--interpolation", choices=tuple(INTERPOLATIONS), default="cubic", help="(default: cubic)"
    )
    group.add_argument(
        "--format", choices=FORMATS, default="jpg", help="png keeps every pixel (default: jpg)"
    )
    group.add_argument(
        "--quality",
        type=int,
        choices=range(1, 101),
        default=95,
        metavar="1..100",
        help="of jpg (default: 95)",
    )
    group.add_argument(
        "--num_workers",
        type=shared_flags.positive_int,
        default=os.cpu_count() or 1,
        help="processes (default: the number of CPUs)",
    )
    shared_flags.add_verbose(group)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    if args.output_dir is None and args.mean_json is None:
        raise InputError("--output_dir or --mean_json or both were expected, found neither.")
    output = None
    if args.output_dir is not None:
        output = Output(args.output_dir, args.format, args.quality)
    resize = Preprocess(  # its crop is not used here
        args.resize, args.resize_size, args.interpolation, crop_size=args.resize_size
    )
    report = prepare(
        args.list,
        args.data_dir,
        resize,
        output,
        args.mean_json is not None,
        args.num_workers,
        args.skip_unreadable,
    )
    for message in report.unreadable:
        print(f"skipped: {message}", file=sys.stderr)
    if output is not None:
        unreadable = len(report.unreadable)
        unchanged = report.images - report.written - unreadable
        print(
            f"{report.images} images: {report.written} written, {unchanged} already there, "
            f"{unreadable} unreadable"
        )
    if report.statistics is not None:
        write_text(args.mean_json, json.dumps(report.statistics, indent=2) + "\n")
        mean, std = (
            " ".join(f"{value:.2f}" for value in report.statistics[key]) for key in ("mean", "std")
        )
        print(f"{report.statistics['images']} images: mean {mean}  std {std} (B, G, R)")
