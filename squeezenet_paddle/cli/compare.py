"""Compare models on one list file: accuracy, size, computation, speed, and how often they agree.

    python tools/compare.py --model_dir pretrained/squeezenet_v1.0 pretrained/squeezenet_v1.1 \\
        --test_list data/val_list.txt --data_dir data

prints a line for each model; the columns "same as N" are the shares of images to which a line
gives the same class as line N. With --format markdown the table goes into a README, with
--format csv its exact numbers into a program.

Several engines or precisions make a line each, for every model that is named; this tells what a
lower precision costs:

    python tools/compare.py --model_dir pretrained/squeezenet_v1.1 --precision float32 int8 \\
        --test_list data/val_list.txt --data_dir data

The models may differ in everything but their classes; each one gets the images as it was trained
on them. Images a second are those of the network alone, without reading.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

from ..data.lists import read_list, read_names
from ..data.loader import Loader
from ..data.preprocess import EvalTransform
from ..data.sampler import Sampler
from ..evaluation import compare
from ..evaluation.evaluate import evaluate
from ..model_dir import read_info
from ..predict import Predictor
from . import common


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    what = parser.add_argument_group("what to compare")
    what.add_argument(
        "--model_dir",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="model directories (required)",
    )
    common.add_list(what, "--test_list", required=True)
    common.add_data_dir(what)
    common.add_synset_word_list(what)
    result = parser.add_argument_group("result")
    result.add_argument(
        "--format", choices=tuple(compare.FORMATS), default="text", help="(default: text)"
    )
    running = parser.add_argument_group("running")
    common.add_loading(running)
    common.add_device(running)
    common.add_engine(running, several=True)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    infos = [read_info(path) for path in args.model_dir]
    classes = infos[0].network.num_classes
    if args.synset_word_list is not None:
        names: list[str] | None = read_names(args.synset_word_list, classes)
        infos = [dataclasses.replace(info, names=None) for info in infos]  # these count no more
    else:
        names = next((info.names for info in infos if info.names is not None), None)
    compare.check_comparable(args.model_dir, infos)
    images = read_list(args.test_list, args.data_dir, classes, names)
    sampler = Sampler(len(images), args.batch_size)
    choices = itertools.product(args.model_dir, args.engine, args.precision)
    predictors = [Predictor(path, args.device, *choice) for path, *choice in choices]
    evaluations = []
    for predictor in predictors:
        transform = EvalTransform(predictor.info.preprocess)
        with Loader(
            images, transform, sampler, args.num_workers, args.max_pixels, on_unreadable=str
        ) as loader:
            evaluations.append(evaluate(predictor, loader))
    rates = compare.measure_rates(predictors, args.batch_size)
    candidates = [compare.Candidate(p.model_dir, p.info, p.engine, p.precision) for p in predictors]
    rows = compare.table(candidates, evaluations, rates)
    print(compare.FORMATS[args.format](rows), end="")
