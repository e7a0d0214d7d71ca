"""A training run from a plan: readers, network, trainer, and what is told of it."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Callable

import numpy as np

from ..data.augment import TrainTransform
from ..data.lists import ImageList
from ..data.loader import Batches, Loader, Transform
from ..data.preprocess import EvalTransform
from ..data.sampler import Sampler
from ..device import use_device
from ..errors import InputError
from ..files import clear_leftovers
from ..model_dir import check_target, load_network, read_info
from ..network.heads import HEADS
from ..network.stages import STAGES, state_stages
from ..progress import say
from ..run_dir import (
    BEST,
    CHECKPOINTS,
    FINAL,
    MODELS,
    RUN_ENTRIES,
    Settings,
    entries,
    locked,
    remove,
)
from . import checkpoint
from .checkpoint import Checkpoint
from .plan import Plan
from .recipe import Inputs, Machine

if TYPE_CHECKING:
    from ..network.model import SqueezeNet
    from ..parallel.group import Group


def is_finished(plan: Plan) -> bool:
    """Checks that the run may start or go on in its directory; whether there is nothing to do.

    Raises:
        InputError: the directory holds something else, or a run of other settings.
    """
    for name in MODELS:
        check_target(plan.output_dir / name)
    if not plan.resume:
        there = entries(plan.output_dir, RUN_ENTRIES)
        if there and not plan.overwrite:
            raise InputError(
                f"--no_resume: {plan.output_dir} holds a run already ({there[0].name}); "
                "--overwrite removes it."
            )
        return False
    found = checkpoint.load_newest(plan.output_dir / CHECKPOINTS)
    if found is None:
        return False
    changes_since(found, plan)
    last = plan.recipe.schedule.max_steps
    if found.step > last:
        raise InputError(
            f"{plan.output_dir}: this run has done {found.step} updates, and the flags ask for "
            f"{last}."
        )
    final = plan.output_dir / FINAL
    done = plan.recipe.is_done(found.step, found.record["not_better"])
    return done and final.is_dir() and read_info(final).source.get("step") == found.step


def changes_since(found: Checkpoint, plan: Plan) -> list[str]:
    """What the flags change of a run that they go on with, a text for each."""
    return plan.settings.changes_since(Settings(**found.record["settings"]), plan.output_dir)


Source = Callable[[Plan, "Group", "SqueezeNet", contextlib.ExitStack], Inputs]


def images(plan: Plan, group: Group, network: SqueezeNet, stack: contextlib.ExitStack) -> Inputs:
    """Readers of the plan's lists, which end with the stack."""
    preprocess = plan.info.preprocess
    augmented = TrainTransform(preprocess, plan.augment, plan.recipe.seed)
    loader = stack.enter_context(open_loader(plan, group, plan.train, augmented, shuffle=True))
    val_loader = None
    if plan.val is not None:
        plain = EvalTransform(preprocess)
        val_loader = stack.enter_context(open_loader(plan, group, plan.val, plain, shuffle=False))
    return Inputs(loader, val_loader)


def train(plan: Plan, source: Source = images, lock: bool = True) -> bool:
    """This process's part of the run; False if a signal ended it early.

    Args:
        plan: the run.
        source: gives what to train on, for the network with the weights that it starts from.
        lock: keep other runs out of the directory; False where the caller does.

    Raises:
        InputError, RunError: the run cannot start or go on.
    """
    from ..parallel.group import join
    from .report import RunReport
    from .trainer import Trainer

    device = use_device(plan.device)
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(join(device))
        found = None
        if not group.rank:
            if lock:
                stack.enter_context(locked(plan.output_dir))
            for name in RUN_ENTRIES:
                clear_leftovers(plan.output_dir / name)
            if plan.overwrite:
                remove(entries(plan.output_dir, RUN_ENTRIES))
            if plan.resume:
                found = checkpoint.load_newest(plan.output_dir / CHECKPOINTS)
        found = group.broadcast_object(found)
        network, start = start_network(plan)
        group.broadcast(list(network.state_dict().values()))
        inputs = source(plan, group, network, stack)
        trainer = Trainer(
            network,
            plan.info,
            plan.recipe,
            Machine(device, plan.to_static, plan.amp),
            plan.intervals,
            inputs,
            plan.output_dir,
            dataclasses.asdict(plan.settings),
            group,
        )
        if found is not None:
            trainer.restore(found)
        if group.rank:
            done = trainer.run(None)
            _skipped(inputs.train, group)
            return done
        with RunReport(
            plan.output_dir,
            plan.info,
            _hyper_parameters(plan),
            plan.recipe.schedule.max_steps,
            trainer.step,
        ) as report:
            report.message(_headline(plan, start, group.world_size))
            if found is not None:
                report.message(f"goes on after update {found.step}")
                for change in changes_since(found, plan):
                    report.message(f"changed: {change}")
            done = trainer.run(report)
            if skipped := _skipped(inputs.train, group):
                report.message(f"{skipped} images could not be read and were left out")
            if done:
                early = ""
                if trainer.step < plan.recipe.schedule.max_steps:
                    early = f"after update {trainer.step}, {plan.recipe.patience} evaluations "
                    early += "without a better score; "
                report.message(f"finished; {early}{result(plan)}")
            else:
                report.message(
                    f"stopped after update {trainer.step} of {plan.recipe.schedule.max_steps} and "
                    "saved; the same command goes on from there"
                )
            return done


def result(plan: Plan) -> str:
    """Which model directories a finished run has left, and the best score."""
    final, best = plan.output_dir / FINAL, plan.output_dir / BEST
    if plan.val is None:
        return f"the model directory is {final}"
    scores = read_info(best).scores["val"]
    return f"best validation top-1 {scores['top1']:.2%} in {best}, the last update's in {final}"


def open_loader(
    plan: Plan, group: Group, images: ImageList, transform: Transform, shuffle: bool
) -> Loader:
    """Reads this process's share of the parts in which batches are computed."""
    sampler = Sampler(
        len(images),
        plan.recipe.batch_size // plan.recipe.iter_size,
        shuffle=shuffle,
        seed=plan.recipe.seed,
        rank=group.rank,
        world_size=group.world_size,
    )
    skip = report_skipped if plan.skip_unreadable else None
    return Loader(images, transform, sampler, plan.num_workers, plan.max_pixels, skip)


def start_network(plan: Plan) -> tuple[SqueezeNet, str]:
    """The network with the weights it starts from, and a text that says which."""
    import paddle

    from ..network.model import SqueezeNet, load_state

    paddle.seed(plan.recipe.seed)
    network = SqueezeNet(plan.info.network, plan.init, plan.classifier_bias)
    if plan.pretrained is None:
        return network, f"from scratch ({plan.init} initialisation)"
    info = read_info(plan.pretrained)
    state = {k: v.numpy() for k, v in load_network(plan.pretrained, info).state_dict().items()}
    start = f"from {plan.pretrained}"
    there, wanted = info.network, plan.info.network
    own = {k: v.numpy() for k, v in network.state_dict().items()}
    if there.head != wanted.head:
        stages = {**state_stages(there), **state_stages(wanted)}
        state = {k: v for k, v in state.items() if stages[k] != "head"}
        state.update({k: v for k, v in own.items() if stages[k] == "head"})
        start += f", its head {there.head} replaced by a new one, {wanted.head}"
    elif there.num_classes != wanted.num_classes:
        prefix = f"{HEADS[wanted.head].classifier}."
        state.update({k: v for k, v in own.items() if k.startswith(prefix)})
        start += f", its classifier of {there.num_classes} classes replaced by a new one"
    load_state(network, state, str(plan.pretrained))
    return network, start


def _hyper_parameters(plan: Plan) -> dict[str, object]:
    """What VisualDL compares runs by. Short names: its board hangs where one is cut off."""
    recipe = plan.recipe
    return {
        "version": plan.info.network.version,
        "optimizer": recipe.optimizer,
        "lr": recipe.schedule.base_lr,
        "policy": recipe.schedule.policy,
        "batch": recipe.batch_size,
        "decay": recipe.weight_decay,
        "updates": recipe.schedule.max_steps,
        "seed": recipe.seed,
    }


def _headline(plan: Plan, start: str, processes: int) -> str:
    """What is about to be trained, on what."""
    network, recipe, last = plan.info.network, plan.recipe, plan.recipe.schedule.max_steps
    part = recipe.batch_size // recipe.iter_size
    if recipe.first != STAGES[0]:
        start += (
            f", of which {recipe.first}{'' if recipe.first == 'head' else ' and what follows'} "
        )
        start += "is trained"
    return (
        f"SqueezeNet v{network.version}, {network.num_classes} classes, {start}; "
        f"{len(plan.train)} training and {0 if plan.val is None else len(plan.val)} validation "
        f"images; {last} updates of {recipe.batch_size} ({recipe.iter_size} x {part}), "
        f"{last / -(-len(plan.train) // recipe.batch_size):.1f} epochs; "
        f"{processes} process{'es' if processes > 1 else ''}"
    )


def _skipped(loader: Batches, group: Group) -> int:
    """How many images were left out, by whichever process."""
    left_out = np.zeros(len(loader.images))
    left_out[list(loader.skipped)] = 1
    return int(np.count_nonzero(group.sum(left_out)))


def report_skipped(message: str) -> None:
    say(f"skipped: {message}")
