"""Score a model on a list file: top-1, top-5, loss, images a second.

    python tools/eval.py --model_dir pretrained/squeezenet_v1.1 \\
        --test_list data/val_list.txt --data_dir data

prints one line like

    top-1 53.33%  top-5 81.00%  loss 1.9800  300 images  94.7 images/s

Every line of the list counts exactly once. An image that cannot be read ends the run without a
score, unless --skip_unreadable is given; then it is named and counted. --check_files looks for such
images first, before the network is loaded:

    python tools/eval.py --model_dir pretrained/squeezenet_v1.1 \\
        --test_list data/val_list.txt --data_dir data --check_files bad_list.txt

--report_dir writes report.html, which a browser opens without a network, and what it shows as
files: precision, recall and F1 of every class, the confusion matrix, the most confused pairs, the
most confidently wrong images, and how far the probabilities can be trusted:

    python tools/eval.py --model_dir pretrained/squeezenet_v1.1 \\
        --test_list data/val_list.txt --data_dir data --report_dir output/report

Several processes share the list; each image counts once:

    python tools/eval.py --model_dir pretrained/squeezenet_v1.1 \\
        --test_list data/val_list.txt --data_dir data --device cpu --num_procs 2

The list may be a CSV file with the columns image and label, and labels may be class names where the
model directory or --synset_word_list has them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from ..data.lists import ImageList, read_list
from ..data.loader import Loader, check_files
from ..data.preprocess import EvalTransform
from ..data.sampler import Sampler
from ..errors import InputError, describe_problems
from ..evaluation.compare import variant
from ..evaluation.evaluate import evaluate
from ..evaluation.report import REPORT, Report, check_report_target, write_report
from ..files import check_file_target, write_text
from ..model_dir import read_info
from ..parallel import launcher
from ..predict import Predictor, choose_device
from . import common

if TYPE_CHECKING:
    from ..parallel.group import Group


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__)
    what = parser.add_argument_group("what to score")
    common.add_model_dir(what)
    common.add_list(what, "--test_list", required=True)
    common.add_data_dir(what)
    common.add_synset_word_list(what)
    what.add_argument(
        "--ten_crop",
        action="store_true",
        help="average the probabilities of four corners, the center, and their mirrors "
        "(default: off, the center alone)",
    )
    result = parser.add_argument_group("result")
    result.add_argument(
        "--metrics_json", type=Path, metavar="FILE", help="write the scores there (default: none)"
    )
    result.add_argument(
        "--report_dir",
        type=Path,
        metavar="DIR",
        help="write a report there, report.html and the numbers and figures that it shows "
        "(default: none)",
    )
    images = parser.add_argument_group("images that cannot be read")
    images.add_argument(
        "--check_files",
        type=Path,
        metavar="FILE",
        help="decode every image first; if some are bad, write their lines to FILE and stop "
        "(default: off)",
    )
    images.add_argument(
        "--skip_unreadable",
        action="store_true",
        help="leave out images that cannot be read, and say how many (default: off)",
    )
    running = parser.add_argument_group("running")
    common.add_loading(running)
    common.add_device(running)
    common.add_engine(running)
    common.add_processes(running)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(argv)
    info = read_info(args.model_dir)
    if info.is_untrained and not launcher.is_started():
        print(
            "eval.py: the classifier of this model directory is new and untrained: its scores are "
            "those of chance.",
            file=sys.stderr,
        )
    classes = info.network.num_classes
    names = common.class_names(args, info)
    images = read_list(args.test_list, args.data_dir, classes, names)
    for path in (args.metrics_json, args.check_files):
        if path is not None:
            check_file_target(path)
    if args.report_dir is not None:
        check_report_target(args.report_dir)
    if not launcher.is_started():
        if args.check_files is not None:
            check(images, args)
        count = launcher.processes(args.device, args.num_gpus, args.num_procs)
        if count > 1:
            return launcher.launch(count, "gpu" if args.num_gpus else "cpu")
    transform = EvalTransform(info.preprocess, args.ten_crop)
    # Without --skip_unreadable, bad images are named together at the end.
    note = report_skipped if args.skip_unreadable else str
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(joined(args)) if launcher.is_started() else None
        rank, world_size = (0, 1) if group is None else (group.rank, group.world_size)
        sampler = Sampler(len(images), args.batch_size, rank=rank, world_size=world_size)
        loader = stack.enter_context(
            Loader(images, transform, sampler, args.num_workers, args.max_pixels, note)
        )
        # Loads the engine, once the flags are right and the readers are starting.
        predictor = Predictor(args.model_dir, args.device, args.engine, args.precision)
        evaluation = evaluate(predictor, loader, args.skip_unreadable, group)
    if rank:
        return 0
    told = set(loader.skipped.values())
    for message in evaluation.unreadable:
        if message not in told:  # another process found it
            report_skipped(message)
    engine = {"engine": predictor.engine, "precision": predictor.precision}
    scores = {**evaluation.summary(), **engine}
    skipped = f"  {len(scores['unreadable'])} skipped" if scores["unreadable"] else ""
    print(
        f"top-1 {scores['top1']:.2%}  top-5 {scores['top5']:.2%}  loss {scores['loss']:.4f}  "
        f"{scores['images']} images{skipped}  {scores['images_per_second']:.1f} images/s"
    )
    if args.metrics_json is not None:
        write_text(args.metrics_json, json.dumps(scores, indent=2) + "\n")
    if args.report_dir is not None:
        report = Report(evaluation, images, classes, names, facts(args, predictor), args.max_pixels)
        write_report(args.report_dir, report)
        print(f"report: {args.report_dir / REPORT}")
    return 0


def joined(args: argparse.Namespace) -> Group:
    """The processes that share the list."""
    from ..parallel.group import join  # Paddle

    return join(choose_device(args.device))


def facts(args: argparse.Namespace, predictor: Predictor) -> dict[str, str]:
    """What was evaluated and how, for the report."""
    info = predictor.info
    preprocess = info.preprocess
    crops = "ten crops" if args.ten_crop else "center crop"
    size = f"{preprocess.resize_size} pixels ({preprocess.resize})"
    return {
        "model": str(args.model_dir),
        "network": f"SqueezeNet {variant(info.network)}, {info.network.num_classes} classes",
        "list": str(args.test_list),
        "engine": f"{predictor.engine}, {predictor.precision}",
        "input": f"{crops} of {preprocess.crop_size} pixels from {size}",
    }


def report_skipped(message: str) -> None:
    tqdm.write(f"skipped: {message}", file=sys.stderr)


def check(images: ImageList, args: argparse.Namespace) -> None:
    """Decodes every image; if some are bad, writes their lines and ends the run."""
    bad = check_files(images, args.num_workers, args.max_pixels)
    if not bad:
        return
    lines = [f"{images.name(index)} {images.labels[index]}\n" for index in bad]
    write_text(args.check_files, "".join(lines))
    raise InputError(
        f"{len(bad)} of {len(images)} images cannot be read, {args.check_files} lists them: "
        f"{describe_problems(list(bad.values()))}"
    )
