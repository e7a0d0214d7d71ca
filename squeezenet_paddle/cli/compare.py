"""Compare models on one list file: accuracy, size, computation, speed, and how often they agree.

    squeezenet compare --model_dir pretrained/squeezenet_v1.0 pretrained/squeezenet_v1.1 \\
        --test_list data/val_list.txt --data_dir data

prints one row per model; the columns "same as N" say for how many images a row gives the same
class as row N. --format markdown prints the table for a README, --format csv the exact numbers.

With several engines or precisions, each combination gets a row; this shows what a lower precision
costs:

    squeezenet compare --model_dir pretrained/squeezenet_v1.1 --precision float32 int8 \\
        --test_list data/val_list.txt --data_dir data

The models may differ in everything but their classes; each one gets the images preprocessed as in
its training. Images per second are those of the network alone, without reading.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

from ..data.list_checks import describe_other_order
from ..data.lists import read_list, read_names
from ..evaluation import compare
from ..evaluation.evaluate import score_list
from ..evaluation.metrics import second_k
from ..model_dir import read_info
from ..predict import Predictor
from . import common, shared_flags


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__, leading=("--model_dir",))
    what = parser.add_argument_group("what to compare")
    what.add_argument(
        "--model_dir",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="model directories (required)",
    )
    shared_flags.add_list(what, "--test_list", required=True)
    shared_flags.add_data_dir(what)
    shared_flags.add_synset_word_list(what)
    result = parser.add_argument_group("result")
    result.add_argument(
        "--format", choices=tuple(compare.FORMATS), default="text", help="(default: text)"
    )
    images = parser.add_argument_group("images that cannot be read")
    shared_flags.add_skip_unreadable(images)
    running = parser.add_argument_group("running")
    shared_flags.add_loading(running)
    shared_flags.add_device(running)
    shared_flags.add_engine(running, several=True)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    infos = [read_info(path) for path in args.model_dir]
    classes = infos[0].network.num_classes
    if args.synset_word_list is not None:
        names: list[str] | None = read_names(args.synset_word_list, classes)
        infos = [dataclasses.replace(info, names=None) for info in infos]
    else:
        names = next((info.names for info in infos if info.names is not None), None)
    compare.check_comparable(args.model_dir, infos)
    images = read_list(args.test_list, args.data_dir, classes, names)
    if other_order := describe_other_order(images, names):
        common.note(other_order)
    choices = itertools.product(args.model_dir, args.engine, args.precision)
    predictors = [Predictor(path, args.device, *choice) for path, *choice in choices]
    evaluations = [
        score_list(
            predictor,
            images,
            batch_size=args.batch_size,
            num_workers=args.num_workers,
            max_pixels=args.max_pixels,
            skip_unreadable=args.skip_unreadable,
        )
        for predictor in predictors
    ]
    rates = compare.measure_rates(predictors, args.batch_size)
    candidates = [compare.Candidate(p.model_dir, p.info, p.engine, p.precision) for p in predictors]
    rows = compare.table(candidates, evaluations, rates)
    print(compare.FORMATS[args.format](rows, second_k(classes)), end="")
