"""Compare models on one list file: accuracy, size, computation, speed, and how often they agree.

    python tools/compare.py --model_dir pretrained/squeezenet_v1.0 pretrained/squeezenet_v1.1 \\
        --test_list data/val_list.txt --data_dir data

prints a line for each model; the columns "same as N" are the shares of pictures to which a line
gives the same class as line N. With --format markdown the table goes into a README, with
--format csv its exact numbers into a program.

Several engines or precisions make a line each, for every model that is named; this tells what a
lower precision costs:

    python tools/compare.py --model_dir pretrained/squeezenet_v1.1 --precision float32 int8 \\
        --test_list data/val_list.txt --data_dir data

The models may differ in everything but their classes; each one gets the pictures as it was trained
on them. Images a second are those of the network alone, without reading.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
from pathlib import Path

from squeezenet_paddle import cli, comparison
from squeezenet_paddle.dataset import read_list, read_names
from squeezenet_paddle.evaluation import evaluate
from squeezenet_paddle.loader import Loader
from squeezenet_paddle.model_dir import read_info
from squeezenet_paddle.prediction import Predictor
from squeezenet_paddle.preprocess import EvalTransform
from squeezenet_paddle.sampler import Sampler


def parse_arguments() -> argparse.Namespace:
    parser = cli.parser(__doc__)
    what = parser.add_argument_group("what to compare")
    what.add_argument(
        "--model_dir",
        type=Path,
        nargs="+",
        required=True,
        metavar="DIR",
        help="model directories (required)",
    )
    cli.add_list(what, "--test_list", required=True)
    cli.add_data_dir(what)
    cli.add_synset_word_list(what)
    result = parser.add_argument_group("result")
    result.add_argument(
        "--format", choices=tuple(comparison.FORMATS), default="text", help="(default: text)"
    )
    running = parser.add_argument_group("running")
    cli.add_loading(running)
    cli.add_device(running)
    cli.add_engine(running, several=True)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    infos = [read_info(path) for path in args.model_dir]
    classes = infos[0].network.num_classes
    if args.synset_word_list is not None:
        names = read_names(args.synset_word_list, classes)
        infos = [dataclasses.replace(info, names=None) for info in infos]  # these count no more
    else:
        names = next((info.names for info in infos if info.names is not None), None)
    comparison.check_comparable(args.model_dir, infos)
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
    rates = comparison.measure_rates(predictors, args.batch_size)
    candidates = [
        comparison.Candidate(p.model_dir, p.info, p.engine, p.precision) for p in predictors
    ]
    rows = comparison.table(candidates, evaluations, rates)
    print(comparison.FORMATS[args.format](rows), end="")


if __name__ == "__main__":
    cli.run(main)
