"""Trace what Paddle does in a step, operator by operator.

    squeezenet trace --model_dir pretrained/squeezenet_v1.1 --batch_size 8
    squeezenet trace --train --steps 3 --output output/train_trace.json

The first traces inference in dynamic graph (the engine dynamic), the second training steps
(forward, backward, update) of SqueezeNet v1.1 with 1000 classes, both on random images. The output
is a Chrome trace, to be opened in chrome://tracing or https://ui.perfetto.dev, with rows for every
thread; on a CPU there is one thread per core. Printed are a JSON line with the milliseconds of a
step, the profiler's own included, and the slowest operators with their milliseconds over all steps
and threads.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from ..device import choose_device
from ..files import check_file_target
from ..model_dir import read_info
from . import common, shared_flags


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__, leading=("--model_dir",))
    what = parser.add_argument_group("what to trace")
    which = what.add_mutually_exclusive_group(required=True)
    shared_flags.add_model_dir(which, required=False)
    which.add_argument("--train", action="store_true", help="training steps (default: inference)")
    what.add_argument(
        "--batch_size",
        type=shared_flags.positive_int,
        default=32,
        help="images per step (default: 32)",
    )
    what.add_argument(
        "--steps", type=shared_flags.positive_int, default=5, help="steps traced (default: 5)"
    )
    running = parser.add_argument_group("running")
    shared_flags.add_device(running)
    shared_flags.add_threads(running)
    result = parser.add_argument_group("result")
    result.add_argument(
        "--output",
        type=Path,
        default=Path("output/trace.json"),
        metavar="FILE",
        help="the Chrome trace (default: output/trace.json)",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    check_file_target(args.output)
    if args.model_dir is not None:
        read_info(args.model_dir)
    from ..profiling import trace as tracing  # loads Paddle

    device = choose_device(args.device)
    if args.train:
        step = tracing.training_step(args.batch_size, device, args.threads)
    else:
        step = tracing.inference_step(args.model_dir, args.batch_size, device, args.threads)
    trace = tracing.trace(step, args.steps, args.output, device)
    what = {"what": "train" if args.train else "inference", "batch_size": args.batch_size}
    print(json.dumps({**what, **trace.summary(), "trace": str(args.output)}))
    print(trace.table())
