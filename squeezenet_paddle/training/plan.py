"""From the flags of a training run to everything that it needs, before Paddle is loaded."""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cli import training_flags
from ..data.augment import Augment
from ..data.lists import ImageList, read_list, read_names
from ..data.preprocess import Preprocess
from ..errors import InputError
from ..files import read_bytes, read_lines, sha256
from ..model_dir import WEIGHTS, ModelInfo, read_info
from ..network.config import minimum_input_size
from ..network.heads import HEADS
from ..network.stages import STAGES, first_trained
from ..run_dir import Settings, model_dir_of
from .recipe import Amp, Intervals, Recipe


@dataclass(frozen=True)
class Plan:
    """A run as the flags describe it, checked as far as it can be without Paddle.

    Attributes:
        train, val: the lists.
        info: of the model directories to be written.
        pretrained: the model directory to start from, and what it says; None: from scratch.
        init, classifier_bias: initialisation, from scratch or of a new classifier.
        augment, recipe, intervals, settings: how to train.
        output_dir: of the run.
        resume: go on from a checkpoint that is there.
        overwrite: remove first what a run left there.
        device: as `choose_device` takes it.
        to_static, amp: of `Machine`.
        num_workers, max_pixels, skip_unreadable: of the readers.
    """

    train: ImageList
    val: ImageList | None
    info: ModelInfo
    pretrained: Path | None
    init: str
    classifier_bias: float | None
    augment: Augment
    recipe: Recipe
    intervals: Intervals
    settings: Settings
    output_dir: Path
    resume: bool
    overwrite: bool
    device: str | None
    to_static: bool
    amp: Amp | None
    num_workers: int
    max_pixels: int
    skip_unreadable: bool


def make_plan(args: argparse.Namespace) -> Plan:
    """Reads the lists and whatever else the flags name.

    Raises:
        InputError: something is not as it should be.
    """
    pretrained = None if args.pretrained is None else read_info(args.pretrained)
    classes = args.num_classes
    names = None if pretrained is None else pretrained.names
    if args.synset_word_list is not None:
        classes = classes or len(read_lines(args.synset_word_list, "list of class names"))
        names = read_names(args.synset_word_list, classes)
    train = read_list(args.train_list, args.data_dir, classes, names)
    classes = classes or int(train.labels.max()) + 1
    val = None
    if args.val_list is not None:
        val = read_list(args.val_list, args.data_dir, classes, names)
    config = training_flags.network_config(
        args, None if pretrained is None else pretrained.network, classes
    )
    preprocess = training_flags.preprocess(
        args, Preprocess() if pretrained is None else pretrained.preprocess, config.data_format
    )
    minimum = minimum_input_size(config.version)
    if preprocess.crop_size < minimum:
        raise InputError(
            f"--crop_size: SqueezeNet v{config.version} needs at least {minimum} pixels, found "
            f"{preprocess.crop_size}."
        )
    source: dict[str, Any] = {
        "format": "trained",
        "train_list": args.train_list.name,
        "images": len(train),
        "pretrained": None if pretrained is None else pretrained.source,
    }
    info = ModelInfo(
        config, preprocess, names if names and len(names) == classes else None, source=source
    )
    if args.classifier_bias is not None and not HEADS[config.head].has_conv10:
        raise InputError(
            f"`classifier_bias` {args.classifier_bias:g}: it is that of conv10, which the head "
            f"{config.head} does not have."
        )
    first = first_trained(args.trainable)
    if first != STAGES[0] and pretrained is None:
        raise InputError(
            f"--trainable {args.trainable}: the other layers would keep their random weights; "
            "--pretrained was expected with it."
        )
    if args.patience is not None and val is None:
        raise InputError("--patience: --val_list was expected with it, to score the network on.")
    iter_size = training_flags.iter_size(args)
    updates_per_epoch = -(-len(train) // args.batch_size)
    recipe = Recipe(
        training_flags.schedule(args, training_flags.max_steps(args, updates_per_epoch)),
        args.batch_size,
        iter_size,
        args.optimizer,
        args.momentum,
        args.weight_decay,
        args.label_smoothing,
        args.clip_norm,
        args.ema_decay,
        args.seed,
        first,
        args.head_lr_mult,
        args.balance,
        args.patience,
    )
    intervals = Intervals(
        args.log_interval.updates(updates_per_epoch),
        args.eval_interval.updates(updates_per_epoch),
        args.save_interval.updates(updates_per_epoch),
        args.keep_checkpoints,
    )
    augment = training_flags.augment(args)
    settings = settings_of(args, info, augment, recipe, train)
    return Plan(
        train,
        val,
        info,
        args.pretrained,
        args.init,
        args.classifier_bias,
        augment,
        recipe,
        intervals,
        settings,
        args.output_dir,
        resume=not (args.no_resume or args.overwrite),
        overwrite=args.overwrite,
        device=args.device,
        to_static=args.to_static,
        amp=None if args.amp is None else Amp(args.amp, args.amp_dtype),
        num_workers=args.num_workers,
        max_pixels=args.max_pixels,
        skip_unreadable=args.skip_unreadable,
    )


def settings_of(
    args: argparse.Namespace,
    info: ModelInfo,
    augment: Augment,
    recipe: Recipe,
    train: ImageList,
) -> Settings:
    """What a resume compares, in the words of the flags."""
    fixed: dict[str, Any] = {
        "--seed": recipe.seed,
        "--batch_size": recipe.batch_size,
        "--iter_size": recipe.iter_size,
        "--optimizer": recipe.optimizer,
        "--ema_decay": "on" if recipe.ema_decay is not None else "off",
        "--init": args.init,
        "--classifier_bias": args.classifier_bias,
        "--trainable": "all" if recipe.first == STAGES[0] else recipe.first,
        "the weights of --pretrained": None,
        "the content of --train_list": sha256(train.text.tobytes() + train.labels.tobytes()),
    }
    if args.pretrained is not None:
        weights = model_dir_of(args.pretrained) / WEIGHTS
        fixed["the weights of --pretrained"] = sha256(read_bytes(weights, "file of weights"))
    for part in (
        dataclasses.asdict(info.network),
        info.preprocess.record(),
        dataclasses.asdict(augment),
    ):
        fixed.update({f"--{name}": value for name, value in part.items()})
    renamed = {"base_lr": "--lr", "policy": "--lr_policy"}
    free = {
        renamed.get(name, f"--{name}"): value
        for name, value in dataclasses.asdict(recipe.schedule).items()
    }
    for name in ("momentum", "weight_decay", "label_smoothing", "clip_norm", "ema_decay"):
        free[f"--{name}"] = getattr(recipe, name)
    for name in ("head_lr_mult", "balance", "patience"):
        free[f"--{name}"] = getattr(recipe, name)
    free["--to_static"], free["--amp"] = args.to_static, args.amp
    return Settings(*(json.loads(json.dumps(values)) for values in (fixed, free)))
