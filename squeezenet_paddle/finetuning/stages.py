"""The flags of a fine-tuning, and the training runs that they mean."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cli import training_flags
from ..cli.common import (
    add_data_dir,
    add_device,
    add_list,
    add_reading,
    add_synset_word_list,
    positive_int,
    seed,
)
from ..errors import InputError
from ..network.stages import STAGES, first_trained
from ..run_dir import CHECKPOINTS, FIRST_STAGE, Settings
from ..training import checkpoint
from ..training.plan import Plan, make_plan
from ..training.recipe import OPTIMIZERS
from .lists import Lists

STAND_IN = 1e-3  # for a learning rate that is still to be found
SAVED_AFTER = 5000  # images, in whole epochs, as saving takes as long as a few hundred


@dataclass(frozen=True)
class Stage:
    """A training run that is part of a fine-tuning.

    Attributes:
        plan: of the run.
        views: of each training image.
        cache: whether features are cached.
        finds_lr: the learning rate of the plan stands for one that a range test has to find.
    """

    plan: Plan
    views: int
    cache: bool
    finds_lr: bool


def stages(args: argparse.Namespace, images: Lists) -> Iterator[Stage]:
    """The runs, each planned once the one before it is done.

    Raises:
        InputError: something is not as it should be.
    """
    first = first_trained(args.trainable)
    if args.then is None:
        yield _stage(args, images, first, args.pretrained, args.output_dir, args.num_epochs)
        return
    then = first_trained(args.then)
    if STAGES.index(then) >= STAGES.index(first):
        raise InputError(
            f"--then {args.then}: more than what --trainable {args.trainable} trains was expected."
        )
    folder = args.output_dir / FIRST_STAGE
    yield _stage(args, images, first, args.pretrained, folder, args.num_epochs)
    yield _stage(args, images, then, folder, args.output_dir, args.epochs)


def _stage(
    args: argparse.Namespace,
    images: Lists,
    first: str,
    pretrained: Path,
    output_dir: Path,
    epochs: int,
) -> Stage:
    lr = args.lr if pretrained == args.pretrained else None
    finds_lr = False
    if lr is None:
        lr = _lr_of(output_dir)
    if lr is None:
        lr, finds_lr = STAND_IN, True
    given = {
        "train_list": images.train_list,
        "val_list": images.val_list,
        "data_dir": images.root,
        "synset_word_list": images.names,
        "trainable": first,
        "pretrained": pretrained,
        "output_dir": output_dir,
        "num_epochs": epochs,
        # Features of a whole batch fit into memory; images are taken as train.py does.
        "iter_size": None if first == STAGES[0] else 1,
        "lr": lr,
        "classifier_bias": None,
        "overwrite": False,  # what there was is gone by now
    }
    plan = make_plan(argparse.Namespace(**{**_defaults(), **vars(args), **given}))
    fixed = {**plan.settings.must_match, "--views": args.views}
    epochs_between = max(SAVED_AFTER // len(plan.train), 1)
    intervals = dataclasses.replace(plan.intervals, save=plan.intervals.save * epochs_between)
    plan = dataclasses.replace(
        plan, intervals=intervals, settings=Settings(fixed, plan.settings.may_change)
    )
    return Stage(plan, args.views, not args.no_cache, finds_lr)


def _defaults() -> dict[str, Any]:
    """The flags of train.py that finetune.py does not have."""
    parser = argparse.ArgumentParser()
    training_flags.add_network(parser)
    training_flags.add_recipe(parser)
    epoch = training_flags.Interval(1, epochs=True)
    return {
        **vars(parser.parse_args([])),
        "mean_json": None,
        "log_interval": epoch,
        "eval_interval": epoch,
        "save_interval": epoch,
        "keep_checkpoints": 2,
        "no_resume": False,
        "to_static": False,
        "amp": None,
        "amp_dtype": "float16",
    }


def _lr_of(output_dir: Path) -> float | None:
    """That of the run which is there to go on, if there is one."""
    found = checkpoint.load_newest(output_dir / CHECKPOINTS)
    return None if found is None else found.record["settings"]["may_change"]["--lr"]


def with_lr(plan: Plan, lr: float) -> Plan:
    """The same run with another learning rate."""
    schedule = dataclasses.replace(plan.recipe.schedule, base_lr=lr)
    return dataclasses.replace(
        plan,
        recipe=dataclasses.replace(plan.recipe, schedule=schedule),
        settings=Settings(plan.settings.must_match, {**plan.settings.may_change, "--lr": lr}),
    )


def add_flags(parser: argparse.ArgumentParser) -> None:
    """All flags of finetune.py."""
    data = parser.add_argument_group("images")
    data.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="a folder with a folder for each class; images may lie deeper in them",
    )
    add_list(data, "--train_list")
    add_list(data, "--val_list")
    add_data_dir(data)
    add_synset_word_list(data)
    data.add_argument(
        "--val_share",
        type=_share,
        default=0.2,
        metavar="SHARE",
        help="of each class's images, for validation, where there is no --val_list (default: 0.2)",
    )
    data.add_argument(
        "--class_name_pattern",
        metavar="REGEX",
        help="searched for in a class folder's name; its first group, or the whole match, is the "
        "class's name (default: the folder's name)",
    )
    data.add_argument(
        "--skip_unreadable",
        action="store_true",
        help="leave out images that cannot be read, and name them (default: off)",
    )
    network = parser.add_argument_group("network")
    network.add_argument(
        "--pretrained",
        type=Path,
        required=True,
        metavar="DIR",
        help="the model directory to start from (required)",
    )
    network.add_argument(
        "--head",
        choices=("conv", "multiscale"),
        default="multiscale",
        help="conv, the original's; multiscale, two layers on the means of all fires' maps "
        "(default: multiscale)",
    )
    network.add_argument(
        "--trainable",
        default="head",
        metavar="STAGES",
        help="head, fire9, fire8+, ..., fire2+ or all: what is trained (default: head)",
    )
    network.add_argument(
        "--then",
        metavar="STAGES",
        help="a second stage, from the best of the first: what it trains (default: none)",
    )
    features = parser.add_argument_group("features")
    features.add_argument(
        "--views",
        type=positive_int,
        default=2,
        help="augmented views of each training image; epoch e sees view e modulo N, or a view "
        "of its own where all layers are trained (default: 2)",
    )
    features.add_argument(
        "--no_cache",
        action="store_true",
        help="compute the features anew in each epoch, the same ones (default: off)",
    )
    training_flags.add_preprocess(
        parser.add_argument_group("input", "Defaults: those of the model of --pretrained.")
    )
    training_flags.add_augmentation(parser.add_argument_group("augmentation"))
    solver = parser.add_argument_group("solver")
    solver.add_argument("--num_epochs", type=positive_int, default=30, help="(default: 30)")
    solver.add_argument(
        "--epochs", type=positive_int, default=2, help="of the second stage (default: 2)"
    )
    solver.add_argument(
        "--batch_size", type=positive_int, default=64, help="images an update (default: 64)"
    )
    solver.add_argument("--optimizer", choices=OPTIMIZERS, default="adam", help="(default: adam)")
    solver.add_argument(
        "--lr", type=float, help="learning rate (default: found by a short range test)"
    )
    solver.add_argument("--weight_decay", type=float, default=2e-4, help="(default: 0.0002)")
    solver.add_argument("--label_smoothing", type=float, default=0.0, help="(default: 0)")
    solver.add_argument("--dropout", type=float, metavar="X", help="(default: the model's)")
    solver.add_argument(
        "--head_lr_mult",
        type=float,
        default=1.0,
        metavar="X",
        help="what the learning rate is multiplied by for the head (default: 1)",
    )
    solver.add_argument(
        "--balance",
        action="store_true",
        help="let all classes count the same, however many images they have (default: off)",
    )
    solver.add_argument(
        "--patience",
        type=positive_int,
        default=10,
        help="end after so many epochs without a better score (default: 10)",
    )
    solver.add_argument("--seed", type=seed, default=0, help="of everything random (default: 0)")
    run = parser.add_argument_group("run")
    run.add_argument("--output_dir", type=Path, required=True, metavar="DIR", help="(required)")
    run.add_argument(
        "--overwrite", action="store_true", help="start anew and remove what a run left there"
    )
    machine = parser.add_argument_group("machine")
    add_device(machine)
    add_reading(machine)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a number was expected, found {text!r}") from None
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} does not lie between 0 and 1")
    return value
