"""A fine-tuning from its flags: images, features, learning rate, training, report."""

from __future__ import annotations

import argparse
import contextlib
from typing import TYPE_CHECKING

from ..data.augment import TrainTransform
from ..data.lists import read_list
from ..data.preprocess import EvalTransform
from ..device import use_device
from ..evaluation.evaluate import Evaluation, score_list
from ..evaluation.report import check_report_target, report_of, write_report
from ..model_dir import check_target, load_network, read_info, write_model_dir
from ..network.stages import STAGES
from ..predict import Predictor
from ..progress import say
from ..run_dir import (
    BEST,
    FINETUNE_ENTRIES,
    FIRST_STAGE,
    MODELS,
    REPORT_DIR,
    entries,
    locked,
    remove,
)
from ..training.plan import Plan
from ..training.run import (
    is_finished,
    open_loader,
    result,
    start_network,
    train,
)
from .features import cached, frozen_part
from .lists import Lists, find_lists, write_lists
from .loaders import ComputedFeatures, ViewTransform
from .stages import Stage, stages, with_lr

if TYPE_CHECKING:
    from ..network.model import SqueezeNet
    from ..parallel.group import Group
    from ..training.trainer import Inputs


def finetune(args: argparse.Namespace) -> Evaluation | None:
    """The whole of it; what the best model makes of the validation list.

    Returns:
        None if a signal ended it early.

    Raises:
        InputError, RunError: it cannot start or go on.
    """
    lists = find_lists(args)
    for name in MODELS:
        check_target(args.output_dir / name)
    check_report_target(args.output_dir / REPORT_DIR)
    with locked(args.output_dir):
        if args.overwrite:
            remove(entries(args.output_dir, FINETUNE_ENTRIES))
        write_lists(lists, args.output_dir)
        if lists.note:
            say(lists.note)
        for stage in stages(args, lists):
            if not _run(stage):
                return None
        if args.then is not None:
            _keep_the_better(args)
        return _report(args, lists)


def _run(stage: Stage) -> bool:
    """A stage from its start, or from where it was; False if a signal ended it early."""
    plan = stage.plan
    if is_finished(plan):
        say(f"{plan.output_dir}: this run is finished; {result(plan)}")
        return True
    if not stage.finds_lr:
        return train(plan, lambda *given: _inputs(stage, *given), lock=False)
    from ..parallel.group import Group  # Paddle, once everything else is right
    from .lr_range import find_lr

    device = use_device(plan.device)
    with contextlib.ExitStack() as stack:
        network, _ = start_network(plan)
        inputs = _inputs(stage, plan, Group(), network, stack)
        plan = with_lr(plan, find_lr(plan, network, device, inputs))
        say(f"learning rate: {plan.recipe.schedule.base_lr:g}, found by a range test")
        return train(plan, lambda *_: inputs, lock=False)


def _inputs(
    stage: Stage, plan: Plan, group: Group, network: SqueezeNet, stack: contextlib.ExitStack
) -> Inputs:
    """Features, or the images themselves where nothing is frozen, or all is computed anew."""
    from ..training.trainer import Inputs

    assert plan.val is not None
    preprocess, recipe = plan.info.preprocess, plan.recipe
    all_trained = recipe.first == STAGES[0]
    transform = TrainTransform(preprocess, plan.augment, recipe.seed)
    views = ViewTransform(transform, stage.views)
    val_transform = EvalTransform(preprocess)
    if stage.cache and not all_trained:
        return Inputs(*cached(plan, (views, val_transform), network), preprocess.crop_size)
    train_transform = transform if all_trained else views
    loader = open_loader(plan, group, plan.train, train_transform, shuffle=True)
    val_loader = open_loader(plan, group, plan.val, val_transform, shuffle=False)
    stack.enter_context(loader)
    stack.enter_context(val_loader)
    if all_trained:
        return Inputs(loader, val_loader)
    frozen = frozen_part(plan, network)
    return Inputs(
        ComputedFeatures(loader, frozen),
        ComputedFeatures(val_loader, frozen),
        preprocess.crop_size,
    )


def _keep_the_better(args: argparse.Namespace) -> None:
    """Where the second stage has made the model worse, the first one's is the best."""
    first, best = args.output_dir / FIRST_STAGE / BEST, args.output_dir / BEST
    infos = [read_info(path) for path in (first, best)]
    scores = [info.scores["val"]["top1"] for info in infos]
    if scores[0] > scores[1]:
        write_model_dir(best, infos[0], load_network(first, infos[0]).state_dict())
    better = "the first is kept" if scores[0] > scores[1] else "the second is kept"
    say(f"validation top-1 {scores[0]:.2%}, then {scores[1]:.2%}: {better}")


def _report(args: argparse.Namespace, lists: Lists) -> Evaluation:
    """Scores the best model on the validation list and writes the report."""
    predictor = Predictor(args.output_dir, args.device)
    info = predictor.info
    images = read_list(lists.val_list, lists.root, info.network.num_classes, info.names)
    evaluation = score_list(
        predictor,
        images,
        num_workers=args.num_workers,
        max_pixels=args.max_pixels,
        skip_unreadable=args.skip_unreadable,
    )
    report = report_of(predictor, images, evaluation, max_pixels=args.max_pixels)
    write_report(args.output_dir / REPORT_DIR, report)
    return evaluation
