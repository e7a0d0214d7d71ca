"""Measure how fast each engine runs a model on this machine.

    squeezenet benchmark --model_dir pretrained/squeezenet_v1.1
    squeezenet benchmark --model_dir pretrained/squeezenet_v1.1 --engine onnxruntime \\
        --list data/val_list.txt --json output/benchmark.json

prints, for every engine and precision and each --batch_size, the median, 90th and 99th percentile
of the milliseconds from a batch in memory to its logits, and images per second. --list or --image
add a line: images per second from image files to their first five classes, read by --num_workers
processes while the network runs.

Each engine runs in a process of its own. One that is not installed, or lacks its export, gets a
line that says so: the precision int8 needs that of
`squeezenet export --format onnx --precision int8 --image IMAGES`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.image_files import find_images
from ..data.lists import ImageList, read_list
from ..engines.load import ENGINES, PRECISIONS
from ..errors import InputError
from ..evaluation.compare import variant
from ..files import check_file_target, write_text
from ..model_dir import read_info
from ..profiling import benchmark
from ..profiling.benchmark import NotRun, Row, Task
from . import common, shared_flags


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__, leading=("--model_dir",))
    what = parser.add_argument_group("what to measure")
    shared_flags.add_model_dir(what)
    what.add_argument(
        "--engine", nargs="+", choices=("all", *ENGINES), default=["all"], help="(default: all)"
    )
    what.add_argument(
        "--precision",
        nargs="+",
        choices=PRECISIONS,
        default=PRECISIONS,
        help="(default: all that an engine has)",
    )
    what.add_argument(
        "--batch_size",
        type=shared_flags.positive_int,
        nargs="+",
        default=[1, 32],
        help="images per batch; files are run in the largest (default: 1 32)",
    )
    what.add_argument(
        "--repeat",
        type=shared_flags.positive_int,
        default=30,
        help="runs per batch size (default: 30)",
    )
    files = parser.add_argument_group("from files")
    which = files.add_mutually_exclusive_group()
    shared_flags.add_list(which, "--list")
    which.add_argument(
        "--image", nargs="+", metavar="PATH", help="files, folders or globs (default: none)"
    )
    shared_flags.add_data_dir(files)
    running = parser.add_argument_group("running")
    shared_flags.add_threads(running)
    shared_flags.add_reading(running)
    result = parser.add_argument_group("result")
    result.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the numbers there (default: none)"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    info = read_info(args.model_dir)
    engines = list(ENGINES) if "all" in args.engine else list(dict.fromkeys(args.engine))
    pairs = benchmark.pairs(engines, dict.fromkeys(args.precision))
    if args.json is not None:
        check_file_target(args.json)
    if args.data_dir is not None and args.list is None:
        raise InputError("`data_dir` is where the paths of `list` start; it goes with `list`.")
    images = None
    if args.list is not None:
        images = read_list(args.list, args.data_dir, None)
    elif args.image is not None:
        images = ImageList.of_paths(find_images(args.image, common.note))

    machine = benchmark.machine(args.threads)
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    print(f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads")
    print(f"{machine['system']}, {versions}")
    shape = "x".join(map(str, info.preprocess.input_shape))
    print(f"{args.model_dir}: SqueezeNet {variant(info.network)}, input {shape}")
    if images is not None:
        print(f"files: {len(images)} images, {args.num_workers} reader processes")
    print(benchmark.HEADER, flush=True)
    rows: list[Row] = []
    missing: list[NotRun] = []
    for engine, precision in pairs:
        task = Task(
            args.model_dir,
            engine,
            precision,
            args.threads,
            tuple(args.batch_size),
            args.repeat,
            images,
            args.num_workers,
            args.max_pixels,
        )
        measured = benchmark.measure(task)
        if isinstance(measured, NotRun):
            print(measured, flush=True)
            missing.append(measured)
        else:
            print(*measured, sep="\n", flush=True)
            rows += measured
    if args.json is not None:
        write_text(args.json, json.dumps(report(args, machine, rows, missing), indent=2) + "\n")
    if not rows:
        raise InputError("none of the engines asked for can run this model directory here.")


def report(
    args: argparse.Namespace, machine: dict[str, Any], rows: list[Row], missing: list[NotRun]
) -> dict[str, Any]:
    """The content of the file that --json names."""
    return {
        "machine": machine,
        "model_dir": str(args.model_dir),
        "rows": [row.as_json() for row in rows],
        "not_run": [vars(each) for each in missing],
    }
