"""Score a model on a list file: top-1, top-5, loss, images per second.

    squeezenet eval --model_dir pretrained/squeezenet_v1.1 \\
        --test_list data/val_list.txt --data_dir data

prints one line like

    top-1 53.33%  top-5 81.00%  loss 1.9800  300 images  94.7 images/s

or the same for a folder that has a folder for each class, named as the model's classes:

    squeezenet eval --model_dir output/mine --images my_images/

The level at which its folders are classes of the model is found; of folders train/, val/ and test/,
the test images are scored, or else those of val/.

Every image counts exactly once. An image that cannot be read ends the run without a score, unless
--skip_unreadable is given, which names it and leaves it out. --check_files looks for such images
first, before the network is loaded:

    squeezenet eval --model_dir pretrained/squeezenet_v1.1 \\
        --test_list data/val_list.txt --data_dir data --check_files bad_list.txt

--report_dir writes report.html, one page for a browser with everything embedded, and its numbers
and figures as files: precision, recall and F1 of every class, the confusion matrix, the most
confused pairs, the most confidently wrong images, how far the probabilities can be trusted, and the
training curves if the model comes from a training run:

    squeezenet eval --model_dir pretrained/squeezenet_v1.1 \\
        --test_list data/val_list.txt --data_dir data --report_dir output/report

A model of finetune is calibrated: its probabilities have a temperature, and it takes images that
are unlike those of its classes for "none of these". A second line says how large the calibration
error is, with the temperature and without it, and how many of the images would be refused.
--unknown names images of none of the classes, to see how well they are told apart; AUROC is the
share of pairs, one image of the list and one of these, in which the model knows which is which:

    squeezenet eval --model_dir output/mine --images my_images/ --unknown holiday/

Several processes share the list:

    squeezenet eval --model_dir pretrained/squeezenet_v1.1 \\
        --test_list data/val_list.txt --data_dir data --device cpu --num_procs 2

The list may be a CSV file with the columns image and label, and labels may be class names if the
model directory or --synset_word_list has them. From Python:

    >>> from squeezenet_paddle import evaluate
    >>> evaluate("pretrained/squeezenet_v1.1", "data/val_list.txt")["top1"]
    0.5333333333333333
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.image_files import find_images
from ..data.list_checks import describe_other_order
from ..data.lists import ImageList, read_list
from ..data.loader import check_files
from ..datasets.folders import labelled_images
from ..device import use_device
from ..errors import InputError, describe_problems
from ..evaluation.evaluate import score_list, score_unknown
from ..evaluation.metrics import second_k
from ..evaluation.report import REPORT, check_report_target, report_of, write_report
from ..files import check_file_target, write_text
from ..model_dir import read_info
from ..parallel import launcher
from ..predict import Predictor
from . import common, shared_flags

if TYPE_CHECKING:
    from ..parallel.group import Group


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = common.parser(__doc__, leading=("--model_dir", "--test_list"))
    what = parser.add_argument_group("what to score")
    shared_flags.add_model_dir(what)
    which = what.add_mutually_exclusive_group(required=True)
    shared_flags.add_list(which, "--test_list")
    which.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="a folder that has a folder for each class, named as the model's classes "
        "(default: none)",
    )
    shared_flags.add_class_level(what)
    shared_flags.add_data_dir(what)
    shared_flags.add_synset_word_list(what)
    what.add_argument(
        "--ten_crop",
        action="store_true",
        help="average the probabilities of four corners, the center, and their mirrors "
        "(default: off, the center alone)",
    )
    what.add_argument(
        "--unknown",
        nargs="+",
        metavar="PATH",
        help="files, folders or globs: images of none of the model's classes (default: none)",
    )
    result = parser.add_argument_group("result")
    result.add_argument(
        "--metrics_json", type=Path, metavar="FILE", help="write the scores there (default: none)"
    )
    result.add_argument(
        "--report_dir",
        type=Path,
        metavar="DIR",
        help="write a report there, report.html and its numbers and figures (default: none)",
    )
    images = parser.add_argument_group("images that cannot be read")
    images.add_argument(
        "--check_files",
        type=Path,
        metavar="FILE",
        help="decode every image first; if some are bad, write their lines to FILE and stop "
        "(default: off)",
    )
    shared_flags.add_skip_unreadable(images)
    running = parser.add_argument_group("running")
    shared_flags.add_loading(running)
    shared_flags.add_device(running)
    shared_flags.add_engine(running)
    shared_flags.add_processes(running)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_arguments(argv)
    info = read_info(args.model_dir)
    if info.is_untrained and not launcher.is_started():
        common.note(
            "the classifier of this model directory is new and untrained: its scores are those of "
            "chance."
        )
    if args.unknown is not None and (info.calibration is None or args.ten_crop):
        raise InputError(
            "`unknown` needs a model with a calibration, as finetune makes it, and the center crop."
        )
    classes = info.network.num_classes
    names = shared_flags.class_names(args, info)
    images = images_to_score(args, classes, names)
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
    with joined(args) if launcher.is_started() else contextlib.nullcontext() as group:
        predictor = Predictor(args.model_dir, args.device, args.engine, args.precision)
        evaluation = score_list(
            predictor,
            images,
            batch_size=args.batch_size,
            num_workers=args.num_workers,
            max_pixels=args.max_pixels,
            ten_crop=args.ten_crop,
            skip_unreadable=args.skip_unreadable,
            group=group,
        )
    if group is not None and group.rank:
        return 0
    engine = {"engine": predictor.engine, "precision": predictor.precision}
    scores = {**evaluation.summary(), **engine}
    skipped = f"  {len(scores['unreadable'])} skipped" if scores["unreadable"] else ""
    print(
        f"top-1 {scores['top1']:.2%}  top-{second_k(classes)} {scores['top5']:.2%}  "
        f"loss {scores['loss']:.4f}  {scores['images']} images{skipped}  "
        f"{scores['images_per_second']:.1f} images/s"
    )
    if evaluation.trust is not None:
        trust = evaluation.trust
        print(
            f"calibration error {trust['ece']:.4f}, without the temperature "
            f"{trust['ece_uncalibrated']:.4f}; {trust['refused']:.2%} refused as none of these"
        )
    elif info.calibration is not None:
        common.note("`ten_crop`: the model's calibration is for the center crop, and is not used.")
    unknown = None
    if args.unknown is not None:
        unknown = score_unknown(
            predictor,
            ImageList.of_paths(find_images(args.unknown, common.note, "unknown")),
            evaluation,
            batch_size=args.batch_size,
            num_workers=args.num_workers,
            max_pixels=args.max_pixels,
        )
        scores["unknown"] = unknown
        print(
            f"unknown images: AUROC {unknown['auroc']:.4f}, {unknown['refused']:.2%} of "
            f"{unknown['images']} refused as none of these"
        )
    if args.metrics_json is not None:
        write_text(args.metrics_json, json.dumps(scores, indent=2) + "\n")
    if args.report_dir is not None:
        report = report_of(predictor, images, evaluation, names, args.ten_crop, args.max_pixels)
        report = dataclasses.replace(report, unknown=unknown)
        write_report(args.report_dir, report)
        print(f"report: {args.report_dir / REPORT}")
    return 0


def images_to_score(
    args: argparse.Namespace, classes: int, names: Sequence[str] | None
) -> ImageList:
    """The images of --test_list or --images, with their labels."""
    if args.test_list is not None:
        if args.class_level is not None:
            raise InputError("`class_level` is of folders: it goes with `images`.")
        images = read_list(args.test_list, args.data_dir, classes, names)
        if (other_order := describe_other_order(images, names)) and not launcher.is_started():
            common.note(other_order)
        return images
    if args.data_dir is not None:
        raise InputError(
            "`data_dir` is where the paths of `test_list` start, not those of `images`."
        )
    report = str if launcher.is_started() else common.note
    return labelled_images(args.images, names, args.class_level, report)


def joined(args: argparse.Namespace) -> Group:
    """The processes that share the list."""
    from ..parallel.group import join  # Paddle

    return join(use_device(args.device))


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
